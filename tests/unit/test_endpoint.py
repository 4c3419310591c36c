"""Before the first item: is the server there, is it the model's, does it tell likelihoods?"""

import socket

import pytest

from nemoflow.engines import endpoint
from nemoflow.errors import UserError
from openai_server import Server


@pytest.fixture
def server():
    with Server(name="super3-sft") as server:
        yield server
        server.shutdown()


def test_a_server_that_serves_the_model_passes(server):
    endpoint.check(server.told())
    endpoint.check(server.told(url=f"{server.url}/"))


def test_a_server_that_is_down_is_told(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=f"nobody answers at {url}/models .*refused"):
            endpoint.check(server.told(url=url))


def test_a_model_that_is_not_served_is_told(server):
    with pytest.raises(UserError, match="serves no micro, but super3-sft; correct the name"):
        endpoint.check(server.told(model="micro"))


def test_an_address_that_is_not_the_one_is_told(server):
    with pytest.raises(UserError, match="answers 404 Not Found; the url is the one up to /v1"):
        endpoint.check(server.told(url=server.url.removesuffix("/v1")))


def test_the_key_comes_from_the_environment(server, monkeypatch):
    server.key = "sk-loopback"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"refuses the key \(401\); set OPENAI_API_KEY") as error:
        endpoint.check(server.told())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with pytest.raises(UserError) as error:
        endpoint.check(server.told())
    assert "sk-" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", server.key)
    endpoint.check(server.told())


def test_a_server_that_hangs_is_told(server):
    server.lock.acquire()
    try:
        with pytest.raises(UserError, match="nobody answers at .*timed out"):
            endpoint.check_likelihoods(server.told(timeout=0.2))
    finally:
        server.lock.release()


@pytest.mark.parametrize(
    "reply", [{"choices": [{"text": "a"}]}, {"choices": [{"logprobs": None}]}, {"choices": []}, []]
)
def test_a_server_without_likelihoods_of_prompts_is_told(server, reply):
    server.fault = reply
    with pytest.raises(UserError, match="tells no likelihoods of a prompt"):
        endpoint.check_likelihoods(server.told())

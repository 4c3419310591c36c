"""An OpenAI-style server as the harness' model.

Chats that are to be answered go to chat/completions, as messages. All else goes to completions, as
token ids by the export's own tokenizer and template: likelihoods need `echo` and `logprobs`, which
chats have not. The key is OPENAI_API_KEY's, as lm-eval reads it.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemoflow.errors import UserError
from nemoflow.files import read_json

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

PATIENCE = 60  # seconds for the questions before the first item


def check(told: dict[str, Any]) -> None:
    """Whether the server is there and serves the model.

    Raises:
        UserError: it does not, or not with this key.
    """
    answer = asked(told, "models")
    try:
        served = sorted(str(model["id"]) for model in answer["data"])
    except (KeyError, TypeError) as error:
        raise UserError(f"eval.endpoint.url: {told['url']}/models lists no models") from error
    if told["model"] not in served:
        raise UserError(
            f"eval.endpoint.model: {told['url']} serves no {told['model']}, but"
            f" {', '.join(served) or 'nothing'}; correct the name, or start the right server"
        )


def check_likelihoods(told: dict[str, Any]) -> None:
    """Whether the server tells the likelihoods of a prompt's tokens; UserError where not."""
    question = {"model": told["model"], "prompt": "1 + 1 = 2", "max_tokens": 1, "temperature": 0}
    answer = asked(told, "completions", {**question, "logprobs": 1, "echo": True})
    try:
        found = answer["choices"][0]["logprobs"]["token_logprobs"]
    except (LookupError, TypeError):
        found = []
    if len(found or []) < 3:  # the prompt's and one more
        raise UserError(
            f"eval.endpoint.url: {told['url']}/completions tells no likelihoods of a prompt (echo"
            " with logprobs), which this task rates answers by; serve the model by vLLM, or set"
            " eval.backend to hf or vllm"
        )


def asked(told: dict[str, Any], path: str, body: dict[str, Any] | None = None) -> Any:
    """The server's answer to one question, decoded.

    Raises:
        UserError: nobody answers, or with an error, or with something else than JSON.
    """
    url = f"{told['url'].rstrip('/')}/{path}"
    key = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {**key, "Content-Type": "application/json"})
    # lm-eval's own requests go past proxies, too.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=min(told["timeout"], PATIENCE)) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            text = f"refuses the key ({error.code}); set OPENAI_API_KEY in the environment"
        else:
            text = f"answers {error.code} {error.reason}; the url is the one up to /v1"
        raise UserError(f"eval.endpoint.url: {url} {text}") from None
    except json.JSONDecodeError:
        raise UserError(
            f"eval.endpoint.url: {url} answers, but not as OpenAI's servers do"
        ) from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise UserError(
            f"eval.endpoint.url: nobody answers at {url} ({why}); start the server, or correct the"
            " url"
        ) from None


def model(job: dict[str, Any], tasks: list["Task"]) -> "LM":
    """The harness' model for the tasks of a job."""
    from nemoflow.engines.completions import ChatCompletions, Completions

    told = job["endpoint"]
    arguments = {
        "model": told["model"],
        "num_concurrent": told["parallel"],
        "max_retries": told["retries"],
        "timeout": told["timeout"],
        "max_length": read_json(Path(job["model"]) / "config.json")["max_position_embeddings"],
    }
    base = told["url"].rstrip("/")
    if job["task"]["chat"] and all(is_answered(task) for task in tasks):
        return ChatCompletions(base_url=f"{base}/chat/completions", **arguments)
    if any(task.OUTPUT_TYPE != "generate_until" for task in tasks):
        check_likelihoods(told)
    return Completions(
        base_url=f"{base}/completions",
        tokenizer=job["model"],
        tokenizer_backend="huggingface",
        batch_size=job["batch_size"],
        **arguments,
    )


def is_answered(task: "Task") -> bool:
    """Whether a task asks for an answer that is not begun for the model already."""
    return task.OUTPUT_TYPE == "generate_until" and not task.config.gen_prefix


@contextmanager
def failures(job: dict[str, Any]) -> Iterator[None]:
    """Say in a sentence what a server that fails on the way did; other models raise as they do."""
    if job["backend"] != "endpoint":
        yield
        return
    import aiohttp
    import requests

    # What is under way when one request has failed for good fails too, in as many tracebacks.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    told = job["endpoint"]
    tried = f"after {told['retries']} attempts; no score is written"
    try:
        yield
    except TimeoutError:
        raise UserError(
            f"eval.endpoint: {told['url']} took longer than {told['timeout']} s for a request,"
            f" {tried}; set eval.endpoint.timeout, or fewer eval.endpoint.parallel"
        ) from None
    except (aiohttp.ClientResponseError, requests.HTTPError) as error:
        status = getattr(error, "status", None) or error.response.status_code
        raise UserError(f"eval.endpoint: {told['url']} answers {status}, {tried}") from None
    except (aiohttp.ClientError, requests.RequestException) as error:
        raise UserError(
            f"eval.endpoint: {told['url']} is gone, {tried}: {type(error).__name__}"
        ) from None

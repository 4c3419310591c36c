"""Talking to the models of a finished run, as a person does."""

import os
import pty
import subprocess
import sys

import pytest

from nemoflow.files import read_json

CHAT = [sys.executable, "-m", "nemoflow", "chat", "micro"]


def asked(checkout, prompt, *arguments):
    """What a command answers to a prompt from standard input."""
    return subprocess.run(
        [*CHAT, *arguments], input=prompt, capture_output=True, text=True,
        cwd=checkout.folder, env=checkout.environment,
    )  # fmt: skip


def test_a_prompt_from_a_pipe_gets_one_answer(built):
    drawn = ("sft", "--max-new-tokens", "8", "--temperature", "1", "--seed")
    once, again, other = (asked(built, "Compute 2+7.\n", *drawn, seed) for seed in "001")
    assert once.returncode == 0 and once.stdout.strip(), once.stderr
    assert "<|im_end|>" not in once.stdout
    assert once.stdout == again.stdout != other.stdout


def test_what_has_no_room_is_refused(built):
    context = read_json(built.folder / "results/micro/export/sft/config.json")
    size = context["max_position_embeddings"]
    done = asked(built, "word " * size, "sft", "--plain", "--max-new-tokens", "8")
    assert done.returncode == 1 and done.stdout == ""
    assert f"leave room for the answer in a context of {size}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def terminal(built):
    """A conversation on a terminal, and what is to be written and read there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CHAT, "rl", "--max-new-tokens", "4"], stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=built.folder, env={**built.environment, "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    yield process, ours
    process.kill()
    process.wait()
    os.close(ours)


def read_until(terminal, word):
    """All that is written until a word comes."""
    found = b""
    while word not in found:
        found += os.read(terminal, 4096)
    return found.decode(errors="replace")


def test_a_conversation_on_a_terminal(terminal):
    process, ours = terminal
    assert "ask it something" in read_until(ours, b"> ")
    for prompt in (b"Compute 1+1.\n", b"And 2+2?\n", b"/new\n"):
        os.write(ours, prompt)
        assert "error" not in read_until(ours, b"> ")
    os.write(ours, b"\x04")
    assert process.wait(120) == 0

"""A tokenization that is killed at any moment: the next one ends with the same bytes."""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import pytest

import token_jobs
from nemoflow import files

PATIENCE = 60  # seconds in which orphans must be gone
TARGETS = ("group", "parent", "worker")


@pytest.fixture
def corpus(tmp_path):
    """Makes a planned corpus of so many bytes in shards; what tokens.py makes, and its size."""

    def make(size, shards):
        with open(tmp_path / "text.jsonl", "w") as file:
            for text in token_jobs.texts(size):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        work = token_jobs.TokenJob(tmp_path, {"local": "text.jsonl"}, shards)
        assert work.run(work.plan_command()).returncode == 0
        done = work.run(work.tokens_command())
        assert done.returncode == 0, done.stderr
        return work, products(work), token_jobs.written(work.payload)

    return make


def products(work):
    """The digests of a part's files, its manifest's among them."""
    found = {path.name: files.sha256_of(path) for path in work.payload.iterdir()}
    return found | {"manifest": files.sha256_of(work.folder / work.output)}


def forget(work):
    """Remove what was made; the plan and the cache stay."""
    shutil.rmtree(work.payload)
    (work.folder / work.output).unlink(missing_ok=True)


def workers(process):
    """The processes that a job started, and that live."""
    return [pid for pid in token_jobs.members(process.pid) if pid != process.pid]


def kill(process, target, drawn):
    """Kill a living job, or a part of it."""
    if target == "group":
        return os.killpg(process.pid, signal.SIGKILL)
    alive = workers(process) if target == "worker" else []
    with contextlib.suppress(ProcessLookupError):  # a worker may have ended by itself
        os.kill(drawn.choice(alive or [process.pid]), signal.SIGKILL)


def end(process):
    """Wait for a job that was hit, and for all that it started."""
    process.wait(300)  # a job that lost a process may work on for a while
    until = time.monotonic() + PATIENCE
    while orphans := token_jobs.members(process.pid):
        assert time.monotonic() < until, f"{orphans} live on after {process.pid}"
        time.sleep(0.02)


def killed(work, size, target, drawn):
    """Start a job, and kill it once so many bytes are written; its exit code."""
    process = work.start(work.tokens_command())
    while process.poll() is None:
        if token_jobs.written(work.payload) >= size and (target != "worker" or workers(process)):
            break
        time.sleep(0.002)
    if process.poll() is None:
        kill(process, target, drawn)
    end(process)
    said = (work.folder / "said.txt").read_text()
    assert "Traceback" not in said, said
    if process.returncode > 0:
        assert target == "worker" and "a process that tokenizes was killed" in said, said
    return process.returncode


def test_a_kill_at_any_moment_changes_no_byte(corpus):
    """Each attempt goes on with what the one before left."""
    work, expected, size = corpus(4_000_000, 4)
    drawn = random.Random(5)
    forget(work)
    codes = [
        killed(work, size * share, target, drawn)
        for share, target in ((0, "group"), (0.1, "worker"), (0.3, "parent"), (0.6, "worker"))
    ]
    done = work.run(work.tokens_command())
    assert done.returncode == 0, done.stderr
    assert products(work) == expected and work.left() == []
    assert any(codes), codes


def test_a_job_that_is_stopped_says_no_more_and_leaves_no_process(corpus):
    work, _, _ = corpus(2_000_000, 2)
    for sent in (signal.SIGTERM, signal.SIGINT):
        forget(work)
        process = work.start(work.tokens_command())
        while len(token_jobs.members(process.pid)) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, sent)
        end(process)
        assert process.returncode in (130, -sent)
        assert (work.folder / "said.txt").read_text().count("\n") <= 1
    assert not [path for path in work.payload.iterdir() if path.name.startswith(".")]


@pytest.mark.long
def test_kills_at_twenty_moments_of_300_mb(corpus):
    """Every one of them is followed by a run to the end, which is compared."""
    work, expected, size = corpus(300_000_000, 3)
    drawn, codes = random.Random(20), []
    for moment in range(20):
        forget(work)
        codes.append(killed(work, size * drawn.random(), TARGETS[moment % 3], drawn))
        done = work.run(work.tokens_command())
        assert done.returncode == 0, done.stderr
        assert products(work) == expected and work.left() == []
    assert sum(code != 0 for code in codes) >= 15

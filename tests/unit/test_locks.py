"""One job per product: the second waits and names the first; stale locks go when nobody is left."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemoflow import locks

WORKFLOW = Path(locks.__file__).parents[1]
HOLD = """
import subprocess, sys
from nemoflow import locks
with locks.product(sys.argv[1]) as descriptor:
    if sys.argv[2] == "orphan":
        sleep = "import sys; print('orphan', flush=True); sys.stdin.read()"
        subprocess.Popen([sys.executable, "-c", sleep], pass_fds=[descriptor])
    print("held", flush=True)
    sys.stdin.read() if sys.argv[2] == "alone" else None
    sys.exit()
"""
JOIN = """
import sys
from pathlib import Path
from nemoflow.locks import Controllers
controllers = Controllers(Path(sys.argv[1]))
print(controllers.join(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start():
    """Start a Python program; all of them are ended after the test."""
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(WORKFLOW)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_lock_says_who_holds_it_and_is_free_afterwards(tmp_path):
    for _ in range(2):
        with locks.product(tmp_path / "sft" / "checkpoint.json") as descriptor:
            text = (tmp_path / "sft" / ".checkpoint.lock").read_text()
            assert text.startswith(f"process {os.getpid()} on {socket.gethostname()}: ")
            os.fstat(descriptor)


def test_locks_of_two_products_do_not_meet(tmp_path):
    with locks.product(tmp_path / "a.json"), locks.product(tmp_path / "b.json"):
        pass
    part = tmp_path / "x.parts" / "0000.json"
    with locks.product(part), locks.product(tmp_path / "x.json"):
        assert (tmp_path / "x.parts" / ".0000.lock").exists()
        assert not (tmp_path / "x").exists()


def test_the_second_waits_and_names_the_first(tmp_path, start):
    first = start(HOLD, tmp_path / "x.json", "alone")
    assert first.stdout.readline() == "held\n"
    second = start(HOLD, tmp_path / "x.json", "alone")
    said = second.stderr.readline()
    assert f"waiting for process {first.pid} on {socket.gethostname()}: " in said
    assert said.startswith(f"{tmp_path / 'x'}: ") and "which still works on it" in said
    first.kill()
    assert second.stdout.readline() == "held\n"
    assert "free after " in second.stderr.readline()
    assert f"process {second.pid} on" in (tmp_path / ".x.lock").read_text()


def test_the_orphan_of_a_killed_job_keeps_the_lock(tmp_path, start):
    parent = start(HOLD, tmp_path / "x.json", "orphan")
    assert sorted(parent.stdout.readline() for _ in range(2)) == ["held\n", "orphan\n"]
    parent.wait(timeout=120)
    second = start(HOLD, tmp_path / "x.json", "alone")
    assert f"waiting for process {parent.pid} " in second.stderr.readline()
    time.sleep(0.2)
    assert second.poll() is None
    parent.stdin.close()  # the orphan reads the end of its input, and ends
    assert second.stdout.readline() == "held\n"


def lock_files(folder):
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    for name in ("0.input.lock", "0.output.lock"):
        (folder / "locks" / name).write_text("results/x.json")
    return folder / "locks"


def test_locks_of_dead_controllers_are_removed_by_who_is_alone(tmp_path, start):
    left = lock_files(tmp_path)
    dead = start(JOIN, tmp_path)
    assert dead.stdout.readline() == "True\n"
    assert list(left.iterdir()) == []
    lock_files(tmp_path)
    dead.kill()
    dead.wait()
    controllers = locks.Controllers(tmp_path)
    assert controllers.join()
    assert list(left.iterdir()) == []
    assert [line.startswith(f"process {os.getpid()} on ") for line in controllers.listed()] == [
        True
    ]
    assert controllers.others() == []


def test_locks_of_a_living_controller_stay(tmp_path, start):
    first = start(JOIN, tmp_path)
    assert first.stdout.readline() == "True\n"
    left = lock_files(tmp_path)
    controllers = locks.Controllers(tmp_path)
    assert not controllers.join()
    assert len(list(left.iterdir())) == 2
    assert [line.startswith(f"process {first.pid} on ") for line in controllers.others()] == [True]
    assert controllers.beside() == []  # it is no Snakemake
    told = controllers.collision()
    assert f"(process {first.pid} on {socket.gethostname()}: " in told and "Do not --unlock" in told
    assert "Was it killed on" not in told


def test_a_late_comer_keeps_the_locks_after_the_first_has_ended(tmp_path, start):
    first, second = start(JOIN, tmp_path), None
    assert first.stdout.readline() == "True\n"
    second = start(JOIN, tmp_path)
    assert second.stdout.readline() == "False\n"
    first.kill()
    first.wait()
    left = lock_files(tmp_path)
    controllers = locks.Controllers(tmp_path)
    assert not controllers.join()
    assert len(list(left.iterdir())) == 2
    assert [line.startswith(f"process {second.pid} on ") for line in controllers.others()] == [True]


def test_locks_of_another_host_stay_however_often_one_tries(tmp_path):
    """A flock may hold on one host only: to be alone here proves nothing about another host."""
    left = lock_files(tmp_path)
    (tmp_path / "controllers").write_text("process 7 on another-host: snakemake")
    for _ in range(2):
        assert locks.Controllers(tmp_path).join()
        assert len(list(left.iterdir())) == 2
        controllers = locks.Controllers(tmp_path)
        assert controllers.others() == ["process 7 on another-host: snakemake"]
        assert "Was it killed on another-host, then" in controllers.collision()
    for lock in left.iterdir():
        lock.unlink()
    assert locks.Controllers(tmp_path).join()
    assert f" on {socket.gethostname()}: " in (tmp_path / "controllers").read_text()


def test_lock_files_are_held_together_or_not_at_all(tmp_path, start):
    mine, theirs = (locks.lock_of(tmp_path / f"{name}.json") for name in ("mine", "theirs"))
    holder = start(HOLD, tmp_path / "theirs.json", "alone")
    assert holder.stdout.readline() == "held\n"
    with locks.all_free([mine, theirs]) as free:
        assert not free
        with locks.all_free([mine]) as free:
            assert free
    holder.kill()
    holder.wait()
    with locks.all_free([mine, theirs]) as free, locks.all_free([theirs]) as again:
        assert free and not again

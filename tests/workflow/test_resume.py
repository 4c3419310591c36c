"""Killed at any moment, the same command carries on, and ends in the very same bytes."""

import os
import random
import signal
import time

import psutil
import pytest

from workflow.checkout import TARGET, Checkout

LONGEST = 14  # seconds before a kill
SFT = "results/micro/sft/checkpoint.json"


def kill(checkout: Checkout, controller, mode: str) -> None:
    """Kill -9 the trainer alone, the controller alone, or everything."""
    if controller.poll() is not None:
        return
    if mode == "trainer":
        for process in checkout.processes("nemoflow.engines")[:1]:
            process.kill()
    elif mode == "controller":
        controller.kill()
    else:
        os.killpg(controller.pid, signal.SIGKILL)


def build_with_kills(checkout: Checkout, moments: random.Random, modes: list[str], target: str):
    """Start the documented command again and again, killing it after random times."""
    for mode in modes:
        controller = checkout.start(*checkout.snakemake("--", target))
        deadline = time.monotonic() + moments.uniform(2, LONGEST)
        while time.monotonic() < deadline and controller.poll() is None:
            time.sleep(0.2)
        kill(checkout, controller, mode)
        if mode == "trainer":
            assert controller.wait(timeout=600) in (0, 1)
        controller.wait(timeout=600)
    done = checkout.build(target, check=False)
    log = (checkout.folder / "output.txt").read_text() + done.stdout
    assert done.returncode == 0, log[-5000:]
    return log


def differing(one: Checkout, other: Checkout) -> list[str]:
    """The products that two checkouts do not share byte for byte.

    Temporary outputs are none: Snakemake, killed while it removes several, leaves the last.
    """
    ours, theirs = one.products(), other.products()
    names = (name for name in ours.keys() | theirs.keys() if ".parts/" not in name)
    return sorted(name for name in names if ours.get(name) != theirs.get(name))


@pytest.mark.usefixtures("alone")
def test_kills_leave_no_trace_in_the_products(built, fresh):
    seed = int(os.environ.get("KILL_SEED", "0"))
    modes = ["tree", "trainer", "controller"]
    log = build_with_kills(fresh, random.Random(seed), modes, SFT)
    made = fresh.products()
    assert {name for name in differing(fresh, built) if name in made} == set()
    assert "results/micro/sft/checkpoint/model.safetensors" in made
    assert "LockException" not in log and "IncompleteFiles" not in log
    assert fresh.planned(SFT).total() == 0


def test_a_part_left_by_a_killed_controller_rebuilds_nothing(copy):
    parts = copy.folder / "results/data/tokens/micro/micro-equations.parts"
    assert not list(parts.glob("*.json"))
    (parts / "0001.json").write_text("{}")
    made = parts.with_name("micro-equations.json").stat().st_mtime
    os.utime(parts / "0001.json", (made - 1, made - 1))
    assert copy.planned(TARGET).total() == 0


@pytest.mark.usefixtures("alone")
def test_a_second_job_waits_for_the_orphan_of_a_killed_controller(copy):
    copy.edit("config/micro.yaml", "iterations: 12\n", "iterations: 24\n")
    copy.edit("config/micro.yaml", "end_iteration: 12}", "end_iteration: 24}")
    target, output = "results/micro/sft/checkpoint.json", copy.folder / "output.txt"
    controller = copy.start(*copy.snakemake("--", target))
    while not copy.processes("nemoflow.engines.local"):
        assert controller.poll() is None, output.read_text()
        time.sleep(0.2)
    [orphan] = copy.processes("nemoflow.engines.local")
    orphan.suspend()
    controller.kill()
    controller.wait()
    second = copy.start(*copy.snakemake("--", target))
    while "waiting for process" not in output.read_text():
        assert second.poll() is None, output.read_text()
        time.sleep(0.2)
    orphan.resume()
    assert second.wait(timeout=300) == 0, output.read_text()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert "sft.py" in output.read_text()
    assert "trained before for this very spec" in output.read_text()
    assert copy.json(target)["step"] == 24


def test_a_config_edited_while_jobs_wait_does_not_change_them(copy):
    copy.edit("config/micro.yaml", "end_iteration: 12}", "end_iteration: 12, peak: 5e-4}")
    target = "results/micro/rl/rlvr1/checkpoint.json"
    controller = copy.start(*copy.snakemake("--", target))
    while not copy.processes("scripts/sft.py"):
        assert controller.poll() is None, (copy.folder / "output.txt").read_text()
        time.sleep(0.1)
    copy.edit("config/micro.yaml", "prompts_per_step: 4", "prompts_per_step: 8")
    assert controller.wait(timeout=300) == 0
    assert copy.json(target)["identity"]["prompts_per_step"] == 4
    words = copy.nemoflow("plan", target)
    assert "rl.steps.rlvr1.prompts_per_step: 4 → 8" in words and "sft" not in words


def test_a_job_of_a_controller_reads_the_frozen_config(copy, monkeypatch):
    from nemoflow.config.load import FROZEN, current

    monkeypatch.chdir(copy.folder)
    monkeypatch.delenv(FROZEN, raising=False)
    planned = current(None, controller=True).run("micro").sft.iterations
    copy.edit("config/micro.yaml", "iterations: 12\n", "iterations: 13\n")
    assert current(None, controller=False).run("micro").sft.iterations == planned == 12
    assert current(None, controller=True).run("micro").sft.iterations == 13


@pytest.mark.long
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_of_a_run(built, fresh, seed):
    moments = random.Random(seed)
    modes = [moments.choice(["tree", "trainer", "controller"]) for _ in range(10)]
    build_with_kills(fresh, moments, modes, TARGET)
    assert differing(fresh, built) == []

"""Jobs that are cut, moved, cancelled or lost go on, and end in the weights of an undisturbed run.

All of them train at once, each in a copy of the finished micro run in which SFT alone is due.
"""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cluster.conftest import controller
from cluster.slurm import Slurm, eventually
from nemoflow import checkpoint, metrics
from workflow.checkout import Checkout

PRODUCT = "results/micro/sft/checkpoint.json"
WEIGHTS = "results/micro/sft/checkpoint/model.safetensors"
STEPS = 120
SAVE_EVERY = 10
DISTURBED_AT = 20  # a step
LONGEST = 400  # seconds


@dataclass
class Victim:
    """A checkout whose SFT runs as a Slurm job, and what is done to it."""

    checkout: Checkout
    slurm: Slurm
    options: tuple[str, ...]
    facts: dict = field(default_factory=dict)

    @property
    def progress(self) -> Path:
        return self.checkout.folder / "results/micro/sft/progress"

    @property
    def printed(self) -> str:
        """What the jobs printed, but for the former lives of one that was requeued."""
        logs = (self.checkout.folder / ".snakemake/slurm_logs/rule_sft").rglob("*.log")
        return "".join(log.read_text() for log in sorted(logs, key=lambda log: int(log.stem)))

    @property
    def log(self) -> str:
        """What the engine printed, in all attempts."""
        return (self.checkout.folder / "results/micro/logs/sft.log").read_text()

    @property
    def output(self) -> str:
        """What the controllers told."""
        return (self.checkout.folder / "output.txt").read_text()

    def start(self) -> None:
        """Start the documented command."""
        command = controller(self.checkout, *self.options, "--", PRODUCT)
        self.controller = self.checkout.start(*command)

    def job(self) -> str:
        """The number of the job at work."""
        return self.slurm.jobs(self.checkout.folder)[0]["id"]

    def trains(self) -> bool:
        """Whether training has come so far that it is disturbed."""
        assert self.controller.poll() is None, self.output
        newest = checkpoint.newest(self.progress)
        return bool(newest and checkpoint.step_of(newest) >= DISTURBED_AT)

    def engine(self) -> psutil.Process:
        """The process that trains."""
        return self.checkout.processes("nemoflow.engines")[0]

    def ended(self) -> int:
        """The exit code of the controller, once there is one."""
        return self.controller.wait(LONGEST)


def work_beside(victim: Victim) -> None:
    """Let it sleep while a second controller builds something else in the same checkout."""
    victim.engine().suspend()
    other = controller(victim.checkout, "--force", "--", "results/data/prompts/micro-facts.json")
    victim.facts["beside"] = victim.checkout.run(*other)
    victim.engine().resume()


def cut(victim: Victim) -> None:
    """Let it sleep until a time limit of a minute, at which Slurm wakes it up and ends it."""
    victim.engine().suspend()
    victim.slurm.run("scontrol", "update", f"JobId={victim.job()}", "TimeLimit=1")


def requeue(victim: Victim) -> None:
    victim.slurm.run("scontrol", "requeue", victim.job())


def cancel(victim: Victim) -> None:
    victim.slurm.run("scancel", victim.job())


def fail(victim: Victim) -> None:
    victim.engine().kill()


def lose_node(victim: Victim) -> None:
    victim.slurm.set_node("n4", "down")
    eventually(lambda: not victim.checkout.processes("--target-jobs"))  # of the job itself
    victim.slurm.set_node("n4", "resume")


def interrupt(victim: Victim) -> None:
    """Ctrl-C, while the engine sleeps: it must not end before Slurm wakes it up and ends it."""
    victim.facts["job"] = victim.job()
    victim.engine().suspend()
    os.killpg(victim.controller.pid, signal.SIGINT)


def start_again(victim: Victim) -> None:
    """The same command once the controller and its jobs are gone."""
    victim.facts["code"] = victim.ended()
    eventually(lambda: not victim.slurm.jobs(victim.checkout.folder))
    victim.start()


def orphan(victim: Victim) -> None:
    """Kill -9 of the controller, and the same command at once and when its job has ended."""
    victim.facts["job"] = victim.job()
    victim.controller.kill()
    victim.ended()
    victim.start()
    victim.facts["code"] = victim.ended()
    victim.facts["left"] = [job["id"] for job in victim.slurm.jobs(victim.checkout.folder)]
    eventually(lambda: not victim.slurm.jobs(victim.checkout.folder), LONGEST)
    victim.start()


OPTIONS = ("--quiet", "host", "--slurm-keep-successful-logs", "--set-threads", "sft=1")
WEAK_NODE = (*OPTIONS, "--set-resources", "sft:slurm_partition=weak")
DISTURBANCES = {
    "time_limit": cut,
    "orphan": orphan,
    "requeued": requeue,
    "cancelled": cancel,
    "failed": fail,
    "node_down": lose_node,
    "interrupted": interrupt,
    "undisturbed": work_beside,
}
TO_THE_PROCESS = (cut, fail, interrupt, work_beside)  # of the engine, where Slurm does the others
DISTURBED = sorted(DISTURBANCES.keys() - {"undisturbed"})


@pytest.fixture(scope="module")
def victims(slurm, built, tmp_path_factory):
    """The checkouts after all that was done to them."""
    root, found = tmp_path_factory.mktemp("survival"), {}
    for name in DISTURBANCES:
        checkout = built.copy(root / name)
        checkout.edit("config/micro.yaml", "iterations: 12\n", f"iterations: {STEPS}\n")
        checkout.edit("config/micro.yaml", "end_iteration: 12}", f"end_iteration: {STEPS}}}")
        checkout.edit("config/micro.yaml", "save_every: 3}", f"save_every: {SAVE_EVERY}}}")
        checkout.alone = DISTURBANCES[name] in TO_THE_PROCESS
        options = WEAK_NODE if name == "node_down" else OPTIONS
        found[name] = Victim(checkout, slurm, options)
    try:
        with ThreadPoolExecutor(len(found)) as together:
            for done in [together.submit(disturb, name, found[name]) for name in found]:
                done.result()
        yield found
    finally:
        for victim in found.values():
            victim.controller.kill()


def disturb(name: str, victim: Victim) -> None:
    """Start a victim, and do to it what its name says once it trains."""
    victim.start()
    eventually(victim.trains, LONGEST)
    engine = victim.engine()
    DISTURBANCES[name](victim)
    psutil.wait_procs([engine], LONGEST)
    victim.facts["log"] = victim.log  # the next attempt removes it
    if name == "interrupted":
        start_again(victim)
    victim.facts["last"] = victim.ended()


@pytest.mark.parametrize("name", DISTURBED)
def test_the_same_weights(victims, name):
    assert victims[name].facts["last"] == 0, victims[name].output
    found, expected = (victims[n].checkout.products() for n in (name, "undisturbed"))
    assert [path for path in expected if found.get(path) != expected[path]] == []
    assert found.keys() == expected.keys()


def test_the_next_start_after_a_killed_controller_names_its_jobs_and_doubles_none(victims):
    victim, number = victims["orphan"], victims["orphan"].facts["job"]
    assert victim.facts["code"] == 1 and victim.facts["left"] == [number]
    assert f"of an earlier controller still run here: {number} (RUNNING, rule_sft" in victim.output
    states = {job["JobId"]: job["JobState"] for job in victim.slurm.finished()}
    assert states[number] == "COMPLETED"
    assert "trained before for this very spec and these inputs; recorded only" in victim.printed
    assert victim.checkout.planned(PRODUCT).total() == 0


def test_jobs_of_a_controller_that_lives_do_not_stop_another(victims):
    done = victims["undisturbed"].facts["beside"]
    assert done.returncode == 0, done.stdout
    assert victims["undisturbed"].facts["last"] == 0


def test_an_interrupted_controller_takes_its_jobs_along(victims):
    victim = victims["interrupted"]
    assert victim.facts["code"] == 1
    ended = {job["JobId"]: job["JobState"] for job in victim.slurm.finished()}
    assert ended[victim.facts["job"]] == "CANCELLED"


@pytest.mark.parametrize("name", DISTURBED)
def test_no_step_is_skipped(victims, name):
    steps = [line["step"] for line in metrics.read(victims[name].progress / "metrics.jsonl")]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("name", sorted(set(DISTURBED) - {"orphan", "failed"}))
def test_a_job_that_slurm_ends_saves_first_and_trains_no_step_twice(victims, name):
    [saved] = steps(r"SIGTERM: ended after step (\d+) of", victims[name].facts["log"])
    assert saved >= DISTURBED_AT
    assert steps(r"attempt 2 goes on from \S+/step_(\d+)", victims[name].printed) == [saved]


def test_a_job_that_dies_goes_on_from_its_newest_checkpoint(victims):
    begun = steps(r"attempt 2 goes on from \S+/step_(\d+)", victims["failed"].printed)
    assert len(begun) == 1 and begun[0] >= DISTURBED_AT and begun[0] % SAVE_EVERY == 0


def steps(pattern: str, text: str) -> list[int]:
    """The numbers of steps that a text tells."""
    return [int(found) for found in re.findall(pattern, text)]

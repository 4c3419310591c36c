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
STEPS = 150
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

    def told(self, pattern: str) -> list[int]:
        """A number in what the jobs printed, over all attempts."""
        logs = (self.checkout.folder / ".snakemake/slurm_logs/rule_sft").rglob("*.log")
        texts = [log.read_text() for log in sorted(logs, key=lambda log: int(log.stem))]
        return [int(found) for found in re.findall(pattern, "".join(texts))]

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
    """A second controller builds something else in the same checkout."""
    other = controller(victim.checkout, "--force", "--", "results/data/plans/micro-facts.json")
    victim.facts["beside"] = victim.checkout.run(*other)
    victim.facts["still"] = victim.controller.poll() is None


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
    victim.slurm.set_node("n2", "down")
    eventually(lambda: not victim.checkout.processes("nemoflow.engines"))
    victim.slurm.set_node("n2", "resume")


def interrupt(victim: Victim) -> None:
    """Ctrl-C, and the same command again."""
    victim.facts["job"] = victim.job()
    os.killpg(victim.controller.pid, signal.SIGINT)
    victim.facts["code"] = victim.ended()
    victim.facts["left"] = victim.slurm.jobs(victim.checkout.folder)
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


ALL = ("--set-threads", "sft=1", "--slurm-keep-successful-logs", "--quiet", "host")
FIRST_NODE = ("--set-resources", "sft:slurm_extra=--nodelist=n1")
SECOND_NODE = ("--set-resources", "sft:slurm_extra=--nodelist=n2")
DISTURBANCES = {
    "time_limit": (cut, FIRST_NODE),
    "orphan": (orphan, FIRST_NODE),
    "requeued": (requeue, FIRST_NODE),
    "cancelled": (cancel, FIRST_NODE),
    "failed": (fail, FIRST_NODE),
    "node_down": (lose_node, SECOND_NODE),
    "interrupted": (interrupt, FIRST_NODE),
    "undisturbed": (work_beside, FIRST_NODE),
}
DISTURBED = sorted(DISTURBANCES.keys() - {"undisturbed"})


@pytest.fixture(scope="module")
def victims(slurm, built, tmp_path_factory):
    """The checkouts after all that was done to them."""
    root, found = tmp_path_factory.mktemp("survival"), {}
    for name, (_, options) in DISTURBANCES.items():
        checkout = built.copy(root / name)
        checkout.edit("config/micro.yaml", "iterations: 12\n", f"iterations: {STEPS}\n")
        checkout.edit("config/micro.yaml", "end_iteration: 12}", f"end_iteration: {STEPS}}}")
        checkout.edit("config/micro.yaml", "save_every: 3}", "save_every: 10}")
        found[name] = Victim(checkout, slurm, (*ALL, *options))
    with ThreadPoolExecutor(len(found)) as together:
        for done in [together.submit(disturb, name, found[name]) for name in found]:
            done.result()
    yield found
    for victim in found.values():
        victim.controller.kill()


def disturb(name: str, victim: Victim) -> None:
    """Start a victim, and do to it what its name says once it trains."""
    victim.start()
    eventually(victim.trains, LONGEST)
    DISTURBANCES[name][0](victim)
    victim.facts["last"] = victim.ended()


@pytest.mark.parametrize("name", DISTURBED)
def test_the_same_weights(victims, name):
    assert victims[name].facts["last"] == 0, victims[name].output
    found, expected = (victims[n].checkout.products() for n in (name, "undisturbed"))
    assert [path for path in expected if found.get(path) != expected[path]] == []
    assert found.keys() == expected.keys()
    assert victims[name].checkout.planned(PRODUCT).total() == 0


def test_the_next_start_after_a_killed_controller_names_its_jobs_and_doubles_none(victims):
    victim = victims["orphan"]
    assert victim.facts["code"] == 1
    assert victim.facts["left"] == [victim.facts["job"]]
    refusal = f"Slurm jobs of an earlier controller still run here: {victim.facts['job']} (RUNNING"
    assert refusal in victim.output
    own = [job for job in victim.slurm.finished() if job["WorkDir"] == str(victim.checkout.folder)]
    assert [job["JobState"] for job in own][0] == "COMPLETED"
    assert "trained before for this very spec" in victim.output or len(own) == 1


def test_jobs_of_a_controller_that_lives_do_not_stop_another(victims):
    done = victims["undisturbed"].facts["beside"]
    assert done.returncode == 0, done.stdout
    assert victims["undisturbed"].facts["still"] and victims["undisturbed"].facts["last"] == 0


def test_an_interrupted_controller_takes_its_jobs_along(victims):
    victim = victims["interrupted"]
    assert victim.facts["code"] == 1
    assert victim.facts["left"] == []


@pytest.mark.parametrize("name", DISTURBED)
def test_no_step_is_lost_and_none_trained_again_that_was_saved(victims, name):
    victim = victims[name]
    steps = [line["step"] for line in metrics.read(victim.progress / "metrics.jsonl")]
    assert steps == list(range(1, STEPS + 1))
    begun = victim.told(r"attempt \d+ goes on from \S+/step_(\d+)")
    saved = victim.told(r"ended after step (\d+) of")
    assert begun == sorted(begun) and all(step >= DISTURBED_AT for step in begun)
    assert begun == (saved or begun), "saved at SIGTERM, and gone on from there"
    print(name, begun, saved, [(j["JobId"], j["JobState"]) for j in victim.slurm.finished()])

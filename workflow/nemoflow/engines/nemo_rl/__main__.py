"""Run one step on every node of a job: `python -m nemoflow.engines.nemo_rl JOB.json`.

One process for each node. The first starts Ray's head and, when all nodes are there, NeMo-RL's
driver; the others serve it.
"""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from nemoflow import divergence, images, ranks
from nemoflow.engines.nemo_rl import cluster, fits, releases, resume, settings
from nemoflow.engines.nemo_rl.driver import Driver, save_by
from nemoflow.engines.nemo_rl.record import Record
from nemoflow.errors import UserError, report
from nemoflow.files import read_json, write_whole
from nemoflow.launch import INTERRUPTED
from nemoflow.machine import Machine
from nemoflow.progress import say

GLANCE = 2.0  # seconds between two looks at a running driver


def main() -> int:
    """Serve this node's part; the exit code."""
    if len(sys.argv) != 2:
        raise UserError("usage: python -m nemoflow.engines.nemo_rl JOB.json")
    ranks.adopt()
    images.probe()
    job = read_json(sys.argv[1])
    node = cluster.Node.here(Machine(**job["machine"]))
    if node.rank:
        return cluster.worker(node)
    return first(job, node)


def first(job: dict[str, Any], node: cluster.Node) -> int:
    """What the first node does: all that touches files."""
    progress, told, title = Path(job["progress"]), job["config"], job["title"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INTERRUPTED))  # until there is a driver
    work = (progress / "nemo_rl").resolve()
    work.mkdir(parents=True, exist_ok=True)
    divergence.refuse_stopped(progress, title)
    resume.clean(work, title)
    if found := fits.problems(told, job["options"], node.machine):
        raise UserError("\n".join(f"{title}.{key}: {text}" for key, text in found))
    release = releases.of(told)
    program = release.program(told["algorithm"])
    places = where(job, work)
    last, began = settings.steps(told, places.rows), resume.newest(work)
    if (progress / f"step_{last:07d}").exists() or began >= last:
        resume.finish(progress, work, last, told["model"])
        return 0
    config = settings.of(told, job["options"], node.machine, places)
    write_whole(work / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    say(f"{title}: steps {began + 1} to {last} with NeMo-RL {release.name}")
    environment = {
        **release.told["environment"],
        "NRL_MEGATRON_CHECKPOINT_DIR": str(work / resume.INITIAL),
        "RAY_ADDRESS": node.address,
    }
    tokens = int(resume.info(work / f"step_{began}").get("total_valid_tokens", 0))
    record = Record(progress, work / "logs", began, tokens)
    with cluster.head(node):
        driver = Driver(program, work / "config.yaml", releases.home(), environment)
        try:
            watch(driver, record, job["options"].get("spike"))
        except divergence.Diverged as diverged:
            driver.stop()
            resume.discard(work, record.step)
            return divergence.stop(progress, title, record.step, diverged)
        finally:
            driver.stop()
            record.close()
        return outcome(driver, progress, work, last, told["model"], title)


def where(job: dict[str, Any], work: Path) -> settings.Places:
    """The files of a job."""
    prompts = Path(job["inputs"]["prompts"]).resolve()
    train, validation = prompts / "train.jsonl", prompts / "validation.jsonl"
    if not train.exists():
        raise UserError(f"{train}: there are no prompts to train on")
    with open(train, "rb") as file:
        rows = sum(1 for line in file if line.strip())
    return settings.Places(
        model=str(Path(job["inputs"]["init"]).resolve()),
        train=str(train),
        validation=str(validation) if validation.exists() else None,
        rows=rows,
        work=str(work),
        save_by=save_by(time.time()),
        nemo_rl=str(releases.home()),
    )


def watch(driver: Driver, record: Record, spike: float | None) -> None:
    """Carry the curve over until the driver ends, or must.

    Raises:
        Diverged: the loss or the gradient of a step is not finite, or the loss spiked.
    """
    guard = divergence.SpikeGuard(spike)
    over = False
    while not over:
        over = driver.ended(GLANCE) or driver.must_end()
        for step, values in record.update():
            say(f"step {step}: " + ", ".join(f"{k} {values[k]:.4g}" for k in shown(values)))
            guard.check(values.get("loss", 0.0), values.get("grad_norm", 0.0))


def shown(values: dict[str, float]) -> list[str]:
    """The keys of a step's line in the log."""
    return [key for key in ("reward", "loss", "lr", "grad_norm", "tokens") if key in values]


def outcome(
    driver: Driver, progress: Path, work: Path, last: int, model: dict[str, Any], title: str
) -> int:
    """What the end of the driver means; the exit code.

    An exit code of 0 says little: an error in the asynchronous loop is printed and passed over
    (grpo.py, `async_grpo_train`). Only the last step's checkpoint tells that all is done.

    Raises:
        UserError: the driver failed.
    """
    reached = resume.newest(work)
    if reached >= last:
        resume.finish(progress, work, reached, model)
        return 0
    if driver.out_of_time or driver.must_end():
        why = "its time limit is near" if not driver.asked else "SIGTERM"
        say(f"{title}: {why}; ended with the checkpoint of step {reached} of {last}")
        return INTERRUPTED
    raise UserError(
        f"{title}: NeMo-RL ended with exit code {driver.process.returncode} after the checkpoint of"
        f" step {reached} of {last}; why stands above. The same command goes on from there"
    )


if __name__ == "__main__":
    report(main)

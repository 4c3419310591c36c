"""A stage that starts an engine: training to the end, exporting, scoring."""

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nemoflow import (
    checkpoint,
    divergence,
    iterations,
    launch,
    manifest,
    metrics,
    room,
    running,
)
from nemoflow.attempts import Attempts
from nemoflow.build import Build, bytes_of
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json
from nemoflow.machine import Machine
from nemoflow.progress import say


def train(
    build: Build, task: str, title: str, log: str, inputs: dict[str, Any], machine: Machine
) -> dict[str, int]:
    """Train to the end, publish the last checkpoint and its curve; return its step and tokens.

    `progress/` beside the product holds intermediate checkpoints, metrics.jsonl and what resuming
    needs. It belongs to one spec and one set of inputs: anything else starts afresh. A job that had
    finished but was not recorded (its controller was killed) is adopted, not trained again.
    """
    progress = build.payload.with_name("progress")
    belongs = digest([build.identity, {path: sha256_of(path) for path in build.inputs}])
    open_progress(progress, belongs, title)
    attempts = Attempts.of(progress)
    if checkpoint.final(progress) or adoptable(build, progress):
        say(f"{title}: trained before for this very spec and these inputs; recorded only")
    else:
        divergence.refuse_stopped(progress, title)
        for line in iterations.mend(progress):
            say(f"{title}: {line}")
        room.check(progress, build.identity, build.options, title)
        attempts.begin(build.started)
        if newest := checkpoint.newest(progress):
            say(f"{title}: attempt {attempts.count} goes on from {newest}")
        job = {"task": task, "title": title, "inputs": inputs, "belongs_to": belongs}
        run_job(build, progress, log, machine, **job)
        if checkpoint.final(progress) is None:
            raise UserError(
                f"{title}: ended without a finished checkpoint in {progress} (log: {log})"
            )
    publish(build, progress)
    build.facts |= attempts.facts()
    attempts.end(time.time())
    metrics.curve(progress / "metrics.jsonl", build.outputs[1])
    state = read_json(build.payload / "state.json")
    return {"step": state["step"], "tokens": state["tokens"]}


def run_job(build: Build, progress: Path, log: str, machine: Machine, **job: Any) -> None:
    """Write job.json and let the stage's engine work on it."""
    told = {
        "config": build.identity,
        "options": build.options,
        "seed": build.identity.get("seed", 0),
        "progress": str(progress),
        "machine": asdict(machine),
    }
    write_json(progress / "job.json", {**told, **job})
    line = launch.line(build.identity, job["task"], progress / "job.json", machine)
    running.run(line, Path(log), [build.lock])


def convert(build: Build, folder: Path, log: str, machine: Machine, **job: Any) -> None:
    """Let the engine convert a model; the product's bytes, and the verdict on the conversion.

    A model that comes out of a round trip changed is an error of the engine's; logits that differ
    are said, and fail nothing.
    """
    run_job(build, folder, log, machine, **job)
    found = read_json(folder / "parity.json")
    build.replace_payload(folder / "final")
    shutil.rmtree(folder)
    write_json(build.outputs[1], found)
    if found["verdict"] != "passed":
        say(f"{build.outputs[1]}: the converted model does not answer like the first; logits there")


def score(
    build: Build, folder: Path, log: str, model: str, prompts: str | None, machine: Machine
) -> dict[str, Any]:
    """Let the harness write its samples into `folder`; the score {metric, value, stderr, n}."""
    items = f"{bytes_of(prompts)}/validation.jsonl" if prompts else None
    told = {
        "model": bytes_of(model),
        "items": items,
        "output": str(folder),
        "machine": asdict(machine),
    }
    write_json(folder / "job.json", {**build.identity, **build.options, **told})
    line = launch.line(build.identity, "eval_task", folder / "job.json", machine)
    running.run(line, Path(log), [build.lock], shown=False)
    (folder / "job.json").unlink()
    found = read_json(folder / "score.json")
    (folder / "score.json").unlink()
    return found


def open_progress(progress: Path, belongs: str, title: str) -> None:
    """Keep the work of the same spec and inputs; begin anew for any other, and say so."""
    told = progress / "job.json"
    if told.exists() and read_json(told)["belongs_to"] != belongs:
        say(f"{title}: {progress} holds the work of another spec or other inputs; starting afresh")
        shutil.rmtree(progress)
    progress.mkdir(parents=True, exist_ok=True)


def publish(build: Build, progress: Path) -> None:
    """Make the final checkpoint the product's bytes; killed at any moment, it goes on from there.

    From here on the former build is gone: the copies of its manifest go first.
    """
    final = checkpoint.final(progress)
    if final is None:
        return
    for output in build.outputs:
        manifest.last(output).unlink(missing_ok=True)
    step = checkpoint.step_of(final)
    for folder in checkpoint.set_aside(progress, build.payload, build.options, step):
        told = {"steps": sorted(map(checkpoint.step_of, folder.iterdir()))}
        manifest.write(f"{folder}.json", build.identity, build.inputs, **told)
    write_json(progress / "published.json", {"md5": folder_md5(final)})
    checkpoint.publish(progress, build.payload)
    checkpoint.prune(progress, {"keep": 1})


def folder_md5(folder: Path) -> str:
    """The tree md5 of a folder, read whole."""
    hashed = manifest.hash_folder(folder, {})
    return manifest.tree_md5({"path": name, "md5": r[2]} for name, r in hashed.items())


def adoptable(build: Build, progress: Path) -> bool:
    """Whether training ended here before and its very bytes stand published."""
    told = progress / "published.json"
    if not told.exists():
        return False
    files = manifest.list_bytes(build.outputs[0])
    if files and manifest.tree_md5(files) == read_json(told)["md5"]:
        return True
    told.unlink()
    (progress / "final.json").unlink(missing_ok=True)
    say(f"{build.payload}: not what was published here; trained again")
    return False

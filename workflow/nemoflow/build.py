"""A stage at work: its lock, its inputs, what it leaves behind.

Every stage builds inside `Build`; training stages let `train` drive the engine.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

from nemoflow import (
    checkpoint,
    divergence,
    iterations,
    launch,
    locks,
    manifest,
    metrics,
    provenance,
    room,
    running,
    specs,
)
from nemoflow.attempts import Attempts
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json
from nemoflow.machine import Machine
from nemoflow.need import need, refuse_edited
from nemoflow.progress import say


class Build:
    """Hold a product's lock while its stage works; on success say who built it, from what.

    `outputs[0]` is the product's manifest; the others are small files beside it.
    """

    def __init__(self, stage: str, spec: str | Path, inputs: Iterable[str], outputs: Iterable[str]):
        self.spec = specs.read(spec, stage)
        self.identity, self.options = self.spec.identity, self.spec.options
        self.inputs = [str(path) for path in inputs]
        if missing := [path for path in self.inputs if not Path(path).exists()]:
            raise UserError(f"{missing[0]}: there is no such product; build it first")
        refuse_edited(self.inputs)
        self.outputs = [Path(path) for path in outputs]
        self.payload = manifest.payload(self.outputs[0])
        self.facts: dict[str, Any] = {}
        self.exit = ExitStack()

    def __enter__(self) -> "Build":
        self.lock = self.exit.enter_context(locks.product(self.outputs[0]))
        self.started = time.time()
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        try:
            if kind is None:
                manifest.keep(self.outputs)
                provenance.record_build(
                    self.outputs, self.identity, self.inputs, self.started, **self.facts
                )
        finally:
            self.exit.__exit__(kind, value, traceback)

    def need(self, *manifests: str | Path) -> list[dict[str, Any]]:
        """The contents of input manifests, their bytes checked."""
        return need(manifests)

    def fresh_payload(self) -> Path:
        """An empty folder that becomes the product's bytes in `finish`."""
        folder = self.payload.with_name(f".{self.payload.name}.new")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def replace_payload(self, folder: Path) -> None:
        """Put finished bytes in the place of the former build's.

        From here on the former build is gone: the copy of its manifest goes first.
        """
        for output in self.outputs:
            manifest.last(output).unlink(missing_ok=True)
        checkpoint.sync_tree(folder)
        former = self.payload.with_name(f".{self.payload.name}.former")
        shutil.rmtree(former, ignore_errors=True)
        if self.payload.exists():
            self.payload.rename(former)
        folder.rename(self.payload)
        shutil.rmtree(former, ignore_errors=True)

    def join_payloads(self, parts: Iterable[str]) -> None:
        """Make the payload of a product from those of its parts, which lie inside it already.

        Folders of an earlier, larger number of parts go; no bytes are read again.
        """
        wanted = {manifest.payload(part).name: part for part in parts}
        for folder in self.payload.iterdir():
            if folder.is_dir() and folder.name not in wanted:
                shutil.rmtree(folder)
        joined = {
            f"{name}/{path}": entry
            for name, part in wanted.items()
            for path, entry in read_json(manifest.stamp(part)).items()
        }
        write_json(manifest.stamp(self.outputs[0]), joined)

    def finish(self, **facts: Any) -> None:
        """Write the manifest."""
        manifest.write(self.outputs[0], self.identity, self.inputs, **facts)


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
    write_json(folder / "job.json", {**build.identity, **told})
    line = launch.line(build.identity, "eval_task", folder / "job.json", machine)
    running.run(line, Path(log), [build.lock], shown=False)
    (folder / "job.json").unlink()
    found = read_json(folder / "score.json")
    (folder / "score.json").unlink()
    return found


def heavy(stage: Callable[..., None]) -> Callable[..., None]:
    """A stage that starts an engine; called with `dry_run`, it only prints the command."""

    @wraps(stage)
    def work(*given: Any, dry_run: bool = False, **named: Any) -> None:
        if not dry_run:
            return stage(*given, **named)
        told = specs.read(named["spec"], stage.__name__)
        trains = "curve" in named
        payload = manifest.payload(named["checkpoint" if trains else "output"])
        job = payload.with_name("progress" if trains else f".{payload.name}.new") / "job.json"
        return print(launch.line(told.identity, told.stage, job, named["machine"]))

    return work


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


def bytes_of(manifest_path: str) -> str:
    """The folder of bytes beside a manifest."""
    return str(manifest.payload(manifest_path))

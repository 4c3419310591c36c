"""A stage at work: its lock, its inputs, what it leaves behind. Every stage is in `Build`."""

import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

from nemoflow import checkpoint, locks, manifest, provenance
from nemoflow import spec as specs
from nemoflow.errors import UserError
from nemoflow.files import read_json, remove_temporaries, write_json
from nemoflow.need import need, refuse_edited


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
        for output in self.outputs:
            for path in (output, manifest.last(output), provenance.record_of(output)):
                remove_temporaries(path)
        remove_temporaries(manifest.stamp(self.outputs[0]))
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
        from nemoflow import launch  # seldom asked for, and slow to load

        return print(launch.line(told.identity, told.stage, job, named["machine"]))

    return work


def bytes_of(manifest_path: str) -> str:
    """The folder of bytes beside a manifest."""
    return str(manifest.payload(manifest_path))

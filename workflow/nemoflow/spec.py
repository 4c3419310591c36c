"""The spec of a job in its file: what the job depends on.

A spec has an `identity`, the config that decides what the stage makes plus the stage's version,
and `options`, keys that cannot change a result. The digest of the identity names the spec's file,
the one parameter that Snakemake sees: changing a key re-runs exactly the stages that read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, write_json


@dataclass(frozen=True)
class Spec:
    """What a job depends on."""

    stage: str
    run: str | None
    identity: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """`{run}-{stage}-{digest}`; no run for shared data."""
        return "-".join([*([self.run] if self.run else []), self.stage, digest(self.identity)])

    def write(self, folder: Path) -> Path:
        """Write `{folder}/{name}.json` if its content is not there yet, and return the path."""
        path = folder / f"{self.name}.json"
        content = {
            "stage": self.stage,
            "run": self.run,
            "identity": self.identity,
            "options": self.options,
        }
        if not path.exists() or read_json(path) != content:
            write_json(path, content)
        return path


def read(path: str | Path, stage: str) -> Spec:
    """The spec of a stage in a file that `Spec.write` wrote.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such spec; a dry run of Snakemake writes the specs of its jobs"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(content, dict) or content.keys() != Spec.__dataclass_fields__.keys():
        raise UserError(f"{path}: not a spec; it has {', '.join(Spec.__dataclass_fields__)}")
    if content["stage"] != stage:
        raise UserError(f"{path}: a spec of {content['stage']}, not of {stage}")
    return Spec(**content)


def last_step(identity: Mapping[str, Any]) -> int | None:
    """The step at which a training ends, by its config; None where only its data tell."""
    return identity.get("stop_iteration") or identity.get("iterations")

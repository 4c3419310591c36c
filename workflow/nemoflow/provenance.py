"""What Snakemake knows of each product, kept in git; and who built it when, where, with what.

`provenance/records/` holds Snakemake's own metadata records of the outputs under `results/`. They
are put back before a DAG is built, in whatever clone, so that a fresh clone has nothing to do, a
changed key plans exactly its stages, and a job that failed after a change of its parameters is not
forgotten (Snakemake overwrites the record of a failed job, snakemake#3808). `provenance/builds/`
is for people: no decision reads it.
"""

import base64
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nemoflow.files import read_json, sha256_of, write_json, write_whole
from nemoflow.manifest import PARTS, last

RECORDS, BUILDS = Path("provenance/records"), Path("provenance/builds")
RECORD_FORMAT = 6  # snakemake.persistence.RECORD_FORMAT_VERSION of the pinned release
# Left out of the kept records: times and identifiers, and what triggers nothing here.
VOLATILE = {
    "starttime", "endtime", "job_hash", "incomplete", "external_jobid", "code", "shellcmd",
}  # fmt: skip
LONG_AGO = 946684800  # 2000-01-01: older than any input, so that content decides
VERSIONS = (
    "snakemake",
    "dvc",
    "torch",
    "transformers",
    "tokenizers",
    "lm_eval",
    "numpy",
    "pyarrow",
)


def kept(output: str) -> bool:
    """Whether the record of an output goes to git."""
    return output.startswith("results/") and PARTS not in output and not output.endswith(".html")


class Snakemake:
    """Snakemake's own folder of records: one file per output, named by its base64 path."""

    def __init__(self, folder: str | Path = ".snakemake"):
        self.metadata, self.incomplete = Path(folder) / "metadata", Path(folder) / "incomplete"

    def outputs(self) -> Iterator[tuple[str, Path]]:
        """Each recorded output and its record's file; files of anybody else are passed over."""
        if self.metadata.is_dir():
            for path in sorted(self.metadata.iterdir()):
                try:
                    output = base64.b64decode(path.name, validate=True).decode()
                except ValueError:
                    continue
                if path.is_file():
                    yield output, path

    def record(self, output: str) -> Path:
        """The file of an output's record."""
        return self.metadata / base64.b64encode(output.encode()).decode()

    def marker(self, output: str) -> Path:
        """The mark of an output whose job began and did not end."""
        return self.incomplete / base64.b64encode(output.encode()).decode()


def read_record(path: Path) -> dict[str, Any]:
    """A record, empty where a kill has torn it: Snakemake writes its records in place."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def slim(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between two equal builds."""
    return {key: value for key, value in record.items() if key not in VOLATILE}


def export_records(snakemake: Snakemake) -> None:
    """Keep the records of all outputs that exist and are complete."""
    for output, path in snakemake.outputs():
        if not kept(output) or not Path(output).exists() or snakemake.marker(output).exists():
            continue
        record = slim(read_record(path))
        content = {"output": output, "sha256": sha256_of(output), "record": record}
        target = RECORDS / f"{output}.json"
        if record and (not target.exists() or read_json(target) != content):
            write_json(target, content)


def put_back(snakemake: Snakemake) -> list[str]:
    """Put finished outputs back that a failed or killed re-run removed; return their names.

    Snakemake removes a rule's declared outputs before it re-runs it, and overwrites their records.
    The bytes of the last finished build are still there, and so is the copy that its stage kept.
    """
    restored = []
    for source in sorted(RECORDS.rglob("*.json")):
        content = read_json(source)
        output = Path(content["output"])
        copy = last(output)
        if output.exists() or not copy.exists() or sha256_of(copy) != content["sha256"]:
            continue
        write_whole(output, copy.read_bytes())
        os.utime(output, (LONG_AGO, LONG_AGO))
        write_json(snakemake.record(content["output"]), content["record"])
        snakemake.marker(content["output"]).unlink(missing_ok=True)
        restored.append(content["output"])
    return restored


def keep_copies() -> None:
    """Keep a copy of every finished output that has none: a fresh clone has no copies."""
    for source in RECORDS.rglob("*.json"):
        content = read_json(source)
        output = Path(content["output"])
        if not output.exists() or last(output).exists():
            continue
        if sha256_of(output) == content["sha256"]:
            write_whole(last(output), output.read_bytes())


def restore_records(snakemake: Snakemake) -> None:
    """Give Snakemake its records back: of outputs that are as recorded, and of missing ones.

    A missing output gets its last good record, so that the change which its failed job was to bring
    is seen again. Records of temporary parts that are gone would re-run them: they are dropped.
    """
    snakemake.metadata.mkdir(parents=True, exist_ok=True)
    for output, path in list(snakemake.outputs()):
        if PARTS in output and not Path(output).exists() and not snakemake.marker(output).exists():
            path.unlink()
    for source in sorted(RECORDS.rglob("*.json")):
        content = read_json(source)
        output, record = content["output"], content["record"]
        exists = Path(output).exists()
        if record.get("record_format_version") != RECORD_FORMAT:
            continue
        if exists and sha256_of(output) != content["sha256"]:
            continue  # a newer local result
        if not exists and snakemake.marker(output).exists():
            continue  # running, or killed
        path = snakemake.record(output)
        if path.exists() and slim(read_record(path)) == record:
            continue
        write_json(path, record)
        if exists:
            os.utime(output, (LONG_AGO, LONG_AGO))


def commit() -> str:
    """The git commit of the checkout, with `+` when tracked files differ from it."""
    git = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def installed() -> dict[str, str]:
    """The versions of the packages that decide results, and of Python."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def record_build(
    outputs: Iterable[str | Path],
    identity: dict[str, Any],
    inputs: Iterable[str | Path],
    started: float,
    **facts: Any,
) -> None:
    """Say of each output of a job that ran: when, where, from what, with what, how long.

    `started` is in seconds since the epoch.
    """
    built = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "host": socket.gethostname(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "commit": commit(),
        "versions": installed(),
        **facts,
    }
    digests = {str(path): sha256_of(path) for path in inputs}
    for output in outputs:
        if PARTS in str(output):
            continue  # temporary: gone when the product that it is a part of is there
        write_json(
            BUILDS / f"{output}.json",
            {
                "output": str(output),
                "sha256": sha256_of(output),
                "identity": identity,
                "inputs": digests,
                "built": built,
            },
        )

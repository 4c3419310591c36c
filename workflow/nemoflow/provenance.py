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

from nemoflow.allocation import gpus
from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json, write_whole
from nemoflow.manifest import PARTS, last

RECORDS, BUILDS = Path("provenance/records"), Path("provenance/builds")
RECORD_FORMAT = 6  # snakemake.persistence.RECORD_FORMAT_VERSION of the pinned release
# Left out of the kept records: times and identifiers, and what triggers nothing here.
VOLATILE = {
    "starttime", "endtime", "job_hash", "incomplete", "external_jobid", "code", "shellcmd",
}  # fmt: skip
SMALL = (".json", ".csv")
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
    return output.startswith("results/") and PARTS not in output and output.endswith(SMALL)


class Snakemake:
    """Snakemake's own folder of records: one file per output, named by its base64 path."""

    def __init__(self, folder: str | Path = ".snakemake"):
        self.metadata, self.incomplete = Path(folder) / "metadata", Path(folder) / "incomplete"
        self.exchanged = Path(folder) / "exchanged_records.json"

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

    def known(self) -> dict[str, str]:
        """{output: digest of its record} as both this folder and git last had it."""
        return read_json(self.exchanged) if self.exchanged.exists() else {}

    def keep_known(self, known: dict[str, str]) -> None:
        """Remember what `known` is to tell."""
        if known != self.known():
            write_json(self.exchanged, known)

    def marker(self, output: str) -> Path:
        """The mark of an output whose job began and did not end."""
        return self.incomplete / base64.b64encode(output.encode()).decode()


def read_record(path: Path) -> dict[str, Any]:
    """A record, empty where a kill has torn it: Snakemake writes its records in place."""
    try:
        record = read_json(path)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def kept_records() -> Iterator[dict[str, Any]]:
    """The records that are kept in git.

    Raises:
        UserError: a file is none, perhaps for a conflict of a merge.
    """
    for path in sorted(RECORDS.rglob("*.json")):
        content = read_record(path)
        if not {"output", "sha256", "record"} <= content.keys():
            raise UserError(f"{path}: not a record; git checkout {path}, or remove it")
        yield content


def slim(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what differs between two equal builds."""
    return {key: value for key, value in record.items() if key not in VOLATILE}


def export_records(snakemake: Snakemake) -> None:
    """Keep the records of all outputs that jobs here have finished since records were last kept.

    A record is of the very file that stands there when its end is the file's mtime; a git checkout
    puts another one in its place, and the record of that one beside it.
    """
    known = snakemake.known()
    for output, path in snakemake.outputs():
        if not kept(output) or not Path(output).exists() or snakemake.marker(output).exists():
            continue
        record, target = read_record(path), RECORDS / f"{output}.json"
        told = digest(slim(record))
        if known.get(output) == told and target.exists():
            continue
        if record.get("endtime") == os.stat(output).st_mtime:
            content = {"output": output, "sha256": sha256_of(output), "record": slim(record)}
            write_json(target, content)
            known[output] = told
    snakemake.keep_known(known)


def removed() -> Iterator[tuple[dict[str, Any], Path]]:
    """The kept record of each finished output that is gone, and the copy that its stage kept."""
    for content in kept_records():
        copy, gone = last(content["output"]), not Path(content["output"]).exists()
        if gone and copy.exists() and sha256_of(copy) == content["sha256"]:
            yield content, copy


def put_back(snakemake: Snakemake) -> list[str]:
    """Put finished outputs back that a failed or killed re-run removed; return their names.

    Snakemake removes a rule's declared outputs before it re-runs it, and overwrites their records.
    The bytes of the last finished build are still there, and so is the copy that its stage kept.
    """
    restored = []
    for content, copy in removed():
        output = content["output"]
        write_whole(output, copy.read_bytes())
        os.utime(output, (LONG_AGO, LONG_AGO))
        write_json(snakemake.record(output), content["record"])
        snakemake.marker(output).unlink(missing_ok=True)
        restored.append(output)
    return restored


def keep_copies() -> None:
    """Keep a copy of every finished output that has none: a fresh clone has no copies."""
    for content in kept_records():
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
    known = snakemake.known()
    for output, path in list(snakemake.outputs()):
        if PARTS in output and not Path(output).exists() and not snakemake.marker(output).exists():
            path.unlink()
    for content in kept_records():
        output, record = content["output"], content["record"]
        exists = Path(output).exists()
        if record.get("record_format_version") != RECORD_FORMAT:
            continue
        if exists and sha256_of(output) != content["sha256"]:
            continue  # a newer local result
        if not exists and snakemake.marker(output).exists():
            continue  # running, or killed
        known[output] = digest(record)
        path = snakemake.record(output)
        if path.exists() and slim(read_record(path)) == record:
            continue
        write_json(path, record)
        if exists:
            os.utime(output, (LONG_AGO, LONG_AGO))
    snakemake.keep_known(known)


def commit() -> str:
    """The git commit of the checkout, with `+` when tracked files differ from it.

    What jobs write themselves is no difference: products, records, dvc.yaml.
    """
    written = [":!results", ":!provenance", ":!dvc.yaml"]
    try:
        head = ["git", "rev-parse", "--verify", "HEAD"]
        found = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", *written])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found + ("+" if changed.returncode else "")


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
    spent: float = 0.0,
    first: float | None = None,
    **facts: Any,
) -> None:
    """Say of each output of a job that ran: when, where, from what, with what, how long.

    `started` is in seconds since the epoch; `first` is when the first of several attempts began,
    and `spent` the seconds of those before this one. What the jobs of a corpus' parts took counts
    as the corpus', and what they were made from as what it is made from.
    """
    parts = [path for path in inputs if PARTS in str(path)]
    told = [read_json(record_of(part)) for part in parts if record_of(part).exists()]
    began = min([first or started, *(part["started"] for part in told)])
    seconds = time.time() - started + spent + sum(part["seconds"] for part in told)
    content = {
        "identity": identity,
        "inputs": {str(path): sha256_of(path) for path in inputs},
        "built": {**surroundings(began, seconds), **facts},
    }
    for part in parts:
        content["inputs"] |= read_json(part)["inputs"]
    for output in outputs:
        if PARTS in str(output):
            said = {"started": started, "seconds": seconds}
        else:
            said = {"output": str(output), "sha256": sha256_of(output), **content}
        write_json(record_of(output), said)


def surroundings(began: float, seconds: float) -> dict[str, Any]:
    """When, where and with what a job ran that began at `began` (epoch) and took `seconds`."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(seconds, 1),
        "host": socket.gethostname(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "gpus": gpus(),
        "commit": commit(),
        "versions": installed(),
    }


def record_of(output: str | Path) -> Path:
    """Where it is said who built an output, and how long it took.

    Of a part beside it, and only until the product is there that it is a part of.
    """
    path = Path(output)
    return path.with_name(f".{path.stem}.built") if PARTS in str(path) else BUILDS / f"{path}.json"

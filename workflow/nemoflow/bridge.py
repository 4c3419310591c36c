"""Megatron-Bridge's own check of its config, asked in an environment that has it, answers kept."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import digest, read_json, sha256_of, write_json
from nemoflow.progress import say

ANSWERS = Path(".snakemake/preflight")
ENVIRONMENT = Path(".venv-megatron/bin/python")
PYTHON = "NEMOFLOW_MEGATRON_PYTHON"
SOURCES = Path(__file__).parent / "engines" / "megatron"
PATIENCE = 300  # seconds; the first import of the whole stack takes half a minute

Item = Mapping[str, Any]


def python() -> str | None:
    """A Python that has Megatron-Bridge: the one the variable names, this one, .venv-megatron's."""
    if told := os.environ.get(PYTHON):
        return told if Path(told).exists() else None
    try:
        importlib.metadata.version("megatron-bridge")
    except importlib.metadata.PackageNotFoundError:
        return str(ENVIRONMENT) if ENVIRONMENT.exists() else None
    return sys.executable


def problems(items: Iterable[Item], python: str) -> dict[str, list[dict[str, str]]]:
    """{item's key: [{key, message}]} by Megatron-Bridge's validate() for jobs of its engine.

    An item is {key, task, config (the spec's identity), machine, gpu}. What was asked before of the
    same code is not asked again.

    Raises:
        UserError: the check itself could not run.
    """
    code = digest([python, *(sha256_of(path) for path in sorted(SOURCES.glob("*.py")))])
    kept = {}
    for item in items:
        about = {name: value for name, value in item.items() if name != "key"}
        kept[item["key"]] = (ANSWERS / f"{digest([code, about])}.json", item)
    missing = [item for path, item in kept.values() if not path.exists()]
    if missing:
        say(f"asking Megatron-Bridge about {len(missing)} jobs, half a minute; answers are kept")
    for answer in asked(missing, python) if missing else []:
        write_json(kept[answer["key"]][0], answer["problems"])
    return {key: read_json(path) for key, (path, _) in kept.items()}


def asked(items: list[Item], python: str) -> list[dict[str, Any]]:
    """The answers of `nemoflow.engines.megatron.validate` in another process."""
    command = [python, "-m", "nemoflow.engines.megatron.validate"]
    path = os.pathsep.join(filter(None, [str(SOURCES.parents[2]), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command,
            input=json.dumps(items),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Megatron-Bridge's own check did not run: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(
            f"Megatron-Bridge's own check did not run: {' '.join(command)}: {last}. Repair that"
            f" environment (envs/megatron.sh), or set {PYTHON} to one that has Megatron-Bridge"
        )
    return json.loads(done.stdout)

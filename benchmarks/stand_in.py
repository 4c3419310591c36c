"""Takes the place of a stage's script: the same arguments and products, with bytes of no meaning.

Everything but the bytes is real: locks, manifests, provenance, Snakemake's own records.
"""

import os
import re
import sys
from pathlib import Path

from nemoflow.build import Build
from nemoflow.files import read_json, write_json, write_whole

BYTES = int(os.environ.get("STAND_IN_BYTES", "1000"))
OUTPUTS = ("output", "checkpoint", "curve")


def given(arguments: list[str]) -> dict[str, list[str]]:
    """{name: values} of a command line."""
    found: dict[str, list[str]] = {}
    for argument in arguments:
        if argument.startswith("--"):
            values = found.setdefault(argument[2:], [])
        else:
            values.append(argument)
    return found


def main() -> None:
    """Make what the stage's script would make."""
    told = given(sys.argv[1:])
    spec = told.pop("spec")[0]
    stage = read_json(spec)["stage"]
    takes_checkpoint = stage == "export"  # elsewhere --checkpoint is what is made
    names = [name for name in OUTPUTS if not (takes_checkpoint and name == "checkpoint")]
    outputs = [told.pop(name)[0] for name in names if name in told]
    inputs = [v for values in told.values() for v in values if re.match(r"results/.*\.json$", v)]
    with Build(stage, spec, inputs, outputs) as build:
        make(build, stage, inputs)


def make(build: Build, stage: str, inputs: list[str]) -> None:
    """Write the product and its small files."""
    product, *small = build.outputs
    for path in small:
        write_whole(path, "step,loss\n1,1.0\n")
    if stage in ("blend", "eval"):
        write_json(product, {"run": Path(product).parts[1], "stages": {}, "models": {}})
    elif stage == "corpus":
        build.join_payloads(inputs)
        build.finish()
    elif stage == "plan":
        build.finish()
    else:
        size = BYTES if stage == "tokens" else 1000
        folder = build.fresh_payload()
        for name, share in (("train_00000.bin", 0.98), ("train_00000.idx", 0.02)):
            (folder / name).write_bytes(os.urandom(int(size * share)))
        build.replace_payload(folder)
        build.finish()


if __name__ == "__main__":
    main()

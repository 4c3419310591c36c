"""Stands in for an engine: each process tells what it saw, the first makes the product."""

import json
import os
import sys
from pathlib import Path

from nemoflow import checkpoint, ranks
from nemoflow.files import write_json

TOLD = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR",
    "MASTER_PORT", "NEMOFLOW_HOSTS", "NEMOFLOW_ENDS", "NEMOFLOW_IMAGE", "STAND_IN_PYXIS_IMAGE",
    "STAND_IN_PYXIS_MOUNTS", "STAND_IN_PYXIS_WORKDIR", "STAND_IN_PYXIS_ENV",
)  # fmt: skip


def tell(path: Path) -> None:
    """Write down this process' place in the job."""
    told = {name: os.environ.get(name) for name in TOLD}
    told |= {"folder": os.getcwd(), "secret": len(os.environ.get("HF_TOKEN", ""))}

    place = Path("seen", "-".join(path.parts[1:-2]))
    write_json(
        place / f"{os.environ['RANK']}-{os.environ['SLURMD_NODENAME']}-{os.getpid()}.json", told
    )


def train(job: dict) -> None:
    """One step."""
    progress = Path(job["progress"])
    with checkpoint.writing(progress, 1) as folder:
        write_json(
            folder / "state.json", {"task": job["task"], "step": 1, "tokens": 64, "model": {}}
        )
        (folder / "weights.bin").write_bytes(b"weights")
    (progress / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, "lr": 0.1}) + "\n")
    checkpoint.finish(progress, 1)


def export(job: dict) -> None:
    """A model of one file."""
    write_json(Path(job["progress"], "final", "config.json"), {})
    write_json(Path(job["progress"], "parity.json"), {"verdict": "passed"})


def evaluate(job: dict) -> None:
    """One sample."""
    output = Path(job["output"])
    write_json(output / "samples.jsonl", {})
    write_json(output / "score.json", {"metric": "acc", "value": 1.0, "stderr": None, "n": 1})


if __name__ == "__main__":
    ranks.adopt()
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    tell(path)
    if os.environ["RANK"] == "0":
        work = {"export": export}.get(job["task"], train) if "progress" in job else evaluate
        work(job)

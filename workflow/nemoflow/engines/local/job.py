"""A job as a stage describes it: job.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemoflow.files import read_json


@dataclass(frozen=True)
class Job:
    """What to do, from what, and where the work is kept; everything random follows from `seed`.

    `options` cannot change a result: log_every, save_every (steps), status_seconds, keep.
    """

    task: str
    title: str
    config: dict[str, Any]
    options: dict[str, Any]
    seed: int
    inputs: dict[str, Any]
    progress: Path

    @classmethod
    def read(cls, path: str | Path) -> "Job":
        """Read a job file."""
        told = read_json(path)
        config = {"spike": told["options"].get("spike"), **told["config"]}
        if model := config.get("model"):  # a spec leaves out what is unset
            moe = {"latent": None, **model["moe"]}
            config["model"] = {"ffn": None, "mtp": None, **model, "moe": moe}
        return cls(
            task=told["task"],
            title=told.get("title", told["task"]),
            config=config,
            options=told["options"],
            seed=told["seed"],
            inputs=told["inputs"],
            progress=Path(told["progress"]),
        )

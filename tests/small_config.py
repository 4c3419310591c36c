"""The config folder of the tests: the product's own, and the micro run's files."""

import shutil
from pathlib import Path

from nemoflow.config import Config

ROOT = Path(__file__).parents[1]


def make(folder: Path) -> Path:
    """Copy all config into a folder named `config`, to read or to edit."""
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copytree(ROOT / "tests" / "data" / "config", folder / "config", dirs_exist_ok=True)
    return folder / "config"


def with_runs(folder: Path, **runs: str) -> Config:
    """Write run files (`_` in a name stands for `-`) into a config folder and read it."""
    for name, text in runs.items():
        (folder / f"{name.replace('_', '-')}.yaml").write_text(text)
    return Config(folder)

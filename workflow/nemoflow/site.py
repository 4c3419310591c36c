"""What is particular to a site: profiles/site.yaml, or environment variables."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from nemoflow.config import layers, yaml12
from nemoflow.config.base import Strict
from nemoflow.config.layers import Layered
from nemoflow.config.messages import validated
from nemoflow.errors import UserError

FILE = Path("profiles/site.yaml")
LISTS = ("mounts", "environment")


class Site(Strict):
    """profiles/site.example.yaml explains every key; NEMOFLOW_ACCOUNT and the like win over it."""

    account: str | None = None
    partition: str | None = None
    cpu_partition: str | None = None
    containers: Literal["pyxis", "enroot", "apptainer", "none"] = "none"
    images: str | None = None
    mounts: list[str] = Field([])
    environment: list[str] = Field([])
    launcher: Literal["srun", "torchrun"] = "srun"
    hopeless_minutes: float = Field(10, gt=0)


def variable(key: str) -> str:
    """The environment variable of a key."""
    return f"NEMOFLOW_{key.upper()}"


def load(path: Path = FILE) -> Site:
    """The site of this checkout.

    Raises:
        UserError: an unknown key, a wrong type, a mount that is none; with file and key.
    """
    told = layers.of_file(path, str(path)) if path.exists() else Layered({})
    for key in Site.model_fields:
        if text := os.environ.get(variable(key)):
            where = f"{variable(key)}={text}"
            parsed = text.split(",") if key in LISTS else text
            if key == "hopeless_minutes":
                parsed = yaml12.parse(text, where)[0]
            told = layers.with_override(told, (key,), parsed, where)
    site = validated(Site, told, str(path))
    for mount in site.mounts:
        if not mount.startswith("/") or len(mount.split(":")) not in (2, 3):
            raise UserError(f"{told.place(('mounts',))}: mounts: {mount!r} is no /SOURCE:/TARGET")
    for name in site.environment:
        if not name.isidentifier():
            raise UserError(
                f"{told.place(('environment',))}: environment: {name!r} is no name of a variable;"
                " values stand in the environment alone"
            )
    return site


def freeze() -> None:
    """Put what is set into the environment, so that jobs keep the site they were submitted with."""
    for key, value in load().model_dump(exclude_defaults=True).items():
        os.environ[variable(key)] = ",".join(value) if key in LISTS else str(value)

"""How a site starts a program in a container image: pyxis, enroot, apptainer, or none."""

import sys
from dataclasses import dataclass
from pathlib import Path

from nemoflow import images
from nemoflow.site import Site

# What enroot, which passes nothing by itself, hands on: srun's words and those of `running`.
PASSED = (
    "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE", "PYTHONUNBUFFERED",
)  # fmt: skip
CHANGE = 'cd "$1" && shift && exec "$@"'  # enroot has no flag for the working directory


@dataclass(frozen=True)
class Container:
    """`flags` go on srun (pyxis), `prefix` before the program; `python` is the image's."""

    flags: list[str]
    prefix: list[str]
    python: str

    @classmethod
    def of(cls, site: Site, name: str, env: dict[str, str]) -> "Container":
        """The container of an image at a site; `env` are variables that win over the image's.

        The repository's root is mounted at its own path and is the working directory.
        """
        if site.containers == "none":
            return cls([], [], sys.executable)
        root, image = str(Path.cwd()), images.to_start(name, site)
        mounts, names = [f"{root}:{root}", *site.mounts], [*env, *site.environment]
        python = images.named(name).python
        if site.containers == "pyxis":
            flags = [
                f"--container-image={image}",
                f"--container-mounts={','.join(mounts)}",
                f"--container-workdir={root}",
                "--no-container-mount-home",
                f"--container-env={','.join(names)}",
            ]
            return cls(flags, [], python)
        if site.containers == "enroot":
            mounted = [word for mount in mounts for word in ("--mount", mount)]
            passed = [word for name in [*PASSED, *names] for word in ("-e", name)]
            inside = [image, "sh", "-c", CHANGE, "sh", root]
            return cls([], ["enroot", "start", *mounted, *passed, *inside], python)
        bound = ["--bind", ",".join(mounts), "--pwd", root, image]
        return cls([], ["apptainer", "exec", "--nv", "--no-home", *bound], python)

    def wrap(self, program: list[str]) -> list[str]:
        """A program inside."""
        return [*self.prefix, *program]

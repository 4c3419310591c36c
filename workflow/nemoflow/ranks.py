"""Who a process is among those that srun started, in torch.distributed's words."""

import os

SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def adopt() -> None:
    """Set RANK, WORLD_SIZE and LOCAL_RANK from srun's own, unless torchrun has set them."""
    if "RANK" in os.environ:
        return
    for name, told in SLURM.items():
        if told in os.environ:
            os.environ[name] = os.environ[told]


def place() -> tuple[int, int]:
    """The rank of this process and the number of all; (0, 1) for one that was started alone."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

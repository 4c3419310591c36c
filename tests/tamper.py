"""Products of the published micro run in the working directory, their bytes made wrong."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nemoflow.errors import UserError
from nemoflow.manifest import payload, read
from nemoflow.need import need
from nemoflow.verify import Verification

KINDS = {
    "tokenizer": "results/data/tokenizers/micro.json",
    "tokens": "results/data/tokens/micro/micro-facts.json",
    "packed": "results/data/packed/micro.json",
    "prompts": "results/data/prompts/micro-problems.json",
    "pretrain": "results/micro/pretrain/phase2/checkpoint.json",
    "sft": "results/micro/sft/checkpoint.json",
    "rl": "results/micro/rl/rlvr2/checkpoint.json",
    "export": "results/micro/export/pretrain.json",
    "samples": "results/micro/eval/sft/micro_facts.json",
}
FIRST, SFT, LAST = "results/micro/pretrain/phase1/checkpoint.json", KINDS["sft"], KINDS["rl"]


def largest(product: str) -> dict:
    """The entry of a product's largest file."""
    return max(read(product)["files"], key=lambda file: file["size"])


def here(product: str) -> Path:
    """Its largest file in the workspace."""
    return payload(product) / largest(product)["path"]


def cached(product: str) -> Path:
    """The same in DVC's cache."""
    return Path(".dvc/cache/files/md5") / name_of(product)


def remote(product: str) -> Path:
    """The same on the remote."""
    return Path("../remote/files/md5") / name_of(product)


def name_of(product: str) -> str:
    """Where a DVC storage keeps a product's largest file."""
    md5 = largest(product)["md5"]
    return f"{md5[:2]}/{md5[2:]}"


def flip(path: Path) -> None:
    """Change one byte in place, as root can in a file that is read-only."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


def flip_all(place: Callable[[str], Path]) -> None:
    """Change one byte in one file of each kind; some products share theirs."""
    for path in {place(product) for product in KINDS.values()}:
        flip(path)


def remove(*products: str) -> None:
    """Take products' bytes out of the workspace."""
    for product in products:
        shutil.rmtree(payload(product))


def refused(*products: str) -> str:
    """What `need` says as it refuses products."""
    with pytest.raises(UserError) as error:
        need(products)
    return str(error.value)


def told(*targets: str, with_bytes: bool = True) -> str:
    """What verify says of targets."""
    return "\n".join(Verification(list(targets), with_bytes).lines())

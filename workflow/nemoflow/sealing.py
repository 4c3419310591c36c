"""Sealing and publishing: a product's bytes in DVC's cache, its pointer, and all of it on a remote.

A pointer is written when every object is in the cache, each of them by rename: killed at any
moment, nothing half-sealed has a pointer, and the same command goes on.
"""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemoflow import locks, provenance, storage
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.manifest import payload, read, write_pointer
from nemoflow.need import Contents, is_sealed, refuse_edited, ways_out, wrong_bytes
from nemoflow.products import trace
from nemoflow.progress import in_bytes, say

MARKERS = ("results/*/.sealed/*", "results/*/publish")


def heavy(targets: list[str]) -> Contents:
    """{manifest: content} of the targets and all that they were made from, where it has bytes.

    Left out: rendered conversations, a step on the way that is quickly made again.

    Raises:
        UserError: it is not known what a product was made from, or that is missing, or was edited.
    """
    traced = trace(targets)
    for path in targets:
        if traced[path].sha256 is None:
            raise UserError(f"{path}: there is no such product; build it first")
    found = {path: product for path, product in traced.items() if product.content}
    refuse_edited(found)
    for path, product in found.items():
        for made, recorded in product.inputs.items():
            if recorded and made in traced and traced[made].sha256 is None:
                raise UserError(
                    f"{made}: {path} was made from it, and it is missing: git checkout {made}, or"
                    " ask Snakemake for it"
                )
    for path, product in found.items():
        if not product.inputs and "identity" not in product.content:
            raise UserError(
                f"{path}: what it was made from stands in provenance/builds/{path}.json, which is"
                f" missing: git checkout it, or remove {path} to make it again"
            )
    return {
        path: read(path)
        for path, product in found.items()
        if "md5" in product.content and product.kind != "rendered"
    }


def seal(contents: Contents) -> None:
    """Put bytes into the cache and write pointers, where that has not been done.

    Raises:
        UserError: the bytes of a product are not its own.
    """
    store = storage.Storage()
    for path, content in tqdm(contents.items(), desc="seal", unit="product", disable=None):
        with locks.product(path):
            problem = wrong_bytes(path, content)
            if not problem:
                seal_one(path, content, store)
            elif not is_sealed(path, content) or payload(path).exists():
                raise UserError(
                    f"{payload(path)}: {problem}; not sealed\n{ways_out(path, content)}"
                )


def seal_one(path: str, content: dict[str, Any], store: storage.Storage) -> None:
    """Seal a product whose bytes are right."""
    here = all(store.cached(md5).exists() for md5 in storage.objects(content))
    if not (here and is_sealed(path, content)):
        store.keep(payload(path), content)
        write_pointer(path, content)


def push(contents: Contents) -> int:
    """Send what the remote lacks, each object read before; the number of bytes sent.

    Raises:
        UserError: an object is neither here nor on the remote, or did not arrive.
    """
    store, wanted = storage.Storage(), {}
    for content in contents.values():
        wanted |= storage.objects(content)
    held = store.on_remote(wanted)
    lists_last = sorted(wanted, key=lambda md5: md5.endswith(".dir"))
    missing = {md5: wanted[md5] for md5 in lists_last if md5 not in held}
    repair(missing, contents, store)
    if missing:
        say(f"pushing {in_bytes(sum(missing.values()))} to remote {store.remote_name}")
        store.send(missing)
        if lost := set(missing) - store.on_remote(missing):
            raise UserError(f"remote {store.remote_name}: {len(lost)} objects sent are not there")
    return sum(missing.values())


def repair(missing: dict[str, int], contents: Contents, store: storage.Storage) -> None:
    """Make sure that what is to be sent lies in the cache, its bytes right.

    Raises:
        UserError: it does not, and the product's own bytes are not here to put it there.
    """
    bad = {md5 for md5 in missing if not store.cached(md5).exists()} | set(store.damaged(missing))
    without = {}
    for path, content in contents.items():
        if bad.intersection(storage.objects(content)):
            if problem := wrong_bytes(path, content, trust_stamp=False):
                without[path] = problem
            else:
                store.keep(payload(path), content)
                bad -= storage.objects(content).keys()
    for path, problem in without.items():
        if bad.intersection(storage.objects(contents[path])):
            raise UserError(
                f"{path}: its bytes are not on the remote, and not here: {problem}."
                f" Publish from where it was built, or rebuild it: rm {path}, then ask Snakemake"
                " for it"
            )


def mark(marker: str, contents: Contents) -> None:
    """Say in a local file of which builds a seal or a publication was."""
    write_json(marker, {path: content["md5"] for path, content in contents.items()})


def forget_stale_marks() -> None:
    """Remove the marks of seals and publications that a pointer contradicts.

    A pointer goes with a git checkout, or by hand; Snakemake, which sees the marks alone, would
    have nothing to do.
    """
    for pattern in MARKERS:
        for marker in Path().glob(pattern):
            told = provenance.read_record(marker)
            if not told or not all(is_sealed(path, {"md5": md5}) for path, md5 in told.items()):
                marker.unlink(missing_ok=True)


def next_step(run: str, sent: int, contents: Contents) -> str:
    """What was published, and the git line that makes it known to others."""
    owners = sorted({Path(path).parts[1] for path in contents} | {run})
    places = " ".join(f"results/{owner}" for owner in owners)
    return (
        f"{run}: {len(contents)} products published, {in_bytes(sent)} sent; make it known:\n"
        f"  git add .dvc dvc.yaml provenance {places} && git commit -m '{run}: results' && git push"
    )

"""What a target needs from the remote, and fetching it: `python -m nemoflow pull`."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from nemoflow.errors import UserError
from nemoflow.manifest import payload, read
from nemoflow.need import is_sealed, pull, wrong_bytes
from nemoflow.planning import Job, dry_run
from nemoflow.products import Product, scores_behind
from nemoflow.progress import in_bytes

READ_NO_BYTES = {"blend", "eval", "report", "seal", "publish"}  # their inputs' manifests suffice

LISTED = 30  # products by name; the smaller ones as a sum


def fetch(
    targets: list[str], profile: str, overrides: str | None, told_only: bool
) -> Iterator[str]:
    """Pull what `targets` need, after saying what that is and how much; nothing if `told_only`.

    A product that is up to date needs its own bytes; one to be built, what its jobs will read; a
    folder, every product in it; no target, every product of the checkout.

    Raises:
        UserError: a target is neither a product nor a folder; or as `need.pull`.
    """
    wanted = {path: read(path) for path in needed(targets, profile, overrides)}
    wrong = {path: wrong_bytes(path, content) for path, content in wanted.items()}
    absent = {path: wanted[path] for path, problem in wrong.items() if problem}
    sealed = {path: content for path, content in absent.items() if is_sealed(path, content)}
    by_size = sorted(sealed.items(), key=lambda item: -item[1]["size"])
    for path, content in by_size[:LISTED]:
        yield f"{in_bytes(content['size']):>9}  {payload(path)}"
    if rest := by_size[LISTED:]:
        size = in_bytes(sum(content["size"] for _, content in rest))
        yield f"{size:>9}  {len(rest)} smaller ones"
    for path in sorted(set(absent) - set(sealed)):
        yield f"not on any remote, never sealed: {payload(path)}: {wrong[path]}"
    total = in_bytes(sum(content["size"] for content in sealed.values()))
    yield f"{total:>9}  to pull: {len(sealed)} of {len(wanted)} products; the others are here"
    if sealed and not told_only:
        pull(sealed)
        yield "all of it is here, and was read: the bytes are the right ones"


def needed(targets: list[str], profile: str, overrides: str | None) -> list[str]:
    """The manifests whose bytes the targets need."""
    folders = [Path(target) for target in targets or ["results"] if Path(target).is_dir()]
    files = [target for target in targets if not Path(target).is_dir()]
    found = [str(p.with_suffix(".json")) for folder in folders for p in folder.rglob("*.dvc")]
    for path in files:
        if not path.startswith("results/"):
            raise UserError(f"{path}: name a product, such as results/super3-tiny/eval.json")
    if files:
        found += of_jobs(dry_run(files, profile, overrides), files)
    return sorted(set(found))


def of_jobs(jobs: list[Job], targets: Iterable[str]) -> list[str]:
    """The products that stand, and that the jobs will read or that are targets themselves."""
    made = {output for job in jobs for output in job.outputs}
    read_by = {path for job in jobs if job.rule not in READ_NO_BYTES for path in job.inputs}
    if any(job.rule == "report" for job in jobs):  # it shows samples of the scores
        read_by |= scores_behind(
            path for job in jobs if job.rule == "report" for path in job.inputs
        )
    return [path for path in read_by | set(targets) if path not in made and has_bytes(path)]


def has_bytes(path: str) -> bool:
    """Whether a declared file is the manifest of bytes."""
    return path.endswith(".json") and Path(path).exists() and "md5" in Product.at(path).content

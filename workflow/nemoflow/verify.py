"""Whether products are what their jobs made: `python -m nemoflow verify`.

Every byte is read, no stamp is trusted, and no product is repaired. Jobs trust the stamp: bytes
that were changed, and their file's size and age put back, are found here alone; a stamp that lied
is corrected, so that jobs refuse them from then on.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nemoflow import findings, storage
from nemoflow.errors import UserError
from nemoflow.findings import Checked, look
from nemoflow.lineage import product_named
from nemoflow.manifest import payload
from nemoflow.products import job_of
from nemoflow.progress import in_bytes
from nemoflow.provenance import BUILDS, RECORDS, kept
from nemoflow.reading import Reading
from nemoflow.revision import WorkingTree

LISTED = 3  # names of products with which nothing is wrong; the rest are counted
Looked = dict[str, Checked]


class Verification:
    """The products that targets name; all of the checkout where there is no target.

    `wrong` counts those that are wrong, once `lines` is through.

    Raises:
        UserError: a target is neither a product nor a folder of results/.
    """

    def __init__(self, targets: list[str], with_bytes: bool):
        self.everything = closure({path: look(path) for path in declared()})
        names = named(targets, self.everything) if targets else set(self.everything)
        self.products = {path: self.everything[path] for path in sorted(names)}
        self.with_bytes, self.wrong = with_bytes, 0
        self.store = cache() if with_bytes else None

    def lines(self) -> Iterator[str]:
        """What is wrong, product by product; what else there is to tell; and the count."""
        told = defaultdict(list)
        with Reading(self.files()) as reading:
            for path, checked in self.products.items():
                self.check(checked, reading)
                for note in checked.told:
                    told[note].append(path)
                if checked.wrong:
                    self.wrong += 1
                    reading.bar.clear()
                    yield from self.group(checked)
        for note, paths in sorted(told.items()):
            rest = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
            yield f"{note}: {', '.join(paths[:LISTED])}{rest}"
        read = f"{in_bytes(reading.bytes)} read" if self.with_bytes else "no bytes read"
        result = f"{self.wrong} wrong" if self.wrong else "all right"
        plural = "" if len(self.products) == 1 else "s"
        yield f"{len(self.products)} product{plural}, {read}: {result}"

    def files(self) -> Iterator[Path]:
        """The files to read, of products and of DVC's cache."""
        for checked in self.products.values():
            if self.with_bytes and checked.content:
                checked.here = findings.listed(payload(checked.path))
                yield from checked.here.values()
            if self.store and checked.content:
                cached = {m: self.store.cached(m) for m in storage.objects(checked.content)}
                checked.cached = {m: path for m, path in cached.items() if path.is_file()}
                yield from checked.cached.values()

    def check(self, checked: Checked, reading: Reading) -> None:
        """Find out all that is wrong with a product."""
        if not checked.spoiled:
            findings.check_records(checked)
            findings.check_inputs(checked)
        if not checked.content:
            return
        sealed = findings.check_pointer(checked)
        read = reading.md5s([*checked.here.values(), *checked.cached.values()])
        found = {name: read[path] for name, path in checked.here.items()}
        here = bool(found) if self.with_bytes else payload(checked.path).is_dir()
        findings.check_place(checked, here, sealed)
        findings.check_cache(checked, {m: read[path] for m, path in checked.cached.items()})
        if found:
            findings.note_changes(checked, found)
            findings.check_bytes(checked, found, sealed)

    def group(self, checked: Checked) -> Iterator[str]:
        """The lines about a product that is wrong."""
        yield checked.path
        for finding in checked.wrong:
            yield f"  {finding}"
        if checked.spoiled and (after := self.built_from(checked.path)):
            yield f"  built from it: {', '.join(after)}"

    def built_from(self, path: str) -> list[str]:
        """The products that were built from one, directly or not."""
        found, waiting = set(), [path]
        while waiting:
            before = waiting.pop()
            for other, checked in self.everything.items():
                if before in checked.product.inputs and other not in found:
                    found.add(other)
                    waiting.append(other)
        return sorted(found)


def cache() -> storage.Storage | None:
    """DVC's cache; None where there is no repository, and no cache."""
    try:
        return storage.Storage()
    except UserError:
        return None


def declared() -> set[str]:
    """Every declared file of results/ that is there, is recorded, or has a pointer."""
    found = set()
    for folder, folders, files in os.walk("results"):
        paths = [Path(folder, name) for name in files if not name.startswith(".")]
        pointed = {path.with_suffix(".json") for path in paths if path.suffix == ".dvc"}
        products = pointed | {path for path in paths if job_of(path.as_posix())[0]}
        found.update(path.as_posix() for path in products)
        payloads = {path.stem for path in products if path.stem != "eval"}
        folders[:] = [name for name in folders if name not in payloads]  # any number of files
    for root in (BUILDS, RECORDS):
        outputs = (p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.json"))
        found.update(output for output in outputs if kept(output))
    return found


def closure(looked: Looked) -> Looked:
    """The products, and what is known to have led to them but is nowhere."""
    waiting = list(looked.values())
    while waiting:
        for path, recorded in waiting.pop().product.inputs.items():
            if recorded and path.startswith("results/") and path not in looked:
                looked[path] = look(path)
                waiting.append(looked[path])
    return looked


def named(targets: list[str], looked: Looked) -> set[str]:
    """The products that targets name: one with all that led to it, or those of a folder.

    Raises:
        UserError: a target is neither.
    """
    found: set[str] = set()
    for target in targets:
        name = Path(os.path.relpath(target)).as_posix()
        everything = name in (".", "results")
        inside = {path for path in looked if everything or path.startswith(f"{name}/")}
        waiting = [] if everything or inside else [product_at(name, looked)]
        found |= inside
        while waiting:
            path = waiting.pop()
            if path not in found:
                found.add(path)
                waiting += [made for made in looked[path].product.inputs if made in looked]
    return found


def product_at(name: str, looked: Looked) -> str:
    """The product that a path names: its own, its bytes', its pointer's.

    Raises:
        UserError: there is none; names the nearest.
    """
    for candidate in (name, f"{name.removesuffix('.dvc')}.json"):
        if candidate in looked:
            return candidate
    path = product_named(name, WorkingTree())
    looked[path] = look(path)
    return path

"""What is wrong with one product, each finding with its way out; `verify` asks for all of them.

A finding spoils a product where it concerns its manifest or its bytes, which others were built
from; where it concerns only DVC's pointer or cache, or a record, it does not.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoflow.errors import UserError
from nemoflow.files import sha256_of, write_json
from nemoflow.manifest import MD5, fault, last, payload, pointed, read_stamp, stamp
from nemoflow.products import Product
from nemoflow.provenance import BUILDS, RECORDS, read_record

NOT_HERE = "not here, but sealed (dvc pull brings them)"
NEVER_SEALED = "never sealed"
NOT_RECORDED = "recorded neither in provenance/builds nor in provenance/records"


@dataclass
class Checked:
    """A product, its files that are read, and what was found out about it.

    `here` is {path in the product: file}, `cached` {md5: file} of DVC's cache. `wrong` are
    findings with their ways out, `told` are no faults.
    """

    product: Product
    here: dict[str, Path] = field(default_factory=dict)
    cached: dict[str, Path] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    spoiled: bool = False

    @property
    def path(self) -> str:
        """The declared file."""
        return self.product.path

    @property
    def content(self) -> dict[str, Any]:
        """The manifest of its bytes; empty where it has none, or none to be believed."""
        content = self.product.content
        return content if "md5" in content and fault(content) is None else {}

    @property
    def pointer(self) -> Path:
        """Where DVC's pointer is, or would be."""
        return Path(self.path).with_suffix(".dvc")

    @property
    def rebuild(self) -> str:
        """How to make it again."""
        return f"rm {self.path} {last(self.path)}, then ask Snakemake for {self.path}"

    def spoil(self, finding: str) -> None:
        """Add a finding about the product itself."""
        self.wrong.append(finding)
        self.spoiled = True


def look(path: str) -> Checked:
    """A product as its declared file tells of it."""
    try:
        checked = Checked(product := Product.at(path))
    except UserError as error:  # the file, or the record of its build
        content, record = (mapping(place) for place in (Path(path), records(path)[0]))
        checked = Checked(Product(path, content, record, digest_of(path)))
        if path.endswith(".json") and not content:
            checked.spoil(str(error))
        return checked
    if product.sha256 is None:
        told = [str(place) for place in (*records(path), checked.pointer) if place.exists()]
        checked.spoil(
            f"there is no such file, though others were made from it; git checkout {path}"
            if not told
            else f"there is no such file, though {', '.join(told)} tell of it; git checkout {path},"
            f" or, if it is to go, git rm {' '.join(told)}"
        )
    elif product.has_manifest and (problem := fault(product.content)):
        known = product.record or product.foreign  # it tells the inputs, which the file may not
        checked = Checked(Product(path, {}, known, product.sha256))
        checked.spoil(f"{problem}; git checkout {path}, or {checked.rebuild}")
    return checked


def mapping(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, empty where there is none to be read."""
    return read_record(path) if path.is_file() and path.suffix == ".json" else {}


def digest_of(path: str) -> str | None:
    """A file's sha256, None where there is none."""
    return sha256_of(path) if Path(path).is_file() else None


def records(path: str) -> tuple[Path, Path]:
    """Where its job and where Snakemake note the digest of a file."""
    return BUILDS / f"{path}.json", RECORDS / f"{path}.json"


def check_records(checked: Checked) -> None:
    """Whether the file is what its job wrote."""
    path, known = checked.path, {}
    for record in records(path):
        if record.exists() and (sha256 := read_record(record).get("sha256")):
            known[record] = sha256 == checked.product.sha256
        elif record.exists():
            checked.wrong.append(f"{record} cannot be read; git checkout {record}")
    other = [str(record) for record, right in known.items() if not right]
    if not known and not checked.wrong:
        checked.told.append(NOT_RECORDED)
    if other and known.get(records(path)[0]):
        checked.wrong.append(
            f"{other[0]} is of another build; Snakemake writes it when the run ends, else git"
            f" checkout {path} {other[0]}"
        )
    elif other:
        checked.spoil(
            f"not what its job wrote (see {other[0]}): edited by hand, or of another commit than"
            f" its record; git checkout {path} {' '.join(other)}, or {checked.rebuild}"
        )


def check_inputs(checked: Checked) -> None:
    """Whether the inputs are still those that it was built from."""
    for path, recorded in checked.product.inputs.items():
        now = digest_of(path)
        if recorded and now and now != recorded:
            checked.spoil(
                f"was built from another {path} ({recorded[:8]}, not {now[:8]}); ask Snakemake for"
                f" {checked.path}, or git checkout both"
            )


def check_pointer(checked: Checked) -> bool:
    """Whether the product is sealed: DVC's pointer is of this very build."""
    pointer, content = checked.pointer, checked.content
    if checked.product.rule == "render" or not pointer.exists():
        return False
    told = pointed(pointer)
    expected = {
        "md5": content["md5"],
        "size": content["size"],
        "nfiles": len(content["files"]),
        "path": payload(checked.path).name,
    }
    way = f"git checkout {pointer}, or rm {pointer} and publish again"
    if told is None:
        checked.wrong.append(f"{pointer} cannot be read; {way}")
    elif told.get("md5") != content["md5"]:
        checked.wrong.append(f"{pointer} points to another build; {way}")
    elif other := [key for key in expected if told.get(key, expected[key]) != expected[key]]:
        said = ", ".join(f"{key} {told[key]}, not {expected[key]}" for key in other)
        checked.wrong.append(f"{pointer} contradicts the manifest: {said}; {way}")
    else:
        return True
    return False


def check_place(checked: Checked, here: bool, sealed: bool) -> None:
    """Whether the bytes are somewhere; rendered conversations are made again when needed."""
    if checked.product.rule == "render":
        return
    if not here and sealed:
        checked.told.append(NOT_HERE)
    elif not here and checked.pointer.exists():
        checked.wrong.append("its bytes are not here either")
    elif not here:
        checked.wrong.append(
            "its bytes are not here, and were never sealed; publish from where it was built, or"
            f" {checked.rebuild}"
        )
    elif not checked.pointer.exists():
        checked.told.append(NEVER_SEALED)


def check_bytes(checked: Checked, found: dict[str, str], sealed: bool) -> None:
    """Whether the bytes that are here are the manifest's; `found` is {path: md5}."""
    expected = {file["path"]: file["md5"] for file in checked.content["files"]}
    differs = [
        name if MD5.fullmatch(found[name]) else f"{name} ({found[name]})"
        for name in sorted(expected)
        if name in found and found[name] != expected[name]
    ]
    lists = {
        "differs": differs,
        "missing": sorted(set(expected) - set(found)),
        "not of this build": sorted(set(found) - set(expected)),
    }
    for word, names in lists.items():
        if names:
            checked.spoil(f"{word}: {', '.join(names)}")
    if any(lists.values()):
        folder = payload(checked.path)
        pull = f"rm -r {folder}, then dvc pull {checked.pointer}"
        checked.wrong.append(f"  {pull}" if sealed else f"  {checked.rebuild}")


def note_changes(checked: Checked, found: dict[str, str]) -> None:
    """Correct the stamp where it told otherwise: jobs believe it."""
    known = read_stamp(checked.path)
    read = {name: md5 for name, md5 in found.items() if name in known and MD5.fullmatch(md5)}
    true = {name: [*known[name][:2], md5] for name, md5 in read.items()}
    if any(known[name] != entry for name, entry in true.items()):
        with suppress(OSError):  # a checkout that is not ours to write in
            write_json(stamp(checked.path), known | true)


def check_cache(checked: Checked, found: dict[str, str]) -> None:
    """Whether DVC's cache holds what the names of its objects say; `found` is {md5: actual}."""
    names = {file["md5"]: file["path"] for file in checked.content["files"]}
    for md5, actual in found.items():
        if actual != md5.removesuffix(".dir"):
            name = names.get(md5, "the list of files")
            checked.wrong.append(f"damaged in DVC's cache: {name}; rm {shown(checked.cached[md5])}")


def shown(path: Path) -> str:
    """A path relative to the root, where it lies below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def listed(folder: Path) -> dict[str, Path]:
    """{path in the folder: file}."""
    paths: Iterable[Path] = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}

"""What no manifest refers to any more, and whether it may go: never the only copy of anything.

A product's bytes may go when every file, and the list of them, lie in DVC's cache or on the remote;
objects of the cache when they lie on the remote or in the workspace; what a killed job left
half-made, at once. The copy for whose sake one thing goes does not go with another.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nemoflow import checkpoint, locks, storage
from nemoflow.manifest import PARTS, payload, tree_md5
from nemoflow.provenance import RECORDS
from nemoflow.survey import LEFTOVER, File, Survey, last_held_elsewhere, leftover_in, locks_of, walk

QUIET = 3600  # seconds without a change, where no lock tells that nobody writes any more


@dataclass
class Thing:
    """Files and folders that go together, or stay.

    Why they may go follows from `siblings`, files that would tell what they are; from `read`,
    folders of bytes that were read; and from `cached` and `remote`, the objects {md5: bytes} that
    are the copy. `after` is a folder that must be gone first; `objects` are the objects that
    `paths` are, where they lie in the cache.
    """

    name: str
    why: str
    removable: bool
    paths: list[str]
    locks: list[Path] = field(default_factory=list)
    siblings: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    cached: dict[str, int] = field(default_factory=dict)
    remote: dict[str, int] = field(default_factory=dict)
    after: str | None = None
    objects: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.files = look(self.paths)
        self.seen = self.look()

    def look(self) -> dict[str, File]:
        """The files as they stand now, siblings too."""
        return look([*self.paths, *self.siblings])

    @property
    def size(self) -> int:
        """The bytes of its files, each counted once."""
        return sum({file.inode: file.size for file in self.files.values()}.values())


def look(paths: Iterable[str]) -> dict[str, File]:
    """The files at, and in folders below, some paths as they stand now."""
    found = {}
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            found |= {file.path: file for file in walk(path)[0]}
        elif os.path.lexists(path):
            found[path] = File.at(path)
    return found


def things(survey: Survey) -> list[Thing]:
    """All that nothing refers to, largest first."""
    found = list(payloads(survey))
    gone = {thing.name for thing in found if thing.removable}
    found += [*progress(survey, gone), *leftovers(survey), *stamps(survey, gone)]
    found += [*cached(survey, found), *temporary(survey)]
    return sorted(found, key=lambda thing: (-thing.size, thing.name))


def payloads(survey: Survey) -> Iterator[Thing]:
    """Folders of bytes that are of no build that a manifest describes."""
    for folder, files in survey.payloads.items():
        manifest, md5s = f"{folder}.json", {file["path"]: file["md5"] for file in files}
        known = survey.here.cover(manifest, md5s) or survey.elsewhere.cover(manifest, md5s)
        if known or being_joined(survey, manifest):
            continue
        objects = storage.objects({"files": files, "md5": tree_md5(files)})
        if survey.here.list_all(md5s) or survey.elsewhere.list_all(md5s):
            del objects[tree_md5(files)]
        remote = {md5: size for md5, size in objects.items() if md5 in survey.remote}
        left = {md5: size for md5, size in objects.items() if md5 not in remote}
        whole = all(md5 in survey.objects for md5 in left)
        whole = whole and all(survey.objects[md5].size == size for md5, size in left.items())
        place = " and ".join(["in the cache"] * bool(left) + ["on the remote"] * bool(remote))
        yield Thing(
            folder,
            "no manifest describes it; " + (f"also {place}" if whole else "the only copy"),
            removable=whole,
            paths=[folder],
            locks=sorted({locks.lock_of(manifest), *locks_of(folder)}),
            siblings=[manifest],
            read=[folder],
            cached=left if whole else {},
            remote=remote if whole else {},
        )


def being_joined(survey: Survey, manifest: str) -> bool:
    """Whether some parts of a corpus are finished, and it is not."""
    return PARTS in survey.here.builds.get(manifest, {}) and not Path(manifest).exists()


def progress(survey: Survey, gone: set[str]) -> Iterator[Thing]:
    """What training left of products that are no more; `gone` are folders that will be removed."""
    for folder in survey.folders:
        if Path(folder).name != "progress" or leftover_in(folder) or survey.in_work(folder):
            continue
        product = Path(folder).with_name("checkpoint")
        manifest = f"{product}.json"
        if manifest in survey.here.builds or manifest in survey.elsewhere.builds:
            continue
        ended = Path(folder, "published.json").exists() and checkpoint.final(folder) is None
        over = ended and (not product.exists() or str(product) in gone)
        going_on = "training that has not ended, or is not recorded: the same command goes on"
        yield Thing(
            folder,
            "left by the training of a product that is gone" if over else going_on,
            removable=over,
            paths=[folder],
            locks=sorted({locks.lock_of(manifest), *locks_of(folder)}),
            siblings=[manifest],
            after=str(product),
        )


def leftovers(survey: Survey) -> Iterator[Thing]:
    """What killed jobs left: half-made folders and files, and builds that were being replaced."""
    for path in [*survey.folders, *survey.paths]:
        place = Path(path)
        match = LEFTOVER.fullmatch(place.name)
        if not match or leftover_in(str(place.parent)) or survey.in_work(path):
            continue
        held = locks_of(path)
        if place.suffix == ".former":
            product = str(place.with_name(match["name"]))
            whole = is_whole(survey, product)
            why = "a former build; the product is whole" if whole else "perhaps the only build"
            yield Thing(path, why, whole, [path], held, [f"{product}.json"], [product])
        else:
            sure = place.is_dir() and held and not last_held_elsewhere(held)
            dead = bool(sure) or is_quiet(look([path]).values())
            why = "left half-made by a killed job" if dead else "half-made within the last hour"
            yield Thing(path, why, dead, [path], held)


def is_whole(survey: Survey, folder: str) -> bool:
    """Whether a folder holds all bytes of a build that the manifest beside it describes."""
    md5s = {file["path"]: file["md5"] for file in survey.payloads.get(folder, [])}
    return md5s in survey.here.builds.get(f"{folder}.json", {}).values()


def is_quiet(files: Iterable[File]) -> bool:
    """Whether files have not changed for a while."""
    return time.time() - max((file.changed / 1e9 for file in files), default=0) > QUIET


def stamps(survey: Survey, gone: set[str]) -> Iterator[Thing]:
    """Stamps of bytes that are gone, or will be, and copies of outputs that no one puts back."""
    stale = defaultdict(list)
    for path in map(Path, survey.paths):
        output = path.with_name(path.stem.removeprefix("."))
        if path.name == f".{output.name}.stat":
            output = path.with_name(f"{output.name}.json")
        elif path.name != f".{output.name}.last" or Path(RECORDS, f"{output}.json").exists():
            continue
        left = payload(output).exists() and str(payload(output)) not in gone
        if not (output.exists() or left or survey.in_work(path)):
            stale[path.parent].append(path)
    for folder, paths in stale.items():
        yield Thing(
            f"{folder}: stamps, and copies of manifests",
            "of products that are gone",
            removable=True,
            paths=[str(path) for path in paths],
            locks=sorted({lock for path in paths for lock in locks_of(path)}),
        )


def cached(survey: Survey, found: list[Thing]) -> Iterator[Thing]:
    """Objects of the cache to which nothing refers, by whether there is another copy."""
    removed = [thing for thing in found if thing.removable]
    copies = copies_here(survey, {thing.name for thing in removed})
    known, unlisted = survey.listed
    needed = {md5 for thing in removed for md5 in thing.cached}
    groups: dict[str, list[str]] = defaultdict(list)
    for md5 in survey.objects.keys() - known:
        if survey.shared:
            why = "the cache is shared: others may refer to them"
        elif unlisted:
            why = f"{unlisted} may refer to them: its list of files is not here"
        elif md5 in needed:
            why = "the copy of what is listed to go"
        elif md5 in survey.remote:
            why = "also on the remote"
        else:
            why = "also in the workspace" if md5 in copies else "the only copy"
        groups[why].append(md5)
    for why, md5s in groups.items():
        files = {md5: survey.objects[md5] for md5 in sorted(md5s)}
        near = sorted({copies[md5] for md5 in files}) if why.endswith("workspace") else []
        yield Thing(
            f"{survey.cache_folder}: {len(files)} objects",
            why,
            removable=why.startswith("also"),
            paths=[file.path for file in files.values()],
            locks=sorted({lock for folder in near for lock in locks_of(folder)}),
            read=near,
            remote={m: f.size for m, f in files.items()} if why.endswith("remote") else {},
            objects=list(files),
        )


def copies_here(survey: Survey, gone: set[str]) -> dict[str, str]:
    """{md5: a folder that stays and has such a file, or is such}; links are no copies."""
    found = {}
    for folder, files in survey.payloads.items():
        linked = any(os.path.islink(f"{folder}/{file['path']}") for file in files)
        if folder not in gone and not linked:
            found |= dict.fromkeys([*(file["md5"] for file in files), tree_md5(files)], folder)
    return found


def temporary(survey: Survey) -> Iterator[Thing]:
    """What killed processes left half-copied in the cache."""
    files = [file for file in survey.other_cached if LEFTOVER.fullmatch(Path(file.path).name)]
    if files:
        dead = not survey.shared and not survey.busy and is_quiet(files)
        yield Thing(
            f"{survey.cache_folder}: {len(files)} temporary files",
            "left by killed processes" if dead else "perhaps still being written",
            removable=dead,
            paths=[file.path for file in files],
        )

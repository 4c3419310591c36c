"""What takes room, what nothing refers to any more, and removing that."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nemoflow import checkpoint, locks, references, storage
from nemoflow.errors import UserError
from nemoflow.manifest import payload, pointer_md5
from nemoflow.progress import in_bytes
from nemoflow.survey import File, Survey, read_payload
from nemoflow.unreferenced import Thing, is_whole, things

COLUMNS = ("bytes", "in the cache", "on the remote", "progress/")


def disk(clean: bool, yes: bool) -> Iterator[str]:
    """What takes room, and what nothing refers to; removes what of it may go when told to `clean`.

    Raises:
        UserError: this is no checkout with git and DVC, or there is nobody to ask.
    """
    survey = Survey()
    found = things(survey)
    yield from table(survey)
    yield from cache(survey)
    if survey.no_remote:
        yield f"nothing counts as being on a remote: {survey.no_remote}"
    yield from pullable(survey)
    yield from unreferenced(found)
    if clean:
        yield from remove_all([thing for thing in found if thing.removable], survey, yes)


def table(survey: Survey) -> Iterator[str]:
    """What each run and each kind of data takes, largest first."""
    rows = usage(survey)
    yield line(COLUMNS, "")
    for name, row in sorted(rows.items(), key=lambda item: (-item[1][0] - item[1][3], item[0])):
        yield line(map(in_bytes, row), name)
    sums = [sum(column) for column in zip(*rows.values(), strict=True)]
    yield line(map(in_bytes, sums), "results/ in all")


def usage(survey: Survey) -> dict[str, list[int]]:
    """{run or kind of data: bytes in the order of COLUMNS}; of hard links the first counts."""
    rows: dict[str, list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
    for file in each_once(survey.files):
        row, md5 = rows[owner(file.path)], survey.md5s.get(file.path)
        if "/progress/" in file.path:
            row[3] += file.size
        else:
            row[0] += file.size
            row[1] += file.size if md5 in survey.objects else 0
            row[2] += file.size if md5 in survey.remote else 0
    return rows


def owner(path: str) -> str:
    """The run, or the kind of data, that a file belongs to."""
    _, *folders, _ = path.split("/")
    return "/".join(folders[: 2 if folders[:1] == ["data"] else 1]) or "of none"


def cache(survey: Survey) -> Iterator[str]:
    """What DVC's cache takes, by who refers to it; hard links to files of results/ apart."""
    known, _ = survey.listed
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for md5, file in survey.objects.items():
        elsewhere = "referred to by other branches and tags" if md5 in known else "by nothing"
        row = rows["referred to here" if survey.here.hold(md5) else elsewhere]
        row[0] += file.size
        row[1] += file.size if md5 in survey.remote else 0
    if survey.other_cached:
        rows["other files"][0] = sum(file.size for file in survey.other_cached)
    yield f"DVC's cache, {survey.cache_folder}:"
    for name, (size, far) in rows.items():
        yield line([in_bytes(size), "", in_bytes(far), ""], name)
    own = [*survey.objects.values(), *survey.other_cached]
    both = sum(file.size for file in each_once([*survey.files, *own]))
    total = sum(file.size for file in each_once(own))
    linked = total + sum(file.size for file in each_once(survey.files)) - both
    yield line(
        [in_bytes(total), "", "", ""], f"in all, {in_bytes(linked)} of it hard links to results/"
    )
    yield line([in_bytes(both), "", "", ""], "results/ and the cache on disk")


def pullable(survey: Survey) -> Iterator[str]:
    """Products that are referred to here, sealed, and on the remote: their bytes can come again."""
    found = {}
    for manifest, builds in survey.here.builds.items():
        folder, md5 = str(payload(manifest)), pointer_md5(manifest)
        if md5 in builds and is_whole(survey, folder):
            files = survey.payloads[folder]
            if storage.objects({"files": files, "md5": md5}).keys() <= survey.remote:
                found[folder] = sum(file["size"] for file in files)
    if found:
        yield "could be pulled again, were they removed here:"
        for folder, size in sorted(found.items(), key=lambda item: (-item[1], item[0])):
            yield line([in_bytes(size)], folder)


def unreferenced(found: list[Thing]) -> Iterator[str]:
    """What nothing refers to, and whether it can go."""
    if not found:
        yield "everything here is referred to"
        return
    yield "no manifest here, in the index, or of a branch or tag refers to:"
    for thing in found:
        verdict = "can go" if thing.removable else "kept"
        yield f"{in_bytes(thing.size):>9}  {verdict:6}  {thing.name}: {thing.why}"


def line(cells: Iterable[str], name: str) -> str:
    """A row of the table."""
    first, *rest = cells
    return (f"{first:>9}" + "".join(f"  {cell:>13}" for cell in rest) + f"  {name}").rstrip()


def each_once(files: Iterable[File]) -> Iterable[File]:
    """Of files that are hard links to each other, the first."""
    found: dict[tuple[int, int], File] = {}
    for file in files:
        found.setdefault(file.inode, file)
    return found.values()


def freed(chosen: list[Thing]) -> int:
    """The bytes that are free when some things are gone: other hard links to them keep theirs."""
    gone: dict[tuple[int, int], set[str]] = defaultdict(set)
    files = [file for thing in chosen for file in thing.files.values()]
    for file in files:
        gone[file.inode].add(file.path)
    return sum(file.size for file in each_once(files) if len(gone[file.inode]) == file.links)


def remove_all(chosen: list[Thing], survey: Survey, yes: bool) -> Iterator[str]:
    """Ask, and remove what is still as it was listed."""
    if not chosen:
        yield "nothing to remove"
        return
    linked = sum(thing.size for thing in chosen) - freed(chosen)
    also = f" ({in_bytes(linked)} more stay as other hard links)" if linked else ""
    question = f"remove these {len(chosen)} things, {in_bytes(freed(chosen))}{also}?"
    if not yes and not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal to answer on: say --yes")
    if not yes and input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        yield "nothing removed"
        return
    removed = []
    for thing in sorted(chosen, key=lambda thing: thing.after is not None):
        if problem := remove(thing, survey):
            yield f"skipped  {thing.name}: {problem}"
        else:
            removed.append(thing)
            yield f"removed  {thing.name}"
    yield f"{len(removed)} of {len(chosen)} things removed, {in_bytes(freed(removed))} free again"


def remove(thing: Thing, survey: Survey) -> str | None:
    """Remove a thing under its locks; why it was not, where something has changed."""
    with held(thing, survey) as free:
        if not free:
            return "somebody works on it now"
        if problem := changed(thing, survey):
            return problem
        try:
            for path in map(Path, thing.paths):
                if path.is_dir() and not path.is_symlink():
                    checkpoint.remove(path)
                else:
                    path.unlink(missing_ok=True)
        except PermissionError as error:
            return f"not yours to remove: {error.filename}"
    return None


@contextmanager
def held(thing: Thing, survey: Survey) -> Iterator[bool]:
    """Hold the locks of a thing, DVC's own for what lies in its cache; yields False if taken."""
    from dvc.lock import LockError

    with ExitStack() as stack:
        free = stack.enter_context(locks.all_free(thing.locks))
        if free and thing.paths[0].startswith(f"{survey.cache_folder}/"):
            try:
                stack.enter_context(survey.store.repo.lock)
            except LockError:
                free = False
        yield free


def changed(thing: Thing, survey: Survey) -> str | None:
    """What is not as it was when a thing was listed."""
    if references.state() != survey.git:
        return "branches, tags or the index have changed: list it again"
    if thing.after and Path(thing.after).exists():
        return f"{thing.after} is still there"
    if thing.look() != thing.seen:
        return "it has changed: list it again"
    if any(read_payload(folder) != survey.payloads[folder] for folder in thing.read):
        return "bytes have changed: list it again"
    if thing.objects and any(map(references.working_tree().hold, thing.objects)):
        return "something refers to it now: list it again"
    inodes = {file.inode for file in thing.files.values()}
    objects = {md5: survey.store.cached(md5) for md5 in thing.cached}
    if not all(path.exists() for path in objects.values()):
        return "the copy in the cache is gone"
    unread = [md5 for md5, path in objects.items() if File.at(str(path)).inode not in inodes]
    if survey.store.damaged(unread):
        return "the copy in the cache is damaged"
    if thing.remote.keys() - survey.store.on_remote(thing.remote):
        return "the copy on the remote is gone"
    return None

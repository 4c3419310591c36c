"""What a job reads: manifests as their jobs wrote them, and bytes that are the right ones.

Bytes that are absent are pulled where a pointer of this very build exists, and read as they come:
DVC links a damaged object of its cache, and a remote gives what it has.
"""

import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nemoflow import locks, storage
from nemoflow.errors import UserError
from nemoflow.files import sha256_of
from nemoflow.manifest import last, list_bytes, payload, pointer_md5, read
from nemoflow.progress import in_bytes, say
from nemoflow.provenance import BUILDS, read_record

TEMPORARY = re.compile(r"\.[A-Za-z0-9_-]{22}\.tmp")  # dvc_objects.fs.utils.tmp_fname
Contents = dict[str, dict[str, Any]]


def need(manifests: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The contents of manifests, once their bytes are here and known to be the right ones.

    Raises:
        UserError: bytes are missing or of another build; says which, and the ways out.
    """
    contents = {str(path): read(path) for path in manifests}
    wrong = wrong_products(contents)
    sealed = {path: contents[path] for path in wrong if is_sealed(path, contents[path])}
    for path in wrong:
        if path not in sealed:
            raise UserError(f"{payload(path)}: {wrong[path]}\n{ways_out(path, contents[path])}")
    if sealed:
        pull(sealed)
    return list(contents.values())


def need_if_had(manifests: Iterable[str | Path]) -> None:
    """`need`, but go on without what is nowhere to be had, after saying so."""
    for manifest in manifests:
        if payload(manifest).exists():
            need([manifest])
        elif is_sealed(manifest, content := read(manifest)):
            try:
                pull({str(manifest): content})
            except UserError as error:
                say(f"going on without it: {error}")


def refuse_edited(outputs: Iterable[str | Path]) -> None:
    """Raise UserError for an output that is not what its job wrote, as the build's record tells."""
    for output in outputs:
        record = BUILDS / f"{output}.json"
        if record.exists() and read_record(record).get("sha256") != sha256_of(output):
            raise UserError(
                f"{output}: not what its job wrote (see {record}): edited by hand, or from another"
                f" commit than its record. git checkout {output} {record}, or remove {output} and"
                f" {last(output)} to rebuild it"
            )


def wrong_products(contents: Contents) -> dict[str, str]:
    """{manifest: what is wrong with its bytes}."""
    told = {path: wrong_bytes(path, content) for path, content in contents.items()}
    return {path: problem for path, problem in told.items() if problem}


def wrong_bytes(
    manifest: str | Path, content: dict[str, Any], trust_stamp: bool = True
) -> str | None:
    """What is wrong with the bytes beside a manifest, or None."""
    if "md5" not in content:
        return None
    expected = {file["path"]: file for file in content["files"]}
    found = {file["path"]: file for file in list_bytes(manifest, trust_stamp)}
    if missing := sorted(set(expected) - set(found)):
        return f"{len(missing)} of {len(expected)} files are missing ({missing[0]}, …)"
    if foreign := sorted(set(found) - set(expected)):
        return f"holds {len(foreign)} files that are not of this build ({foreign[0]}, …)"
    changed = [path for path in sorted(expected) if expected[path] != found[path]]
    if changed:
        return (
            f"the bytes are not those of {manifest}: of another build, or changed"
            f" ({len(changed)} of {len(expected)} files, {changed[0]} first)"
        )
    return None


def is_sealed(manifest: str | Path, content: dict[str, Any]) -> bool:
    """Whether DVC's pointer is of this very build."""
    return "md5" in content and pointer_md5(manifest) == content["md5"]


def ways_out(manifest: str | Path, content: dict[str, Any]) -> str:
    """What to do about bytes that are not there."""
    rebuild = f"  rebuild: rm {manifest} {last(manifest)}, then ask Snakemake for {manifest}"
    pointer = Path(manifest).with_suffix(".dvc")
    if is_sealed(manifest, content) and payload(manifest).exists():
        return f"  if they are to go: rm -r {payload(manifest)}, then dvc pull {pointer}\n{rebuild}"
    if is_sealed(manifest, content):
        return f"  then dvc pull {pointer}; or publish again from where it was built; or\n{rebuild}"
    state = f"{pointer} does not lead to them" if pointer.exists() else "never sealed with DVC"
    return f"  {state}: copy the bytes from where they were built, or\n{rebuild}"


def pull(contents: Contents) -> None:
    """Bring the bytes of sealed products here, and read them.

    Raises:
        UserError: the remote cannot be reached, holds wrong bytes, or bytes here are in the way.
    """
    size = sum(content["size"] for content in contents.values())
    names = [str(payload(path)) for path in contents]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    say(f"pulling {in_bytes(size)}: {', '.join(names[:5])}{more}")
    store = storage.Storage()
    store.refuse_crowded(contents)
    with ExitStack() as held:
        for path in sorted(contents):
            held.enter_context(locks.product(path))
        if wrong := fetch(contents, store):
            mend(wrong, contents, store)


def fetch(contents: Contents, store: storage.Storage) -> dict[str, str]:
    """Let DVC fetch and place the bytes; {manifest: what is wrong with them still}.

    Which files there are, and where they go, says the manifest, and no list from elsewhere.
    """
    for path, content in contents.items():
        store.keep_list(content)
        remove_leftovers(path, content)
    error = storage.dvc("pull", *(str(Path(path).with_suffix(".dvc")) for path in contents))
    wrong = wrong_products(contents)
    if error and wrong:
        path, problem = next(iter(wrong.items()))
        raise UserError(
            f"{payload(path)}: {problem}; nothing was built from it\n  dvc pull: {error}\n"
            f"  {store.why_absent(contents[path])}\n{ways_out(path, contents[path])}"
        )
    return wrong


def remove_leftovers(path: str, content: dict[str, Any]) -> None:
    """Remove what a killed DVC was about to put in place: it would refuse to, as unsaved files."""
    known = {file["path"] for file in content["files"]}
    for file in payload(path).rglob(".*.tmp"):
        inside = file.relative_to(payload(path)).as_posix()
        if TEMPORARY.fullmatch(file.name) and inside not in known:
            file.unlink()


def mend(wrong: dict[str, str], contents: Contents, store: storage.Storage) -> None:
    """Take wrong objects out of the cache and pull again; what is wrong then is so remotely."""
    for place in ("cache", "remote"):
        unexplained = remove_damaged({path: contents[path] for path in wrong}, store)
        for path, problem in wrong.items():
            if path in unexplained:
                raise UserError(f"{payload(path)}: {problem}\n{ways_out(path, contents[path])}")
            say(f"{payload(path)}: DVC's {place} holds wrong bytes of it; not used: {problem}")
        if place == "cache":
            wrong = fetch({path: contents[path] for path in wrong}, store)
        if not wrong:
            return
    path = next(iter(wrong))
    raise UserError(
        f"{payload(path)}: {store.remote_name} holds wrong bytes for it; nothing was built from"
        " it. Remove them there, and publish again from a checkout whose bytes are right, or\n"
        f"{ways_out(path, contents[path])}"
    )


def remove_damaged(contents: Contents, store: storage.Storage) -> set[str]:
    """Remove objects whose bytes are not what their names say, and the files made from them.

    Returns the products that have none such: theirs was no fault of DVC's.
    """
    named = {path: storage.objects(content) for path, content in contents.items()}
    bad = set(store.damaged(md5 for found in named.values() for md5 in found))
    for path, content in contents.items():
        found = {file["path"]: file["md5"] for file in list_bytes(path)}
        for file in content["files"]:
            if file["md5"] in bad and found.get(file["path"]) != file["md5"]:
                (payload(path) / file["path"]).unlink(missing_ok=True)
    store.discard(bad)
    return {path for path, found in named.items() if bad.isdisjoint(found)}

"""Which files of a data set of the hub hold the rows of a source."""

import re
from typing import Any

from nemoflow import hub_data
from nemoflow.errors import UserError
from nemoflow.progress import say
from nemoflow.source_file import READABLE, UNREADABLE, SourceFile

# Files that describe a data set; `datasets` writes them beside its own.
DESCRIPTIONS = ("dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json")
SHOWN = 20  # names in a message


def list_hub(source: dict[str, Any]) -> list[SourceFile]:
    """The files of a pinned source that hold its rows.

    A file is of a `subset` when it lies in a folder of that name, or is named so, alone or before
    a - or _. It is of a `split` when that word begins a name in its path and -, / or . ends it.
    UserError where none is, or where the files may not be downloaded.
    """
    repository, commit = source["hub"], source["revision"]
    every = hub_data.list_repository(repository, commit)
    readable = [
        file
        for file in every
        if file.path.endswith(READABLE) and not file.path.endswith(DESCRIPTIONS)
    ]
    chosen = [file for file in readable if wanted(file.path, source)]
    if not chosen:
        raise UserError(_nothing(source, readable))
    left_out = [f.path for f in every if f.path.endswith(UNREADABLE) and wanted(f.path, source)]
    left_out = [path for path in left_out if not path.endswith(READABLE)]
    if left_out:
        say(f"source hub {repository}: left out, not {', '.join(READABLE)}: {_some(left_out)}")
    hub_data.check_access(repository, commit, chosen[0].path)
    return chosen


def wanted(path: str, source: dict[str, Any]) -> bool:
    """Whether a file is of the subset and the split that a source asks for."""
    subset, split = source.get("subset"), source.get("split")
    *folders, name = path.split("/")
    in_subset = (
        subset is None
        or subset in folders
        or name.startswith((f"{subset}-", f"{subset}_"))
        or subset in (name, _stem(name))
    )
    in_split = split is None or re.search(rf"(^|/){re.escape(split)}(-|/|\.|$)", path)
    return in_subset and bool(in_split)


def _nothing(source: dict[str, Any], readable: list[SourceFile]) -> str:
    repository, commit = source["hub"], source["revision"]
    if not readable:
        return f"source hub {repository} at {commit[:12]}: it has no {', '.join(READABLE)}"
    asked = " ".join(f"{key} {source[key]}" for key in ("subset", "split") if source.get(key))
    folders = sorted({path.rpartition("/")[0] or "." for path in (f.path for f in readable)})
    names = [f.path for f in readable]
    there = f"folders {_some(folders)}" if len(folders) > 1 else f"files {_some(names)}"
    return f"source hub {repository} at {commit[:12]}: no file is of {asked}; there are {there}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _stem(name: str) -> str:
    ends = [end for end in READABLE if name.endswith(end)]
    return name.removesuffix(max(ends, key=len, default=""))

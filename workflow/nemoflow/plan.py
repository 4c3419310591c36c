"""Which bytes of which file belong to which shard of which part."""

from collections.abc import Sequence
from typing import Any

from nemoflow.source_file import SourceFile


def make_plan(files: Sequence[SourceFile], parts: int, shards_per_part: int) -> dict[str, Any]:
    """Cut files into `parts` parts of `shards_per_part` shards each.

    The files, sorted by path, are laid end to end and cut into equal ranges of bytes. A file of
    plain lines or of Parquet is cut anywhere: its reader gives a line, or a row group, to the range
    in which its first byte lies. A compressed file cannot be entered in the middle: it goes whole
    to the range that holds its middle. So every byte lies in exactly one shard, for any sizes and
    any number of shards; shards and parts may be empty, and the plan depends on paths, sizes and
    digests alone.

    Returns {"files": [{"path", "bytes", "digest"}], "parts": [[shard, ...], ...]}, a shard being
    the list of its pieces {"path", "digest", "start", "end"} in bytes of the stored file.
    """
    if parts < 1 or shards_per_part < 1:
        raise ValueError("a plan has at least one part and one shard")
    ordered = sorted(files, key=lambda file: file.path)
    total = sum(file.bytes for file in ordered)
    count = parts * shards_per_part
    shards: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    begin = 0
    for file in ordered:
        for shard, start, end in _pieces(file, begin, total, count):
            piece = {"path": file.path, "digest": file.digest, "start": start, "end": end}
            shards[shard].append(piece)
        begin += file.bytes
    return {
        "files": [{"path": f.path, "bytes": f.bytes, "digest": f.digest} for f in ordered],
        "parts": [shards[i : i + shards_per_part] for i in range(0, count, shards_per_part)],
    }


def _pieces(file: SourceFile, begin: int, total: int, count: int) -> list[tuple[int, int, int]]:
    """(shard, start, end) of a file that begins at byte `begin` of all `total` bytes."""
    if not file.bytes:
        return []
    if file.compressed:
        return [((2 * begin + file.bytes) * count // (2 * total), 0, file.bytes)]
    pieces = []
    position = begin
    while position < begin + file.bytes:
        # Shard k holds the bytes [ceil(k * total / count), ceil((k + 1) * total / count)).
        shard = position * count // total
        end = min(-(-(shard + 1) * total // count), begin + file.bytes)
        pieces.append((shard, position - begin, end - begin))
        position = end
    return pieces

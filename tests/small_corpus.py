"""Corpora of a few rows: from files of rows to the documents in their shards."""

import json
from pathlib import Path

from nemoflow import tokens
from nemoflow.corpus import list_files
from nemoflow.indexed import IndexedReader
from nemoflow.plan import make_plan

SETTINGS = {
    "corpus": "web",
    "text_field": "text",
    "dtype": "uint16",
    "add_bos": False,
    "add_eos": True,
    "min_doc_chars": 0,
    "max_doc_tokens": None,
    "special_tokens": "keep",
    "splits": {"valid": 0.1, "test": 0.1},
    "seed": 42,
    "sample": None,
    "max_dropped": 0.01,
}


def texts(count):
    return [f"document {i} counts to {i * 7}." + " fox" * (i % 5) for i in range(count)]


def json_lines(values):
    return [json.dumps({"text": value}) for value in values]


def write(path, lines):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(line + "\n" for line in lines))


def planned(data, cache, parts=1, shards=1):
    """(source, plan) of a folder."""
    source = {"local": str(data)}
    return source, make_plan(list_files(source, Path(cache)), parts, shards)


def pieces_of(data, cache, cuts=()):
    """(source, pieces) of a folder, each plain or Parquet file cut at some bytes."""
    source = {"local": str(data)}
    pieces = []
    for file in list_files(source, Path(cache)):
        edges = sorted({0, file.bytes, *(cut for cut in cuts if cut < file.bytes)})
        edges = [0, file.bytes] if file.compressed else edges
        for start, end in zip(edges, edges[1:], strict=False):
            pieces.append({**vars(file), "start": start, "end": end})
    return source, pieces


def tokenized(data, tokenizer, out, cache, parts=1, shards=1, workers=1, **settings):
    """The joined counts of all parts of a folder's rows."""
    source, plan = planned(data, cache, parts, shards)
    settings = SETTINGS | {"source": source} | settings
    made = [
        tokens.tokenize_part(
            plan, part, tokenizer, out / f"{part:04d}", settings, cache, workers=workers
        )
        for part in range(parts)
    ]
    return tokens.join_parts(made, settings["corpus"])


def in_order(counts):
    """{split: documents as lists of ids} read back from the shards, in their order."""
    found = {"train": [], "valid": [], "test": []}
    for shard in counts["shards"]:
        reader = IndexedReader(shard["prefix"])
        assert (len(reader), len(reader.tokens)) == (shard["sequences"], shard["tokens"])
        found[shard["split"]] += [reader.document(i).tolist() for i in range(len(reader))]
    return found


def documents(counts):
    """The same, sorted."""
    return {split: sorted(ids) for split, ids in in_order(counts).items()}


def state(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}

"""Twelve bad inputs: each is named in one message, or counted with its reason, file and place."""

import gzip
import json
import os
import subprocess

import pyarrow
import pyarrow.parquet
import pytest

import token_jobs
from hub_server import Hub

GOOD = [json.dumps({"text": f"a row that is in order, number {i}"}).encode() for i in range(30)]
BAD = {
    "not_json": b'{"text": "cut',
    "missing_text": b'{"content": "under another name"}',
    "text_not_string": b'{"text": 4711}',
    "not_utf8": b'{"text": "caf\xe9"}',
    "lone_surrogate": rb'{"text": "half \ud83d of a pair"}',
}
NUL = rb'{"text": "before \u0000 after"}'


def lines(rows):
    return b"".join(row + b"\n" for row in rows)


@pytest.fixture
def work(tmp_path):
    """Makes the work on files {name: bytes} in a folder."""

    def make(content, **settings):
        (tmp_path / "rows").mkdir()
        for name, told in content.items():
            (tmp_path / "rows" / name).write_bytes(told)
        return token_jobs.TokenJob(tmp_path, {"local": "rows"}, **settings)

    return make


def refusal(work, command):
    """The one line with which a command stops; nothing is made, and nothing is left."""
    done = work.run(command)
    assert done.returncode == 1, done.stderr
    *before, last = done.stderr.splitlines()
    assert last.startswith("error: ") and not any("error" in line for line in before), done.stderr
    assert "Traceback" not in done.stderr and not (work.folder / work.output).exists()
    return last


def test_bad_rows_are_counted_by_reason_file_and_place(work):
    """Rows of five faults, a NUL, which is kept, and an empty file."""
    rows = lines([*GOOD, *BAD.values(), NUL])
    job = work({"bad.jsonl": rows, "empty.jsonl": b"", "good.jsonl": lines(GOOD)}, max_dropped=0.1)
    told = job.make()
    assert told["rows"] == {"in": 66, "kept": 61, "dropped": dict.fromkeys(sorted(BAD), 1)}
    assert told["noted"] == {"nul_character": 1}
    assert told["by_file"]["empty.jsonl"] == {"kept": [0, 0]}
    counts = told["by_file"]["bad.jsonl"]
    assert sum(size for _, size in counts.values()) == len(rows)
    assert told["bytes"]["in"] == len(rows) + len(lines(GOOD))
    for reason, row in BAD.items():
        assert counts[reason] == [1, len(row) + 1]
        assert told["first"][reason] == [f"bad.jsonl, byte {rows.index(row)}"]

    (job.folder / job.output).unlink()
    job.settings["max_dropped"] = 0.05
    said = refusal(job, job.tokens_command())
    assert "corpus web: 5 of 66 rows cannot be used: " in said and "corpora.web.max_dropped" in said
    for reason, row in BAD.items():
        assert f"1 {reason} (bad.jsonl, byte {rows.index(row)})" in said


def test_damaged_files_are_named(work):
    """A truncated gzip file, a truncated Parquet file, and one that changed after the plan."""
    packed, table = gzip.compress(lines(GOOD)), pyarrow.BufferOutputStream()
    texts = pyarrow.table({"text": [f"row {i}" for i in range(100)]})
    pyarrow.parquet.write_table(texts, table)
    whole = table.getvalue().to_pybytes()
    content = {"a.jsonl.gz": packed[:-9], "b.parquet": whole[:-9], "c.jsonl": lines(GOOD)}
    job = work(content)
    said = []
    for name in content:
        job.source = {"local": f"rows/{name}"}
        assert job.run(job.plan_command()).returncode == 0
        if name == "c.jsonl":
            (job.folder / "rows" / name).write_bytes(lines(reversed(GOOD)))
        said.append(refusal(job, job.tokens_command()))
    assert "a.jsonl.gz is not a whole gzip file: " in said[0] and "fetch it again" in said[0]
    assert "b.parquet is not a whole Parquet file: " in said[1] and "fetch it again" in said[1]
    assert "rows/c.jsonl has" in said[2] and "it was changed after the plan was made" in said[2]


def test_a_revision_that_does_not_exist_is_named(tmp_path, monkeypatch):
    hub = Hub()
    hub.add("lab/web", {"data/train.jsonl": lines(GOOD)})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    job = token_jobs.TokenJob(tmp_path, {"hub": "lab/web", "revision": "v9"})
    said = refusal(job, job.plan_command())
    assert "lab/web" in said and "v9" in said
    assert not (tmp_path / "data/plan.json").exists()


def test_a_full_disk_is_named_and_the_same_command_goes_on(work):
    rows = (json.dumps({"text": text}).encode() for text in token_jobs.texts(3_000_000))
    job = work({"a.jsonl": lines(rows)})
    assert job.run(job.plan_command()).returncode == 0
    job.payload.mkdir(parents=True)
    disk = str(job.payload)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk]
    if os.geteuid() != 0 or subprocess.call(mount) != 0:
        pytest.skip("only root can mount a small tmpfs, and not in every container")
    try:
        said = refusal(job, job.tokens_command())
        assert "no space left on the device" in said and "data/web/0000" in said
        assert list(job.payload.iterdir()) == []
        subprocess.check_call(["mount", "-o", "remount,size=100m", disk])
        done = job.run(job.tokens_command())
        assert done.returncode == 0 and job.left() == [], done.stderr
    finally:
        subprocess.check_call(["umount", disk])

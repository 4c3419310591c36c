"""Conversations of ten faults through render and pack: every row is packed, or counted by why."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet
import pytest

import small_encoders
import token_jobs
from nemoflow import files, manifest, specs
from small_chats import CHATML, REASONING, SETTINGS, assistant, tool, user

CALL = {"name": "now", "arguments": '{"zone": "UTC"'}
LONG = 40  # tokens of a packed row
GOOD = [
    {"messages": [user(f"{number}?"), assistant(f"{number}!")], "id": number, "score": 5}
    for number in range(40)
]
NULL_REASONING = {"messages": [user("a"), assistant("b", None), user("c"), assistant("d", "")]}
BAD = {  # by the reason for which render drops them
    "bad_tool_arguments": {"messages": [user("a"), assistant("", tool_calls=[CALL])]},
    "duplicate_id": {"messages": [user("a"), assistant("b")], "id": 7},
    "empty_messages": {"messages": []},
    "filter:score": {"messages": [user("a"), assistant("b")], "score": 4},
    "malformed_message": {"messages": [user("a"), {"role": "assistant"}]},
    "missing_messages": {"prompt": "a", "response": "b"},
    "tool_call_without_tools": {"messages": [user("a"), assistant("<tool_call>\n{}")]},
    "wrong_role_order": {"messages": [user("a"), tool("b"), assistant("c")]},
}
OVER_LONG = {"messages": [user("a"), assistant("b " * LONG)]}
NOTHING_LEFT = {"messages": [user("a " * LONG), assistant("b")]}  # once it is cut
SPOILED = {"null": NULL_REASONING, **BAD, "over_long": OVER_LONG, "nothing_left": NOTHING_LEFT}
ROWS = [*GOOD[:20], *({"id": why, "score": 5, **row} for why, row in SPOILED.items()), *GOOD[20:]]
FAULTS = sorted({*BAD} - {"filter:score"})


class Job:
    """render.py and pack.py on one file of conversations, in one folder."""

    rendered, packed = "data/rendered/mixed/chats.json", "data/packed/mixed.json"

    def __init__(self, folder):
        self.folder = folder
        small_encoders.chat(folder / "data/tok")
        told = {"stage": "tokenizer"}
        manifest.write(folder / "data/tok.json", told, vocabulary=500)

    def rows(self, rows, times=1):
        """Write the source."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / "chats.jsonl").write_text(text * times)

    def _command(self, stage, options, flags, **identity):
        told = {"stage": stage, "version": specs.VERSIONS[stage], **identity}
        spec = {"stage": stage, "run": None, "identity": told, "options": options}
        files.write_json(self.folder / f"{stage}.spec.json", spec)
        script = str(token_jobs.SCRIPTS / f"{stage}.py")
        return [sys.executable, script, "--spec", f"{stage}.spec.json", *flags]

    def render_command(self, max_dropped, workers=2):
        """The command line of render.py."""
        asked = SETTINGS | {"template": CHATML, "reasoning": REASONING | {"history": "keep"}}
        asked |= {"source": {"local": "chats.jsonl"}, "filters": {"score": {"min": 5}}}
        flags = ["--sources", "cache", "--tokenizer", "data/tok.json", "--output", self.rendered]
        flags += ["--workers", str(workers)]
        return self._command("render", {"max_dropped": max_dropped}, flags, **asked)

    def pack_command(self, **cut):
        """The command line of pack.py."""
        asked = {"pack_size": LONG, "pad_multiple": 1, "valid_fraction": 0.1, "seed": 1} | cut
        flags = ["--rendered", self.rendered, "--output", self.packed]
        return self._command("pack", {}, flags, weights={"chats": 1.0}, **asked)

    def run(self, command):
        """Run a command to its end."""
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def make(self, command, product):
        """The manifest that a command makes."""
        done = self.run(command)
        assert done.returncode == 0, done.stderr
        return files.read_json(self.folder / product)

    def stored(self):
        """Sequences in the packed files."""
        paths = sorted((self.folder / "data/packed/mixed").rglob("*.parquet"))
        tables = [pyarrow.parquet.read_table(path) for path in paths]
        return sum(map(len, (row for t in tables for row in t["seq_start_id"].to_pylist())))


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def refusal(job, command):
    """The one line with which a command stops; nothing is made, and nothing is left."""
    done = job.run(command)
    assert done.returncode == 1, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ") and "Traceback" not in done.stderr
    assert not (job.folder / job.rendered).exists()
    assert not (job.folder / job.rendered).with_suffix("").exists()
    return last


def test_rows_in_are_sequences_out_and_those_dropped(job):
    """A row has one sequence here; null reasoning is no fault."""
    job.rows(ROWS)
    said = refusal(job, job.render_command(max_dropped=0.1))
    assert f"{len(FAULTS)} of {len(ROWS)} rows cannot be used: " in said
    for why in FAULTS:
        line = 21 + [*SPOILED].index(why)
        assert f"1 {why} (first: chats.jsonl, line {line}" in said

    told = job.make(job.render_command(max_dropped=0.2), job.rendered)
    assert told["rows"]["dropped"] == dict.fromkeys(sorted(BAD), 1)
    assert told["rows"]["in"] == len(ROWS) == told["rows"]["kept"] + len(BAD)

    for too_long, dropped in (
        ("drop", {"too_long": 2}),
        ("truncate", {"trained_tokens_cut_off": 1}),
    ):
        packed = job.make(job.pack_command(too_long=too_long), job.packed)
        rows, sequences = (packed["sources"]["chats"][key] for key in ("rows", "sequences"))
        assert rows["in"] == told["rows"]["kept"] and rows["dropped"] == dropped
        assert sequences["cut"] == (too_long == "truncate")
        kept = rows["train"] + rows["valid"]
        assert sequences["train"] + sequences["valid"] == kept == job.stored()
        out_of = sum(told["rows"]["dropped"].values()) + sum(dropped.values())
        assert len(ROWS) == kept + out_of and rows["left_out"] == 0


def test_a_process_that_is_killed_leaves_no_product(job):
    """For want of memory, most often; one sentence says so, and the same command then works."""
    job.rows(GOOD[:1], times=300_000)
    command = job.render_command(max_dropped=1.0)
    said = job.folder / "said.txt"
    with said.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=job.folder, stdout=file, stderr=file, start_new_session=True
        )
    while len(workers := token_jobs.members(process.pid)) < 3 and process.poll() is None:
        time.sleep(0.02)
    workers.remove(process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    assert process.wait(120) == 1
    *_, last = said.read_text().splitlines()
    assert last.startswith("error: one of 2 processes was killed, most likely for want")
    assert "Traceback" not in said.read_text() and not (job.folder / job.rendered).exists()
    assert token_jobs.members(process.pid) == []
    job.rows(GOOD)
    assert job.make(command, job.rendered)["rows"]["kept"] == len(GOOD)

"""Asking another Python for Megatron-Bridge's own check; the answers are kept."""

import sys
from pathlib import Path

import pytest

from nemoflow import bridge
from nemoflow.errors import UserError

ITEM = {"key": "sft", "task": "sft", "config": {"a": 1}, "machine": {"nodes": 1}, "gpu": "b200"}
ANSWER = """
import json, sys
from pathlib import Path
with Path("asked").open("a") as told: told.write("x")
items = json.load(sys.stdin)
told = lambda item: [{"key": "sft.x", "message": item["gpu"]}]
print(json.dumps([{"key": item["key"], "problems": told(item)} for item in items]))
"""


@pytest.fixture
def python(tmp_path, monkeypatch):
    """A Python whose Megatron-Bridge is a short program."""
    monkeypatch.chdir(tmp_path)

    def make(program):
        Path("program.py").write_text(program)
        Path("python").write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path}/program.py\n")
        Path("python").chmod(0o755)
        return str(tmp_path / "python")

    return make


def test_an_answer_is_asked_for_once(python):
    found = bridge.problems([ITEM], python(ANSWER))
    assert found == {"sft": [{"key": "sft.x", "message": "b200"}]}
    assert bridge.problems([{**ITEM, "key": "other"}], str(Path("python").absolute())) == {
        "other": found["sft"]
    }
    assert Path("asked").read_text() == "x"
    bridge.problems([{**ITEM, "gpu": "h100"}], str(Path("python").absolute()))
    assert Path("asked").read_text() == "xx"


def test_a_check_that_cannot_run_is_told_and_not_kept(python):
    broken = python("raise SystemExit('no torch here')")
    with pytest.raises(UserError, match="own check did not run: .*: no torch here. Repair"):
        bridge.problems([ITEM], broken)
    assert not bridge.ANSWERS.exists()


def test_a_python_is_found_by_variable_or_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(bridge.PYTHON, "/nowhere")
    assert bridge.python() is None
    monkeypatch.setenv(bridge.PYTHON, sys.executable)
    assert bridge.python() == sys.executable
    monkeypatch.delenv(bridge.PYTHON)
    assert bridge.python() is None
    bridge.ENVIRONMENT.parent.mkdir(parents=True)
    bridge.ENVIRONMENT.touch()
    assert bridge.python() == str(bridge.ENVIRONMENT)

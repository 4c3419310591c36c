"""The file of a spec: written once, read back, refused by name."""

import pytest

from nemoflow import spec
from nemoflow.errors import UserError
from nemoflow.spec import Spec

MADE = Spec("sft", "tiny", {"stage": "sft", "version": 1, "lr": 0.1}, {"keep": 2})


def test_it_is_read_as_it_was_written(tmp_path):
    path = MADE.write(tmp_path)
    assert path.stem == MADE.name and spec.read(path, "sft") == MADE
    assert MADE.name.startswith("tiny-sft-")
    assert Spec("plan", None, {}, {}).name.startswith("plan-")


def test_it_is_written_once_and_again_when_an_option_changes(tmp_path):
    path = MADE.write(tmp_path)
    first = path.stat().st_mtime_ns
    MADE.write(tmp_path)
    assert path.stat().st_mtime_ns == first
    changed = Spec(MADE.stage, MADE.run, MADE.identity, {**MADE.options, "keep": 9})
    assert changed.write(tmp_path) == path and spec.read(path, "sft").options["keep"] == 9


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"stage": "sft"}', '{"identity": {}}'])
def test_what_is_no_spec_is_refused_by_name(tmp_path, content):
    path = tmp_path / "spec.json"
    with pytest.raises(UserError, match="there is no such spec"):
        spec.read(path, "sft")
    path.write_text(content)
    with pytest.raises(UserError, match="spec.json: not"):
        spec.read(path, "sft")


def test_it_is_of_one_stage_alone(tmp_path):
    with pytest.raises(UserError, match="a spec of sft, not of rl"):
        spec.read(MADE.write(tmp_path), "rl")


def test_the_last_step_is_where_the_config_ends_training():
    assert spec.last_step({"stop_iteration": 7, "iterations": 9}) == 7
    assert spec.last_step({"iterations": 9}) == 9 and spec.last_step({}) is None

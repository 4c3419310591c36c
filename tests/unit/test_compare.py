"""Two sides as a person names them, and what is said of them."""

import json
from pathlib import Path

import pytest

from nemoflow import compare, provenance
from nemoflow.alignment import Change
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from repository import commit_all
from small_results import Results, work_in


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def make(run="small", score=None, parent=None, **sft):
    """Results of a run whose SFT has these keys; `score` is that of sums after SFT."""

    class Tuned(Results):
        def put(self, path, identity, inputs=(), files=None, **facts):
            return super().put(path, told(identity, sft), inputs, files, **facts)

        def record(self, path, identity, inputs, **facts):
            return super().record(path, told(identity, sft), inputs, **facts)

    Tuned(run, parent).make()
    if score is not None:
        path = f"results/{run}/eval.json"
        content = read_json(path)
        content["stages"]["sft"]["sums"]["value"] = score
        write_json(path, content)
        record = read_json(provenance.BUILDS / f"{path}.json")
        provenance.record_build([path], record["identity"], record["inputs"], 0.0)


def told(identity, sft):
    return {**identity, **sft} if identity["stage"] == "sft" else identity


def said(a, b):
    return list(compare.lines(compare.compare(a, b)))


def verdicts(a, b):
    (found,) = compare.compare(a, b)
    return {(score.stage, score.task): score.verdict for score in found.scores}


def test_two_revisions_are_compared_in_every_run_that_both_have():
    make("one")
    make("two")
    commit_all()
    make("two", score=0.9, seed=7)
    make("three")
    commit_all()
    one, two = compare.compare("HEAD~1", "HEAD")
    assert (one.a.run, one.b.run, two.a.run, two.b.run) == ("one", "one", "two", "two")
    assert one.alignment.changes == [] and {s.verdict for s in one.scores} == {"same"}
    assert two.alignment.changes == [Change("sft.seed", None, 7)]
    lines = said("HEAD~1", "HEAD")
    assert lines[0].startswith("A  one in revision HEAD~1 (")
    assert "no key and no product differs" in lines and "  sft.seed: unset → 7" in lines


def test_a_revision_beside_a_run_is_that_run_there():
    make(score=0.2)
    commit_all()
    make(score=0.9, seed=7)
    for a, b in (("HEAD", "small"), ("HEAD:small", "small")):
        assert verdicts(a, b)["sft", "sums"] == "better"
        assert verdicts(b, a)["sft", "sums"] == "worse"
    make("other", score=0.9)
    assert verdicts("HEAD:small", "other")["sft", "sums"] == "better"
    with pytest.raises(
        UserError, match=r"other: revision HEAD \(\w{8}\) has no results/other/eval"
    ):
        compare.compare("HEAD", "other")


def test_a_child_is_compared_with_its_parent():
    make("base")
    make("child", parent="base", score=0.25)
    (found,) = compare.compare("base", "child")
    assert not found.alignment.changes and found.alignment.alone == ([], [])
    assert verdicts("base", "child")["sft", "sums"] == "better"  # 0.214 → 0.25 with 0.014


def test_a_change_within_noise_is_called_so_and_the_rule_is_told():
    make("a")
    make("b", score=0.23)
    assert verdicts("a", "b")["sft", "sums"] == "within noise"
    assert "items taken as independent" in said("a", "b")[-1]


def test_scores_of_one_side_alone_are_shown():
    make("a")
    Results("b", tasks=("sums", "words")).make()
    found = verdicts("a", "b")
    assert found["rl", "facts"] == "only A" and found["rl", "words"] == "only B"


def test_what_need_not_have_led_to_the_scores_is_told():
    make("a")
    make("b")
    path = "results/b/sft/checkpoint.json"
    write_json(path, {**read_json(path), "step": 1})
    (found,) = compare.compare("a", "b")
    doubt = "B: results/b/export/sft.json: was built from another results/b/sft/checkpoint.json"
    assert any(told.startswith(doubt) for told in found.doubts)
    missing = "A and B: results/data/plans/news.json: missing"
    assert missing in found.doubts and f"  {missing}" in said("a", "b")


def test_without_a_record_of_the_scores_nothing_is_said_of_what_led_to_them():
    make("a")
    make("b")
    (provenance.BUILDS / "results/b/eval.json.json").unlink()
    (found,) = compare.compare("a", "b")
    assert found.alignment.alone == ([], []) and not found.alignment.changes
    unknown = "provenance/builds/ does not tell from which config it was built"
    assert f"B: results/b/eval.json: {unknown}" in found.doubts


def test_unknown_names_are_told_with_the_nearest():
    make("small")
    Path("results/begun").mkdir()
    with pytest.raises(
        UserError, match=r"smal: no run with .* \(did you mean small\?\).*runs: small"
    ):
        compare.compare("small", "smal")
    with pytest.raises(UserError, match="no revision can be read here"):
        compare.compare("HEAD~1", "small")
    with pytest.raises(UserError, match="begun: the run has no results/begun/eval.json here"):
        compare.compare("small", "begun")
    commit_all()
    with pytest.raises(
        UserError, match=r"mian: git knows no such revision \(did you mean main\?\)"
    ):
        compare.compare("mian", "small")
    with pytest.raises(UserError, match=r"smal: revision main \(.*has no .* \(did you mean small"):
        compare.compare("main:smal", "small")
    Path("results/small/eval.json").unlink()
    commit_all()
    with pytest.raises(UserError, match="HEAD~1 and HEAD have no run"):
        compare.compare("HEAD~1", "HEAD")


def test_one_change_of_many_phases_is_one_line():
    names = [f"pretrain.phases.{name}.clip" for name in ("phase1", "phase2")]
    changes = [Change(name, 1.0, 2.0) for name in names] + [Change("rl.steps.a.clip", 1.0, 2.0)]
    changes += [Change("pretrain.phases.phase1.seed", 0, 1), Change("sft.text", "x" * 99, "x" * 98)]
    assert list(compare.folded(changes)) == [
        "pretrain.phases.{phase1,phase2}.clip: 1.0 → 2.0",
        "rl.steps.a.clip: 1.0 → 2.0",
        "pretrain.phases.phase1.seed: 0 → 1",
        "sft.text: one text → another that begins like it",
    ]


def test_the_document_has_what_the_text_has():
    make("a")
    make("b", score=0.9, seed=7)
    (text,) = compare.document(compare.compare("a", "b"))
    (told,) = json.loads(text)["comparisons"]
    assert told["changes"] == [{"key": "sft.seed", "before": None, "after": 7}]
    assert told["a"] == {"run": "a", "tree": "the working tree"}
    (sums,) = [s for s in told["scores"] if (s["stage"], s["task"]) == ("sft", "sums")]
    assert (sums["verdict"], round(sums["difference"], 3)) == ("better", 0.686)

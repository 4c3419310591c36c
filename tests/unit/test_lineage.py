"""The lineage of a product: each drawn once, who built it, and where the record does not hold."""

import json
import re
from pathlib import Path

import pytest

from nemoflow import lineage, provenance
from nemoflow.errors import UserError
from nemoflow.files import read_json, write_json
from nemoflow.revision import Revision, WorkingTree
from repository import commit_all
from small_results import Results, work_in

EVAL = "results/small/eval.json"
SFT = "results/small/sft/checkpoint.json"


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    Results().make()


def drawn(*targets, tree=None):
    return list(lineage.lines(list(targets or [EVAL]), tree or WorkingTree()))


def entries(*targets):
    (text,) = lineage.document(list(targets or [EVAL]), WorkingTree())
    return json.loads(text)


def built(path, **facts):
    """Change what the record says of how a product was built."""
    record = provenance.BUILDS / f"{path}.json"
    told = read_json(record)
    told["built"] |= facts
    write_json(record, told)


def test_every_product_is_drawn_once_and_referred_to_afterwards():
    lines = drawn()
    for path, entry in entries()["products"].items():
        own = [line for line in lines if f"{path} " in line and " (above)" not in line]
        assert len(own) == 1, path
        assert (entry["digest"] or "missing")[:8] in own[0]
    above = [line for line in lines if "(above)" in line]
    assert above and not any("c0ffee" in line for line in above)


def test_a_tree_is_indented_by_what_was_made_from_what():
    lines = drawn(SFT)
    assert lines[1].startswith(f"{SFT}  ")
    assert lines[2].startswith("├─ results/data/packed/small.json")
    assert lines[3].startswith("│  └─ results/data/rendered/small/chats.json")
    phase2 = next(i for i, line in enumerate(lines) if "phase2/checkpoint.json" in line)
    assert lines[phase2].startswith("└─ results/small/pretrain/phase2/checkpoint.json")
    assert lines[phase2 + 1].startswith("   ├─ ")


def test_when_where_and_by_what_stand_beside_a_product():
    built(SFT, started="2030-01-02T03:04:05Z", host="node7", seconds=7200, gpus=16, attempts=3)
    (line,) = [line for line in drawn(SFT) if line.startswith(SFT)]
    facts = ["2030-01-02 03:04", "node7", "c0ffee", "2:00 h in 3 attempts", "32.00"]
    assert re.split(" {2,}", line)[2:] == facts
    assert entries(SFT)["products"][SFT]["gpu_hours"] == 32.0


def test_totals_are_those_of_all_products():
    for path in entries()["products"]:
        if (provenance.BUILDS / f"{path}.json").exists():
            built(path, seconds=10, gpus=0)
    built(SFT, seconds=3600, gpus=8)
    told = entries()["totals"]
    assert told["seconds"] == 3600 + 10 * (told["recorded"] - 1) and told["gpu_hours"] == 8.0
    assert drawn()[-1].startswith(f"total: {told['products']} products, ")
    assert "8.00 GPU hours; without 3 whose builds are not recorded; 3 missing" in drawn()[-1]


def test_versions_are_told_once_and_others_by_name():
    built(SFT, versions={"python": "3.11.7", "torch": "2.12.0"})
    lines = drawn()
    assert lines.count("versions: python 3.11.7, torch 2.13.0") == 1
    assert f"  but {SFT}: torch 2.12.0" in lines


def test_a_product_built_from_another_input_than_stands_here_is_marked():
    assert not any("was built from another" in line for line in drawn())
    write_json(SFT, {**read_json(SFT), "step": 7})
    doubts = {path: e["doubts"] for path, e in entries()["products"].items() if e["doubts"]}
    assert doubts[SFT] == ["provenance/builds/ tells of another build than this file's"]
    export = doubts["results/small/export/sft.json"]
    assert export[0].startswith(f"was built from another {SFT} (")
    assert any(line.endswith(export[0]) for line in drawn())


def test_a_missing_product_is_marked_and_what_it_came_from_still_drawn():
    Path(SFT).unlink()
    lines = drawn("results/small/export/sft.json")
    (at,) = [i for i, line in enumerate(lines) if SFT in line]
    assert "missing" in lines[at] and any("packed/small.json" in line for line in lines[at:])
    Path("results/data/prompts/sums.json").unlink()
    (provenance.BUILDS / "results/data/prompts/sums.json.json").unlink()
    assert entries()["products"]["results/data/prompts/sums.json"]["doubts"] == ["missing"]


def test_source_files_are_named_and_many_are_counted():
    path = "results/data/rendered/small/chats.json"
    files = [
        {"path": f"chats-{i:04d}.jsonl", "bytes": 1000, "digest": f"sha256:{i:064d}"}
        for i in range(20)
    ]
    write_json(path, {**read_json(path), "source_files": files})
    lines = drawn(path)
    first = [line for line in lines if "└─ source chats-0000.jsonl (1.00kB)" in line]
    assert "00000000" in first[0]
    assert any("and 13 more source files (13.0kB)" in line for line in lines)
    assert entries(path)["products"][path]["sources"] == files


def test_a_revision_is_read_without_a_checkout():
    commit_all()
    before = drawn()
    for path in Path("results").rglob("*.json"):
        path.unlink()
    assert drawn(tree=Revision("HEAD")) == before
    assert "missing" in drawn()[1]


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("results/small/sft/curve.csv", SFT),
        ("results/small/sft/checkpoint", SFT),
        ("results/small/sft/checkpoint.dvc", SFT),
        ("./results/small/export/rlvr1", "results/small/export/rlvr1.json"),
    ],
)
def test_a_product_may_be_named_by_what_lies_beside_its_manifest(named, path):
    assert lineage.product_named(named, WorkingTree()) == path
    with pytest.raises(UserError, match="rl.rlvr9: there is no such product"):
        lineage.product_named("results/small/export/rl.rlvr9", WorkingTree())  # not rl.json


def test_an_unknown_product_is_told_with_the_nearest():
    with pytest.raises(UserError) as error:
        drawn("results/small/evel.json")
    assert (
        "there is no such product in the working tree (did you mean results/small/eval.json"
        in str(error.value)
    )
    for name in ("config/small.yaml", "nothing", "results/small"):
        with pytest.raises(UserError, match=f"{name}: there is no such product"):
            drawn(name)

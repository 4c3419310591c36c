"""What is known of a product: from its manifest, from its record, and where neither tells."""

import json
import re
from pathlib import Path

import pytest

from nemoflow import files, manifest, provenance
from nemoflow.products import PATHS, Product, job_of, trace
from small_results import Results, work_in

RULES = Path(__file__).parents[2] / "rules"
CORPUS = "results/data/tokens/small/web.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)


def test_the_paths_are_those_of_the_rules():
    text = "\n".join(path.read_text() for path in sorted(RULES.glob("*.smk")))
    blocks = re.findall(
        r'^rule (\w+):\n.*?output:\s+\w+=(temp\()?\n?\s*"([^"]*)"', text, re.M | re.S
    )
    made = {rule: path for rule, temporary, path in blocks if not temporary}
    assert {rule: path for rule, path in made.items() if path.endswith(".json")} == PATHS


def test_a_path_names_its_job():
    path = "results/a-b/eval/rl.rlvr1/mmlu.json"
    assert job_of(path) == ("eval_task", {"run": "a-b", "stage": "rl.rlvr1", "task": "mmlu"})
    assert job_of("results/a/eval.json") == ("eval", {"run": "a"})
    assert job_of("results/a/sft/curve.csv") == ("", {})
    for place in PATHS.values():
        named = dict.fromkeys(re.findall(r"\{(\w+)\}", place), "x1")
        assert PATHS[job_of(place.format(**named))[0]] == place


def make_corpus():
    """A corpus of two parts, which are gone; its manifest names them alone."""
    plan, tokenizer = "results/data/plans/web.json", "results/data/tokenizers/small.json"
    for path in (plan, tokenizer):
        manifest.write(path, {"stage": "x"})
    parts = [f"results/data/tokens/small/web.parts/000{i}.json" for i in range(2)]
    for i, part in enumerate(parts):
        manifest.write(part, {"stage": "tokens"}, [plan, tokenizer])
        provenance.record_build([part], {}, [plan, tokenizer], started=1000.0 + i)
    manifest.write(CORPUS, {"stage": "corpus"}, parts)
    provenance.record_build([CORPUS], {"stage": "corpus"}, parts, started=3000.0)
    for part in parts:
        Path(part).unlink()
    return plan, tokenizer


def test_a_corpus_comes_from_its_plan_and_tokenizer_and_took_what_its_parts_took(monkeypatch):
    monkeypatch.setattr(provenance.time, "time", lambda: 4000.0)
    plan, tokenizer = make_corpus()
    found = Product.at(CORPUS)
    assert found.inputs == {path: files.sha256_of(path) for path in (plan, tokenizer)}
    assert found.built["seconds"] == 3000 + 2999 + 1000
    assert found.built["started"] == "1970-01-01T00:16:40Z"  # the first part's
    assert not list(provenance.BUILDS.rglob("*.parts"))


def test_without_its_record_a_corpus_still_names_what_it_comes_from():
    plan, tokenizer = make_corpus()
    (provenance.BUILDS / f"{CORPUS}.json").unlink()
    assert Product.at(CORPUS).inputs == {plan: None, tokenizer: None}


def test_a_record_of_another_build_tells_nothing():
    path = "results/a/eval.json"
    files.write_json(path, {"run": "a"})
    provenance.record_build([path], {"stage": "eval"}, [path], started=0.0)
    assert Product.at(path).identity == {"stage": "eval"} and Product.at(path).inputs
    files.write_json(path, {"run": "a", "stages": {}})
    found = Product.at(path)
    assert found.identity is None and found.built == {} and not found.inputs
    assert found.foreign["identity"] == {"stage": "eval"}


def test_a_missing_product_is_known_from_its_record():
    path = "results/a/eval.json"
    assert not Product.at(path).known
    files.write_json(path, {"run": "a"})
    provenance.record_build([path], {"stage": "eval"}, [path], started=0.0)
    Path(path).unlink()
    found = Product.at(path)
    assert found.known and found.sha256 is None and found.identity and found.inputs


def test_digest_and_commit_are_told_short_and_gpu_hours_as_a_product():
    files.write_whole("results/a/export/rl/model", "weights")
    path = "results/a/export/rl.json"
    manifest.write(path, {"stage": "export"})
    assert f"{Product.at(path).digest}.dir" == json.loads(Path(path).read_text())["md5"]
    built = {"gpus": 16, "seconds": 900, "commit": "0123456789abcdef+"}
    product = Product(path, {}, {"built": built}, "ab")
    assert (product.gpu_hours, product.commit, product.digest) == (4.0, "01234567+", "ab")
    assert Product(path, {}, {}).gpu_hours == 0 and Product(path, {}, {}).commit == ""


def test_sources_are_files_and_what_was_fetched_is_the_place_that_the_config_names():
    listed = [{"path": "a.jsonl", "bytes": 3, "digest": "x"}]
    plan = Product("results/data/plans/a.json", {"files": listed}, {})
    rendered = Product("results/data/rendered/m/a.json", {"files": [], "source_files": listed}, {})
    assert plan.sources == rendered.sources == listed
    hub = {"identity": {"hub": "nvidia/x", "revision": "abc"}}
    fetched = Product("results/data/tokenizers/a.json", hub, {})
    assert fetched.sources == [{"path": "nvidia/x abc"}]
    fetched.content["pinned"] = {"revision": "c0ffee"}
    assert fetched.sources == [{"path": "nvidia/x c0ffee"}]
    imported = Product("results/a/init.json", {"identity": {"import": "/models/x"}}, {})
    assert imported.sources == [{"path": "/models/x"}]
    assert Product("results/a/sft/checkpoint.json", {"files": listed}, {}).sources == []


def test_everything_that_led_to_the_scores_is_found():
    eval_path, *_ = Results().make()
    found = trace([eval_path])
    assert "results/data/rendered/small/chats.json" in found
    assert "results/small/pretrain/phase1/blend.json" in found

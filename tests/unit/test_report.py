"""The page about a run: drawn from whatever is there, in one file that loads nothing."""

import re
import shutil
from pathlib import Path

import pytest

from nemoflow import manifest, report
from nemoflow.scores import Ladder
from small_results import EVIL, Results, work_in


@pytest.fixture
def results(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    return Results()


def text_of(page):
    """What a reader sees."""
    body = page.partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_a_full_page_has_the_numbers(results):
    page = text_of(report.render(*results.make()))
    for expected in (
        "sums rises: 0.000 after pretrain, 0.823 after rl.",
        "1 of 1 published score reproduced.",
        "0.214 ± 0.010",
        "100 → 200",  # phase2 continues phase1
        "news 3 42.9 % 42.9 % 42.9 % 8 6.4k 0.43",  # 3 of 7, of 6,400 tokens, 6,400 seen
        "Gaps, 20.0 % of the published mix: books 20.0 % (nobody may have them)",
        "news.json 12 9 3 too short",
        "2 no trained tokens, 40 left out by weight",
        "reward 0.059 → 0.786",
        "commit c0ffee",
        "torch 2.13.0",
        "seed: 7",
    ):
        assert expected in page


def test_nothing_is_loaded(results):
    page = report.render(*results.make())
    assert "http://" not in page and "https://" not in page and "//" not in page.replace("://", "")
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|url\((?!#)", page)
    assert not re.search(r"(src|href)=\"(?!#)", page)


def test_what_a_model_wrote_is_escaped(results):
    page = report.render(*results.make())
    assert EVIL not in page and "&lt;script&gt;" in page


def test_a_clone_without_bytes_and_records_has_a_page(results):
    arguments = results.make()
    shutil.rmtree("provenance")
    for path in Path("results").rglob("*"):
        if path.is_dir() and path.with_suffix(".json").exists():
            shutil.rmtree(path)
    page = text_of(report.render(*arguments))
    assert "sums rises" in page and "No record of who built this run" in page
    assert "Answers" not in page and "news – – 42.9 % 42.9 % 8 6.4k 0.43" in page


def test_a_page_without_curves(results):
    arguments = results.make()
    for path in Path("results").rglob("curve.csv"):
        path.unlink()
    assert "No curve.csv" in report.render(*arguments)


def test_only_what_is_finite_is_drawn(results):
    arguments = results.make()
    curve = Path("results/small/sft/curve.csv")
    curve.write_text("step,tokens,loss,valid_loss\n1,64,nan,\n2,128,2.5,inf\n")
    page = report.render(*arguments)
    assert not re.search(r"\b(nan|inf)\b", page) and "loss 2.500 → 2.500" in text_of(page)


def test_a_score_within_two_standard_errors_does_not_move():
    def ladder(value):
        scores = [{"value": at, "stderr": 0.05} for at in (0.25, value)]
        return Ladder("facts", list(zip(("pretrain", "rl"), scores, strict=True)))

    assert ladder(0.38).word == "does not move"
    assert ladder(0.40).word == "rises" and ladder(0.05).word == "falls"


def test_a_phase_that_counts_anew_is_drawn_behind_the_one_before(results):
    *_, checkpoints, _, _ = results.make()
    identity = {"stage": "pretrain", "init": "weights"}
    manifest.write(checkpoints[1], identity, [], step=200, tokens=12_800)
    stages = [
        report.Stage(name, report.Product.at(path))
        for name, path in zip(results.stages, checkpoints, strict=True)
    ]
    report.follow(stages)
    assert [stage.offset for stage in stages[:3]] == [0, 6400, 0]
    assert [stage.from_step for stage in stages[:3]] == [0, 0, 0]


def test_a_run_that_begins_with_an_imported_model(results):
    eval, _, checkpoints, packed, options = results.make()
    facts = {"format": "huggingface", "tensors": 9, "parameters": 1_280_000, "dtype": "bfloat16"}
    identity = {"stage": "import_model", "import": "models/base"}
    path = "results/small/init.json"
    imported = results.put(path, identity, files={"config.json": "{}"}, model=facts)
    manifest.write(checkpoints[2], {"stage": "sft"}, [packed, imported], step=100, tokens=6400)
    chain = options["chain"]
    page = report.render(
        eval, [], checkpoints[2:], packed, {**options, "chain": chain[2:]}, imported
    )
    text = text_of(page)
    assert "imported small models/base huggingface, 1.28M parameters, bfloat16 sft small" in text
    assert "Pretraining loss" not in text and "tokens of pretraining" not in text
    assert "imported 1.28M parameters" in text  # its box
    text = text_of(
        report.render(eval, [], checkpoints[3:], None, {**options, "chain": chain[3:]}, imported)
    )
    assert "packed rows" not in text and "reward 0.059" in text
    assert "models/base" in text_of(
        report.render(eval, [], [], None, {**options, "chain": []}, imported)
    )


def test_the_whole_recipe_stays_small(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    results = Results(
        phases=("phase1", "phase2", "long_context_1m", "long_context_mixed"),
        steps=("rlvr1", "rlvr2", "rlvr3", "swe1", "swe2", "rlhf"),
        corpora=[f"corpus-{number}" for number in range(30)],
        tasks=("mmlu", "hellaswag", "arc_challenge", "openbookqa", "winogrande"),
    )
    assert len(report.render(*results.make())) < 400_000


def test_every_product_is_told_with_digest_commit_and_cost(results):
    arguments = results.make()
    path = arguments[2][-1]
    results.record(path, {"stage": "rl"}, [], attempts=3, gpus=16, spent=3600.0 * 2)
    page = text_of(report.render(*arguments))
    digest = manifest.read(path)["md5"][:8]
    row = page.partition(f"{path} {digest}")[2].split("results/")[0]
    assert " c0ffee " in row and row.split()[-1] != "0.00"
    assert re.search(r"GPU hours \d", page.partition("Scores")[0])  # all jobs', at the top

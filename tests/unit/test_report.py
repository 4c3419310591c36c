"""The page about a run: drawn from whatever is there, in one file that loads nothing."""

import re
import shutil
from pathlib import Path

import pytest

from nemoflow import manifest, report
from nemoflow.files import read_json, write_json
from nemoflow.scores import Ladder
from small_browser import OVER_THE_EDGE, WIDTH, look_over
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
        "1 of 1 published score passed",
        "0.214 ± 0.010",
        "100 → 200",  # phase2 continues phase1
        "news 3 42.9 % 42.9 % 42.9 % 8 6.4k 0.43",  # 3 of 7, of 6,400 tokens, 6,400 seen
        "1 gap: 20.0 % of the published mix books 20.0 % nobody may have them",
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
    assert (
        "imported ✓ done small models/base huggingface, 1.28M parameters, bfloat16 sft ✓ done"
        in text
    )
    assert "Pretraining loss" not in text and "tokens of pretraining" not in text
    assert "imported 1.28M parameters" in text  # its box
    text = text_of(
        report.render(eval, [], checkpoints[3:], None, {**options, "chain": chain[3:]}, imported)
    )
    assert "packed rows" not in text and "reward 0.059" in text
    assert "models/base" in text_of(
        report.render(eval, [], [], None, {**options, "chain": []}, imported)
    )


def checked(results):
    """What checks of a run leave: verdicts on conversions, items found in training data."""
    told = {"names": "equal", "shapes": "equal", "values": "equal", "tensors": 155}
    told |= {"parameters": 1_287_424, "dtype": "float32"}
    compared = {"logits": {"cosine": 0.9999, "same_next_token": 1.0}, "verdict": "passed"}
    apart = {"logits": {"cosine": 0.31, "same_next_token": 0.5}, "verdict": "failed"}
    skipped = {"logits": {"skipped": "no GPU"}, "verdict": "passed"}
    adapters = {"adapters": {"max_difference": 4e-6, "allowed": 1e-5}}
    found = {"pretrain": compared | adapters, "sft": apart, "rl": skipped}
    for stage, more in found.items():
        write_json(f"results/small/parity/{stage}.json", told | more)
    write_json("results/small/parity/init.json", {"skipped": "as it came", "verdict": "passed"})
    example = {"item": 7, "where": "row 12", "words": EVIL}
    sums = {"items": 78, "short": 0, "found": 2, "documents": {"tokens/news": 3, "prompts/p": 0}}
    searched = {"tokens/news": {"documents": 8, "found": 2}}
    write_json(
        "results/small/contamination.json",
        {
            "data": searched,
            "tasks": {"sums": {**sums, "examples": [example]}},
            "unchecked": {"facts": "no source"},
        },
    )
    parity = [f"results/small/parity/{stage}.json" for stage in ("init", *found)]
    return None, parity, "results/small/contamination.json"


def averaged(results, merged):
    """An average of the last phase, evaluated; loss of the last checkpoint is 2."""
    last = results.checkpoints[1]
    path = "results/small/pretrain/phase2/merged/500b.json"
    loss = {"valid_loss": {"last": 2.0, "merged": merged}}
    results.put(path, {"stage": "merge"}, [last], {"a": "b"}, steps=[150, 175, 200], **loss)
    results.record("results/small/eval.json", {"stage": "eval"}, [path])


def test_what_failed_stands_at_the_top(results):
    arguments = results.make()
    scores = read_json(arguments[0])
    scores["stages"]["rl"]["sums"]["verdict"] = "failed"
    write_json(arguments[0], scores)
    averaged(results, 2.1)
    top, _, rest = text_of(report.render(*arguments, *checked(results))).partition(" Scores ")
    for expected in (
        "0 of 1 published score passed",
        "3 of 4 conversions passed",
        "2 of 78 evaluated items in training data",
        "Failed sums after rl is 0.823; published: 0.800 ± 0.050",
        "the conversion of sft failed",
        "the validation loss of average 500b is 5.0 % above the last checkpoint's",
        "training data hold 2 of the 78 items of sums",
        "logits of rl were not compared: no GPU",
        "news.json (25.0 %)",
        "dropped more than 1.0 % of its rows",
        "pretrain.phase1 lacks 20.0 % of its published mix: books",
        "was resumed",
    ):
        assert expected in top.replace("&#39;", "'")
    for expected in (
        "phase2, 500b validation loss, 3 checkpoints, steps 150 to 200",
        "merged 2.1000 +5.00 %",
        "merged 500b ✓ done small 3 averaged",
        "sums 78 2 2.6 % 3 tokens/news 3",
        "facts not searched for: no source",
        "pretrain passed 155 1.29M float32 equal equal equal 0.9999 100 % 4e-06",
        "imported passed – – – – – not compared",
    ):
        assert expected in rest


def test_a_run_with_nothing_to_tell_says_nothing(results):
    arguments = results.make()
    arguments[-1]["gaps"] = {}
    Path("provenance/builds/results/small/eval.json.json").unlink()
    assert "Failed" not in report.render(*arguments)


def test_the_page_in_a_browser(results, chromium):
    arguments = results.make()
    averaged(results, 2.1)
    page = Path("report.html")
    page.write_text(report.render(*arguments, *checked(results)))
    look_over(chromium, page)


def test_the_whole_recipe_stays_small(tmp_path, monkeypatch, chromium):
    work_in(tmp_path, monkeypatch)
    results = Results(
        phases=("phase1", "phase2", "long_context_1m", "long_context_mixed"),
        steps=("rlvr1", "rlvr2", "rlvr3", "swe1", "swe2", "rlhf"),
        corpora=[f"nemotron-cc-v2_1-medium-high-quality-{number}" for number in range(60)],
        tasks=[f"task_{number}" for number in range(30)],
    )
    arguments = results.make()
    arguments[-1]["config"]["model"] = {f"layer_{number}": "M" * 80 for number in range(500)}
    page = Path("report.html")
    page.write_text(report.render(*arguments))
    assert page.stat().st_size < 1_500_000
    opened = chromium.open(page, 360)
    assert opened.ask(WIDTH) == 360 and opened.ask(OVER_THE_EDGE) == []
    opened.close()


def test_every_product_is_told_with_digest_commit_and_cost(results):
    arguments = results.make()
    path = arguments[2][-1]
    results.record(path, {"stage": "rl"}, [], attempts=3, gpus=16, spent=3600.0 * 2)
    page = text_of(report.render(*arguments))
    digest = manifest.read(path)["md5"][:8]
    row = page.partition(f"{path} {digest}")[2].split("results/")[0]
    assert " c0ffee " in row and row.split()[-1] != "0.00"
    assert re.search(r"GPU hours \d", page.partition("Scores")[0])  # all jobs', at the top

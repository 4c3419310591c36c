"""What a reader must know before believing a run."""

from collections import Counter

from nemoflow import caveats
from nemoflow.caveats import Caveat
from nemoflow.products import Product
from nemoflow.scores import Ladder


def texts(found):
    return [caveat.text for caveat in found]


def score(value, metric="acc,none", **more):
    return {"metric": metric, "value": value, "stderr": 0.01, **more}


def test_a_score_that_is_not_the_published_one_is_named_first():
    failed = score(0.5, published=0.8, tolerance=0.03, verdict="failed")
    passed = score(0.8, published=0.8, tolerance=0.03, verdict="passed")
    ladders = [Ladder("mmlu", [("pretrain", failed)]), Ladder("arc", [("pretrain", passed)])]
    (found,) = caveats.of_scores(ladders)
    assert found.wrong and found.place == "scores"
    assert found.text == "mmlu after pretrain is 0.500; published: 0.800 ± 0.030"


def test_a_stage_that_loses_what_the_one_before_could():
    def told(was, now, metric="acc,none"):
        steps = [("sft", score(was, metric)), ("rl", score(now, metric))]
        return texts(caveats.of_scores([Ladder("facts", steps)]))

    assert told(0.9, 0.88) == [] and told(0.5, 0.9) == []
    expected = (
        "facts falls from 0.900 after sft to 0.500 after rl, by more than two standard errors"
    )
    assert told(0.9, 0.5) == [expected]
    assert told(9, 5, "word_perplexity,none") == []
    assert "rises from 5.000" in told(5, 9, "word_perplexity,none")[0]


def test_conversions_that_failed_and_those_that_nobody_compared():
    parity = {
        "pretrain": {"verdict": "passed", "logits": {"cosine": 1.0}},
        "sft": {"verdict": "failed", "logits": {"cosine": 0.4}},
        "rl": {"verdict": "passed", "logits": {"skipped": "no GPU"}},
        "init": {"verdict": "passed", "skipped": "it stays as it came"},
    }
    failed, no_gpu, unconverted = caveats.of_conversions(parity)
    assert failed == Caveat("the conversion of sft failed", "conversions", wrong=True)
    assert "logits of rl were not compared: no GPU" in no_gpu.text and not no_gpu.wrong
    assert "logits of init" in unconverted.text


def test_an_average_may_be_half_a_percent_worse():
    def average(merged):
        path = "results/small/pretrain/phase2/merged/500b.json"
        return Product(path, {"valid_loss": {"last": 2.0, "merged": merged}}, {})

    assert not list(caveats.of_averages([average(2.009), average(1.9)]))
    (found,) = caveats.of_averages([average(2.04)])
    assert found.wrong and "average 500b is 2.0 % above" in found.text
    assert not list(caveats.of_averages([Product("results/a/b/c/merged/d.json", {}, {})]))


def test_items_in_training_data_and_those_that_nobody_looked_for():
    tasks = {"sums": {"items": 1319, "found": 12}, "facts": {"items": 100, "found": 0}}
    found = list(caveats.of_contamination({"tasks": tasks, "unchecked": {"mmlu": "no source"}}))
    assert [caveat.wrong for caveat in found] == [False, True]
    assert found[1].text == "training data hold 12 of the 1,319 items of sums"
    assert "not searched for items of mmlu" in found[0].text
    (unasked,) = caveats.of_contamination(None)
    assert not unasked.wrong and "not searched" in unasked.text


def test_products_that_lost_rows_bytes_or_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = {"rows": {"in": 1000, "kept": 991, "dropped": {"short": 9}}}
    many = {"rows": {"in": 100, "kept": 88, "dropped": {"short": 7, "long": 5}}, "in_both": 3}
    products = [
        Product("results/data/tokens/t/few.json", few, {}, "0"),
        Product("results/data/prompts/many.json", many, {}, "0"),
        Product("results/data/packed/away.json", {"md5": "a.dir"}, {}, "0"),
        Product("results/r/sft/checkpoint.json", {}, {"built": {"attempts": 3}}, "0"),
        Product("results/r/export/gone.json", {}, {}),
        Product("results/r/eval.json", {}, {}, "0", foreign={"sha256": "1"}),
    ]
    assert texts(caveats.of_products(products)) == [
        "results/data/prompts/many.json (12.0 %) dropped more than 1.0 % of its rows",
        "results/data/prompts/many.json (3) has prompts in both splits",
        "results/r/export/gone.json is missing",
        "results/data/packed/away.json has its bytes elsewhere (dvc pull brings them)",
        "results/r/eval.json is recorded as another build than what lies here",
        "results/r/sft/checkpoint.json (2×) was resumed",
    ]


def test_many_of_a_kind_are_counted():
    (found,) = caveats.listed("is missing", list("abcde"), "products")
    assert found.text == "5 products: each is missing: a, b, c and 2 more"


def test_gaps_by_share_and_in_words():
    stages = {
        "pretrain.phase1": [("code", 0.14, "Internal."), ("crawl", 0.06, "Internal.")],
        "sft": [("disabled", 0.0, "Nothing is lost.")],
        "rl.rlhf": [("pairs", None, "Not published.")],
    }
    assert texts(caveats.of_gaps({"budget-sft": "No data."}, stages)) == [
        "pretrain.phase1 lacks 20.0 % of its published mix: code, crawl",
        "rl.rlhf lacks published data: pairs",
        "gap budget-sft: No data.",
    ]


def test_code_that_nobody_can_get_again():
    origin = {"commits": Counter({"ab12": 9, "cd34+": 2, "unknown": 1}), "versions": {}}
    assert texts(caveats.of_origin(origin)) == [
        "2 jobs ran with uncommitted changes",
        "1 job ran outside of git: nobody knows with which code",
    ]
    mixed = {"torch": ["2.12", "2.13"], "numpy": ["2.4"]}
    (found,) = caveats.of_origin({"commits": Counter(), "versions": mixed})
    assert found.text == "jobs ran with different versions of torch"

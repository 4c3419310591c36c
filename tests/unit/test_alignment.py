"""Two lineages side by side: what differs is named once, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemoflow.alignment import Change, align, links, role_of
from nemoflow.files import canonical
from nemoflow.products import Product
from small_lineage import Lineage

TRAINED = {
    "pretrain/phase1/checkpoint.json": "pretrain.phases.phase1",
    "pretrain/phase2/checkpoint.json": "pretrain.phases.phase2",
    "sft/checkpoint.json": "sft",
    "rl/rlvr1/checkpoint.json": "rl.steps.rlvr1",
    "rl/rlvr2/checkpoint.json": "rl.steps.rlvr2",
    "data/packed/mix.json": "mixtures.mix",
    "data/plans/news.json": "corpora.news",
    "data/tokenizers/tok.json": "tokenizers.tok",
}
CHANGED = st.dictionaries(st.sampled_from(sorted(TRAINED)), st.integers(1, 9))
OWNERS = st.sampled_from([
    {}, {"pretrain": "base"}, {"pretrain": "base", "sft": "base"}, {"pretrain": "x", "sft": "base"},
])  # fmt: skip


def compared(ours, theirs):
    return align(ours.products, theirs.products, ours.eval, theirs.eval)


def seeds(values):
    return {name: {"seed": seed} for name, seed in values.items()}


def own(path):
    """A path below its run."""
    parts = path.split("/")
    return "/".join(parts[1 if parts[1] == "data" else 2 :])


def made_from(lineage, names):
    """What the products of these names go into, themselves included."""
    found = {path for path in lineage.products if own(path) in names}
    for path, product in lineage.products.items():  # inputs stand before what they go into
        if found & set(product.inputs):
            found.add(path)
    return found


@given(CHANGED, OWNERS, OWNERS)
def test_just_the_changed_keys_are_named_whichever_run_holds_a_product(values, one, other):
    ours, theirs = Lineage("a", one), Lineage("b", other, seeds(values))
    found = compared(ours, theirs)
    assert {(c.key, c.before, c.after) for c in found.changes} == {
        (f"{TRAINED[name]}.seed", 0, seed) for name, seed in values.items()
    }
    assert found.rebuilt == {} and found.alone == ([], [])
    follow = made_from(theirs, set(values)) - {
        path for path in theirs.products if own(path) in values
    }
    assert set(found.follow) == follow and len(found.follow) == len(follow)


@given(CHANGED, CHANGED, OWNERS)
def test_the_other_way_round_is_the_reverse(values, others, owners):
    ours, theirs = Lineage("a", {}, seeds(values)), Lineage("b", owners, seeds(others))
    there, back = compared(ours, theirs), compared(theirs, ours)
    assert there.changes == [Change(c.key, c.after, c.before) for c in back.changes]
    assert {role_of(path) for path in there.follow} == {role_of(path) for path in back.follow}


@given(st.sets(st.sampled_from(sorted(TRAINED))))
def test_other_bytes_of_one_config_are_rebuilt_where_they_began_to_differ(names):
    ours, theirs = Lineage(), Lineage(noise=names)
    found = compared(ours, theirs)
    differ = made_from(theirs, names)
    first = {path for path in differ if not differ & set(theirs.products[path].inputs)}
    assert found.changes == []
    assert set(found.rebuilt) == first
    assert set(found.follow) == differ - first


def test_a_key_that_several_products_read_is_named_once():
    model = {"model": {"layers": 9}}
    names = ("pretrain/phase1/checkpoint.json", "sft/checkpoint.json", "rl/rlvr1/checkpoint.json")
    found = compared(Lineage(), Lineage(changed=dict.fromkeys(names, model)))
    assert found.changes == [Change("pretrain.model", None, {"layers": 9})]


def test_keys_come_in_the_order_of_the_pipeline():
    values = dict.fromkeys(("rl/rlvr2/checkpoint.json", "sft/checkpoint.json"), 3)
    values |= dict.fromkeys(("pretrain/phase2/checkpoint.json", "data/tokenizers/tok.json"), 3)
    values["pretrain/phase1/checkpoint.json"] = 3
    keys = [change.key for change in compared(Lineage(), Lineage(changed=seeds(values))).changes]
    assert keys == [
        "tokenizers.tok.seed", "pretrain.phases.phase1.seed", "pretrain.phases.phase2.seed",
        "sft.seed", "rl.steps.rlvr2.seed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        ({"mixture": "more"}, [("sft.mixture", "mix", "more")]),
        (
            {"prompts": "words"},
            [("rl.steps.rlvr1.prompts", "sums", "words"),
             ("rl.steps.rlvr2.prompts", "sums", "words")],
        ),
        (
            {"tokenizer": "own"},
            [("pretrain.tokenizer", "tok", "own"), ("mixtures.mix.tokenizer", "tok", "own")],
        ),
    ],
)  # fmt: skip
def test_another_name_alone_is_a_change(data, changes):
    found = compared(Lineage(), Lineage("b", **data))
    assert [(c.key, c.before, c.after) for c in found.changes] == changes
    assert not found.rebuilt and not found.follow and found.alone == ([], [])  # the bytes are equal


def test_data_of_another_name_are_compared_key_by_key_too():
    theirs = Lineage(mixture="more", changed={"data/packed/more.json": {"pack_size": 64}})
    assert [(c.key, c.before, c.after) for c in compared(Lineage(), theirs).changes] == [
        ("mixtures.more.pack_size", None, 64), ("sft.mixture", "mix", "more"),
    ]  # fmt: skip


def test_a_phase_in_between_does_not_shift_the_others():
    theirs = Lineage(
        phases=("phase1", "middle", "phase2"),
        changed=seeds({"pretrain/phase1/checkpoint.json": 5}),
    )
    found = compared(Lineage(), theirs)
    assert [(c.key, c.before, c.after) for c in found.changes] == [
        ("pretrain.phases.phase1.seed", 0, 5), ("pretrain.phases.phase2.after", "phase1", "middle"),
    ]  # fmt: skip
    assert found.alone == ([], ["results/a/pretrain/middle/checkpoint.json"])


def test_a_step_more_at_the_end_is_another_model_by_the_old_name():
    found = compared(Lineage(), Lineage("b", {"pretrain": "a"}, steps=("rlvr1", "rlvr2", "swe")))
    assert [(c.key, c.before, c.after) for c in found.changes] == [
        ("checkpoint exported as rl", "rl.rlvr2", "rl.swe"),
    ]  # fmt: skip
    assert found.alone == ([], ["results/b/rl/swe/checkpoint.json"])


def test_a_corpus_more_is_named():
    found = compared(Lineage(), Lineage(corpora=("code", "news", "web")))
    assert found.alone == ([], ["results/data/tokens/tok/web.json"])
    assert compared(Lineage(corpora=("code",)), Lineage()).alone[1] == [
        "results/data/tokens/tok/news.json"
    ]


def test_a_model_that_is_exported_twice_is_compared_with_the_one_there_is():
    """A child exports otherwise: its RL began at the parent's export, its score is its own's."""
    ours, theirs = Lineage("base"), Lineage("child", {"pretrain": "base", "sft": "base"})
    own_export = theirs.add(
        "results/child/export/sft.json", ["results/base/sft/checkpoint.json", theirs.tokenizer]
    )
    product = theirs.products[own_export]
    product.content["identity"]["dtype"] = "bfloat16"
    scores = theirs.products[theirs.eval].content["inputs"]
    scores[own_export] = scores.pop("results/base/export/sft.json")
    found = compared(ours, theirs)
    assert [(c.key, c.before, c.after) for c in found.changes] == [
        ("export.dtype", None, "bfloat16")
    ]


def test_what_was_built_from_another_input_than_stands_here_was_not_rebuilt():
    ours, theirs = Lineage(), Lineage(noise={"export/sft.json"})
    theirs.products["results/a/export/sft.json"].content["inputs"][
        "results/a/sft/checkpoint.json"
    ] = "another"
    found = compared(ours, theirs)
    assert found.rebuilt == {} and "results/a/export/sft.json" in found.follow


def test_a_raised_version_of_a_stage_is_a_change():
    found = compared(Lineage(), Lineage(changed={"sft/checkpoint.json": {"version": 2}}))
    assert found.changes == [Change("version of stage sft", 1, 2)]


def test_what_else_differs_between_two_builds_of_one_config_is_told():
    ours, theirs = Lineage(), Lineage(noise={"sft/checkpoint.json"})
    for lineage, torch in ((ours, "2.13"), (theirs, "2.14")):
        built = {"versions": {"torch": torch, "numpy": "2"}, "threads": 2, "host": "n1"}
        lineage.products["results/a/sft/checkpoint.json"].record["built"] = built
    found = compared(ours, theirs)
    assert found.rebuilt == {"results/a/sft/checkpoint.json": "torch 2.13 → 2.14"}


def test_source_files_that_changed_under_one_config_are_told():
    ours, theirs = Lineage(), Lineage(noise={"data/plans/news.json"})
    for lineage, digest in ((ours, "1"), (theirs, "2")):
        files = [{"path": "a", "digest": "1"}, {"path": "b", "digest": digest}]
        lineage.products["results/data/plans/news.json"].content["files"] = files
    found = compared(ours, theirs)
    assert found.rebuilt == {"results/data/plans/news.json": "source files differ (1, b first)"}
    assert "results/data/tokens/tok/news.json" in found.follow


def test_products_of_no_known_rule_are_compared_by_their_place():
    assert role_of("results/a/thing.json") == role_of("results/b/thing.json") == ("", "thing.json")
    assert len({canonical(role_of(path)) for path in Lineage().products}) == len(Lineage().products)


def test_adapters_and_the_model_that_they_belong_to_are_told_apart():
    made_from = ("sft/checkpoint", "pretrain/phase2/checkpoint")
    inputs = {f"results/a/{name}.json": "0" for name in made_from}
    content = {"identity": {"lora": {"rank": 8}}, "inputs": inputs}
    export = Product("results/a/export/sft.json", content, {})
    assert links(export, {"run": "a", "stage": "sft"}) == {
        "checkpoint exported as sft": "sft",
        "model that sft adapts": "pretrain.phase2",
    }
    sft = Product("results/a/sft/checkpoint.json", content, {})
    assert links(sft, {"run": "a"}) == {"phase before sft": "phase2"}

"""The mixture of a phase: asked for and drawn, by tokens and documents, epochs, gaps."""

import pytest

from nemoflow import manifest, specs
from nemoflow.blend import make_blend
from nemoflow.config import Config
from nemoflow.errors import UserError
from nemoflow.files import write_json
from nemoflow.mixture_table import Mixture, budget, lines

RUN = "micro"  # phase1: 24 iterations of 4 sequences of 64 tokens, phase2: 12 more
TOKENS = 24 * 4 * 64


def shard(corpus, split, documents, tokens, number=0):
    prefix = f"results/data/tokens/micro/{corpus}/0000/{split}_{number:05d}"
    return {"prefix": prefix, "split": split, "sequences": documents, "tokens": tokens}


def corpus(name, documents, tokens):
    """Two unequal shards of training, one of each other split."""
    return [
        shard(name, "train", documents // 4, tokens // 4),
        shard(name, "train", documents - documents // 4, tokens - tokens // 4, 1),
        shard(name, "valid", 2, 20),
        shard(name, "test", 1, 10),
    ]


def by_name(mixture):
    return {row.corpus: row for row in mixture.rows()}


def test_shares_documents_and_epochs():
    corpora = {"web": corpus("web", 100, 10_000), "math": corpus("math", 400, 8000)}
    weights = {"web": 3, "math": 1}
    rows = by_name(Mixture(weights, corpora, 40_000, make_blend(weights, corpora)["train"]))
    assert list(rows) == ["web", "math"]
    web, math = rows["web"], rows["math"]
    assert (web.asked, math.asked) == (0.75, 0.25)
    assert (web.drawn, math.drawn) == pytest.approx((0.75, 0.25))
    # Of each 100 tokens 75 are in documents of 100 tokens, 25 in documents of 20.
    assert (web.drawn_documents, math.drawn_documents) == pytest.approx((0.375, 0.625))
    assert (web.epochs, math.epochs) == pytest.approx((3.0, 1.25))
    assert (web.documents, web.tokens) == (100, {"train": 10_000, "valid": 20, "test": 10})
    assert by_name(Mixture(weights, corpora, 40_000)) == rows  # before there is a blend.json


def test_the_most_repeated_shard_counts():
    shards = [shard("theirs", "train", 1, 100) | {"weight": 0.5}]
    shards += [shard("theirs", "train", 10, 10_000, 1) | {"weight": 0.5}]
    (row,) = Mixture({"theirs": 1.0}, {"theirs": shards}, 2000).rows()
    assert row.epochs == pytest.approx(10) and row.repeated
    assert row.absent == ["valid", "test"]


def test_documents_may_be_several_sequences():
    shards = [shard("theirs", "train", 10, 100) | {"documents": 4}]
    (row,) = Mixture({"theirs": 1.0}, {"theirs": shards}, 100).rows()
    assert row.documents == 4


def test_what_is_not_built_is_not_known():
    corpora = {"web": corpus("web", 100, 10_000)}
    rows = by_name(Mixture({"web": 1, "math": 1, "law": 0}, corpora, 10_000))
    assert rows["web"].drawn == pytest.approx(0.5) and rows["web"].epochs == pytest.approx(0.5)
    assert rows["web"].drawn_documents is None
    assert rows["math"].asked == 0.5 and rows["math"].tokens is None
    assert rows["law"].asked == 0 and not rows["law"].absent


@pytest.fixture
def told(config_folder, monkeypatch):
    """The lines about a phase of the micro run, with some overrides."""
    monkeypatch.chdir(config_folder.parent)
    blend = config_folder / "blends/micro-phase1.yaml"
    gap = "gaps: {books: {weight: 0.25, why: nobody may have them}}\n"
    blend.write_text("weights: {micro-equations: 0.6, micro-facts: 0.4}\n" + gap)

    def told(phase="phase1", overrides=None):
        return "\n".join(lines(Config(config_folder, overrides=overrides), RUN, phase))

    return told


def build(folder, name, documents, tokens):
    """The manifest of a corpus that has been tokenized."""
    wildcards = {"tokenizer": "micro", "corpus": name}
    identity = specs.of(Config(folder), "corpus", wildcards).identity
    shards = corpus(name, documents, tokens)
    manifest.write(f"results/data/tokens/micro/{name}.json", identity, shards=shards)
    return shards


def test_before_anything_is_built(told):
    said = told()
    assert f"phase1 of micro: blend micro-phase1, {TOKENS:,} tokens to train on" in said
    assert "gaps, 20.0 % of the published mix: books 20.0 %" in said
    assert "2 of 2 corpora are not built; build them:" in said
    assert "snakemake --profile profiles/local results/micro/pretrain/phase1/blend.json" in said
    row = next(line for line in said.splitlines() if line.startswith("micro-facts"))
    assert row.split() == ["micro-facts", "0.4", "40.0", "%", "–", "–", "not", "built", *"––––"]


def test_a_source_that_is_repeated_is_seen_before_training(told, config_folder):
    small = build(config_folder, "micro-facts", 10, 400)
    large = build(config_folder, "micro-equations", 100, 10_000)
    corpora = {"micro-equations": large, "micro-facts": small}
    path = "results/micro/pretrain/phase1/blend.json"
    write_json(path, make_blend({"micro-equations": 0.6, "micro-facts": 0.4}, corpora))
    said = told()
    assert "! seen more than 4 times: micro-facts 6.1; give them more documents" in said
    row = next(line for line in said.splitlines() if line.startswith("micro-facts"))
    assert row.split()[-5:] == ["10", "400", "6.14!", "20.0", "10.0"]
    assert "not built" not in said and "made again" not in said


def test_what_is_out_of_date_is_named(told, config_folder):
    corpora = {
        name: build(config_folder, name, 100, 10_000) for name in ("micro-equations", "micro-facts")
    }
    path = "results/micro/pretrain/phase1/blend.json"
    write_json(path, make_blend({"micro-equations": 0.5, "micro-facts": 0.5}, corpora))
    assert f"{path} is of other weights or corpora, and will be made again" in told()
    said = told(overrides="corpora.micro-facts.text_field=body")
    assert "built from another config, to be made again: micro-facts" in said
    said = told(overrides="blends.micro-phase1.weights.micro-facts=0")
    assert "tokenized, not trained on (weight 0): micro-facts" in said


def test_a_phase_that_goes_on_has_the_rest_of_the_tokens(config):
    assert budget(config.run(RUN), "phase2") == 12 * 4 * 64
    assert budget(config.run("super3"), "long_context_1m") < budget(config.run("super3"), "phase2")


def test_there_is_no_such_phase(told):
    with pytest.raises(UserError, match="there is no stage pretrain.phase3; known: .*phase1"):
        told("phase3")

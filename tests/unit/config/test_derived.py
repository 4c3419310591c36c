"""Corpora that have no file: samples of others, and imported blends."""

import pytest

from nemoflow import specs
from nemoflow.config import Config, derived
from nemoflow.errors import UserError


@pytest.fixture
def config_of(config_folder):
    """The config with some files written into it, {path: text}."""

    def config(files=None, overrides=None):
        for path, text in (files or {}).items():
            (config_folder / path).write_text(text)
        return Config(config_folder, overrides=overrides)

    return config


def test_a_sample_is_the_corpus_cut_short(config_of):
    config = config_of(overrides="pretrain.sample=7")
    whole, sample = (config.data("corpora", f"micro-facts{end}") for end in ("", "-sample7"))
    assert (sample.sample, sample.parts, sample.shards_per_part) == (7, 1, 1)
    assert sample.source == whole.source and whole.parts == 2
    assert derived.weights(config, config.run("micro"), "phase1") == {
        "micro-equations-sample7": 0.6, "micro-facts-sample7": 0.4,
    }  # fmt: skip
    blend = specs.of(config, "blend", {"run": "micro", "phase": "phase1"})
    assert "micro-facts-sample7" in blend.identity["weights"]
    tokens = {"tokenizer": "micro", "corpus": "micro-facts-sample7"}
    assert specs.of(config, "tokens", {**tokens, "part": "0000"}).identity["sample"] == 7


@pytest.mark.parametrize(
    "name", ["micro-fact-sample7", "micro-facts-sample0", "micro-facts-samples"]
)
def test_other_names_are_no_samples(config_of, name):
    with pytest.raises(
        UserError, match=f"there is no corpora {name}|there is no corpus {name}|no .*{name}"
    ):
        config_of().data("corpora", name)


def test_an_imported_blend_is_a_corpus_of_its_name(config_of):
    config = config_of(
        {"blends/theirs.yaml": "import: old/blend.json\n"}, "pretrain.phases.phase2.blend=theirs"
    )
    assert derived.weights(config, config.run("micro"), "phase2") == {"theirs": 1.0}
    identity = specs.of(config, "corpus", {"tokenizer": "micro", "corpus": "theirs"}).identity
    assert identity["import"] == "old/blend.json" and identity["dtype"] == "int32"
    with pytest.raises(UserError, match="theirs is imported: it has neither plan nor parts"):
        specs.of(config, "plan", {"corpus": "theirs"})


@pytest.mark.parametrize(
    ("files", "overrides", "said"),
    [
        (
            {"blends/micro-phase1.yaml": "import: b.json\n"},
            "pretrain.sample=3",
            "pretrain.sample: micro-phase1-sample3: micro-phase1 is imported",
        ),
        (
            {"corpora/micro-facts.yaml": "import: shards\n"},
            "pretrain.sample=3",
            "pretrain.sample: micro-facts-sample3: micro-facts is imported",
        ),
        (
            {"blends/micro-facts.yaml": "import: b.json\n"},
            "pretrain.phases.phase1.blend=micro-facts",
            "becomes corpus micro-facts, but config/corpora/micro-facts.yaml is one already",
        ),
        (
            {"corpora/micro-facts.yaml": "import: shards\nparts: 2\n"},
            None,
            "an imported corpus has no parts",
        ),
        ({"corpora/micro-facts.yaml": "parts: 2\n"}, None, "say source and parts, or import alone"),
        (
            {"corpora/micro-facts.yaml": "source: {local: x}\nparts: 2\nsample: 5\n"},
            None,
            "a sample is of one piece",
        ),
        (
            {"blends/micro-phase1.yaml": "import: b.json\nweights: {micro-facts: 1}\n"},
            None,
            "say exactly one of weights, import",
        ),
    ],
)
def test_what_cannot_be(config_of, files, overrides, said):
    with pytest.raises(UserError) as error:
        config_of(files, overrides).run("micro")
    assert said in str(error.value)


def test_gaps_are_shares_of_the_published_mix(config_of):
    config = config_of()
    told = derived.gaps(config, config.run("super3"), "pretrain.phase1")
    gaps = {name: share for name, share, _ in told}
    assert gaps["code"] == pytest.approx(0.14) and sum(gaps.values()) == pytest.approx(0.196)
    assert derived.gaps(config, config.run("micro"), "pretrain.phase1") == []
    told = derived.gaps(config, config.run("super3"), "sft")
    assert sum(share for _, share, _ in told) == pytest.approx(47.5 / 105.8)
    (told,) = derived.gaps(config, config.run("nano3"), "rl.rlhf")
    assert told[:2] == ("nano3-rlhf", None)

"""What a mixture may say, and what it then asks of rows."""

import pytest

import small_config
from nemoflow import specs
from nemoflow.config import Config
from nemoflow.config.layers import Layered
from nemoflow.config.messages import validated
from nemoflow.config.mixture import Mixture
from nemoflow.errors import UserError
from nemoflow.filters import Filters

CHATS = {"source": {"local": "a"}, "weight": 1}
MIXTURE = {"tokenizer": "tiny", "template": "chatml", "pack_size": 8, "sources": {"chats": CHATS}}


def read(**change):
    told = {key: value for key, value in (MIXTURE | change).items() if value is not None}
    return validated(Mixture, Layered(told, {}), "config/mixtures/x.yaml")


def of_source(**change):
    return {"sources": {"chats": CHATS | change}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": None}, "say sources and template, or import alone"),
        ({"sources": None}, "say sources and template, or import alone"),
        ({"import": "a"}, "an imported mixture has no sources, template"),
        (of_source(weight=0), "every weight is 0: the mixture would be empty"),
        (of_source(weight=-1), "sources.chats.weight"),
        (of_source(filter={"a": 1}), "did you mean sources.chats.filters?"),
        (of_source(filters={"a": {"among": [1]}}), "sources.chats.filters.a"),
        (of_source(filters={"a": {}}), "say in, not_in, min or max"),
        (of_source(filters={"a": {"in": []}}), "sources.chats.filters.a"),
        (of_source(duplicates="no"), "'drop' or 'keep', not 'no'"),
        ({"too_long": "cut"}, "'truncate', 'drop' or 'split', not 'cut'"),
        ({"algorithm": "best"}, "'best_fit', 'first_fit_shuffle' or 'concatenative', not 'best'"),
        ({"reasoning": {"of": 0.1}}, "did you mean reasoning.off?"),
        ({"reasoning": {"off": 1.5}}, "reasoning.off"),
        ({"reasoning": {"off": 0.5, "low_effort": 0.6}}, "shares of one whole: at most 1"),
        ({"reasoning": {"budget": {"share": 0.1, "tokens": [9, 8]}}}, "the smaller number comes"),
        ({"reasoning": {"budget": {"tokens": [8, 9]}}}, "reasoning.budget.share is missing"),
        ({"reasoning": {"budget": {"share": 0.1, "tokens": [0, 9]}}}, "reasoning.budget.tokens.0"),
        (of_source(reasoning={"history": "all"}), "sources.chats.reasoning.history"),
    ],
)
def test_what_a_mixture_may_not_say(change, said):
    with pytest.raises(UserError) as error:
        read(**change)
    assert said in str(error.value)


MINE = """
tokenizer: tiny
template: chatml
pack_size: 64
reasoning: {off: 0.1}
sources:
  own:
    source: {local: a.jsonl}
    weight: 1
    filters:
      meta.score: {min: 3, max: 5}
      lang: [en, de]
      kind: {not_in: [spam]}
      year: {in: [2024]}
      ok: true
    reasoning: {budget: {share: 0.5}}
  other: {source: {local: b.jsonl}, weight: 1, messages_field: data.turns}
"""
ROW = {"meta": {"score": 4}, "lang": "de", "kind": "chat", "year": 2024, "ok": True}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What is asked of the rows of each source."""
    folder = small_config.make(tmp_path_factory.mktemp("config"))
    (folder / "mixtures/mine.yaml").write_text(MINE)
    config = Config(folder)
    return {
        source: specs.of(config, "render", {"mixture": "mine", "source": source}).identity
        for source in ("own", "other")
    }


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({}, None),
        ({"meta": {"score": 6}}, "filter:meta.score"),
        ({"lang": "fr"}, "filter:lang"),
        ({"kind": "spam"}, "filter:kind"),
        ({"year": 2023}, "filter:year"),
        ({"ok": 1}, "filter:ok"),
    ],
)
def test_conditions_reach_the_rows(asked, change, refusal):
    assert Filters(None, asked["own"]["filters"]).refusal(ROW | change) == refusal


def test_reasoning_of_a_source_stands_before_the_mixtures(asked):
    own, other = (asked[source]["reasoning"] for source in ("own", "other"))
    assert own["off"] == 0.0 and own["budget"] == {"share": 0.5, "tokens": [256, 8192]}
    assert other == {"off": 0.1, "low_effort": 0.0, "history": "drop"}
    assert asked["other"]["messages_field"] == "data.turns"

"""What pydantic finds becomes one line per problem: place, key, what is wrong, what to do."""

import pytest

from nemoflow.config.data import Mixture, Prompts, Source
from nemoflow.config.layers import Layered
from nemoflow.config.messages import nearest, validated
from nemoflow.config.training import Batch, Schedule
from nemoflow.errors import UserError

SCHEDULE = {"style": "wsd", "peak": 1.0, "floor": 0.0, "warmup_iterations": 1, "end_iteration": 9}
MIXTURE = {
    "tokenizer": "tiny",
    "template": "chatml",
    "pack_size": 8,
    "sources": {"chats": {"source": {"local": "a"}, "weight": 1}},
}


def said(model, value, origin=None):
    with pytest.raises(UserError) as error:
        validated(model, Layered(value, origin or {}), "config/x.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "base", "change", "expected"),
    [
        (Schedule, SCHEDULE, {"peek": 1}, "peek is not a setting; did you mean peak?"),
        (Schedule, SCHEDULE, {"zzzz": 1}, "zzzz is not a setting; known here: decay_iterations, "),
        (Schedule, SCHEDULE, {"peak": "1e-3"}, "peak must be a number, not '1e-3'"),
        (Schedule, SCHEDULE, {"peak": True}, "peak must be a number, not True"),
        (
            Schedule,
            SCHEDULE,
            {"end_iteration": 9.5},
            "end_iteration must be a whole number, not 9.5",
        ),
        (Schedule, SCHEDULE, {"end_iteration": True}, "end_iteration must be a whole number"),
        (Schedule, SCHEDULE, {"peak": float("nan")}, "peak must be a finite number"),
        (Schedule, SCHEDULE, {"peak": -1.0}, "peak: input should be greater than or equal to 0"),
        (Schedule, SCHEDULE, {"style": "wds"}, "'wsd', 'constant' or 'cosine', not 'wds'"),
        (Schedule, SCHEDULE, {"floor": 2.0}, "floor (2.0) is above peak (1.0)"),
        (Batch, {"micro": 1, "sequence": 1}, {}, "global is missing; set it"),
        (Batch, {"global": 1, "sequence": 1}, {"mikro": 1}, "did you mean micro?"),
        (Batch, {"micro": 1, "sequence": 1}, {"global_size": 1}, "did you mean global?"),
        (Mixture, MIXTURE, {"sources": []}, "sources must be a mapping of keys, not []"),
        (Mixture, MIXTURE, {"gaps": {"a": {"weight": 1, "wy": "b"}}}, "did you mean gaps.a.why?"),
        (Mixture, MIXTURE, {"sources": {"Chats": MIXTURE["sources"]["chats"]}}, "sources.Chats"),
        (Prompts, {}, {"sources": [{"buildin": "x"}]}, "did you mean sources.0.builtin?"),
        (Prompts, {}, {"sources": {}}, "sources must be a list"),
        (Source, {}, {"local": "a", "seed": 1}, "a local source has no seed"),
        (Source, {}, {"local": "a", "hub": "b"}, "say exactly one of builtin, local, hub, url"),
        (Source, {}, {"url": "/data"}, "an address begins with s3:// or the like; else say local"),
        (Source, {}, {"url": "s3://me:secret@lake/a"}, "no user or password in an address"),
        (Source, {}, {"url": "hf://datasets/o/n"}, "say hub, which pins the revision"),
        (Source, {}, {"url": "s3://lake/a", "split": "train"}, "a url source has no split"),
        (Source, {}, {"builtin": "facts"}, "a built-in source needs seed and count"),
    ],
)
def test_a_problem_is_told_in_words(model, base, change, expected):
    assert expected in said(model, {**base, **change})


def test_every_problem_has_a_line_of_its_own_with_its_place():
    origin = {("peak",): "config/x.yaml:4", ("micro",): "config/x.yaml:9"}
    lines = said(Schedule, {**SCHEDULE, "peak": "a", "floor": "b"}, origin).splitlines()
    assert lines == [
        "config/x.yaml:4: peak must be a number, not 'a'",
        "the config: floor must be a number, not 'b'",
    ]


def test_whole_numbers_may_be_written_with_a_point_and_reals_without():
    written = validated(Schedule, Layered({**SCHEDULE, "peak": 1, "end_iteration": 9.0}), "x")
    assert written == validated(Schedule, Layered(SCHEDULE), "x")
    assert type(written.end_iteration) is int and type(written.peak) is float


def test_an_unknown_name_gets_the_nearest_and_the_list():
    assert nearest("run", "super4", ["super3", "nano3"]) == (
        "there is no run super4; did you mean super3? Known: nano3, super3"
    )
    assert nearest("run", "x", []) == "there is no run x. Known: none"

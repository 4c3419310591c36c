"""Which rows are asked for."""

import pytest

from nemoflow.filters import MISSING, Filters, field

ROW = {
    "id": 7,
    "meta": {"score": 4.5, "tags": ["math", "hard"], "ok": True, "none": None},
    "turns": [{"from": "a"}, {"from": "b"}],
    "with.dot": {"x": 1},
    "meta.score": 9,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 7),
        ("meta.tags", ["math", "hard"]),
        ("meta.tags.1", "hard"),
        ("turns.1.from", "b"),
        ("with.dot", {"x": 1}),
        ("meta.score", 9),  # a name with a dot is found before one inside of another
        ("meta.none", None),
        ("meta.none.x", MISSING),
        ("meta.tags.2", MISSING),
        ("meta.tags.-1", MISSING),
        ("id.x", MISSING),
        ("nothing", MISSING),
    ],
)
def test_fields_by_their_dotted_names(name, value):
    assert field(ROW, name) is value if value is MISSING else field(ROW, name) == value
    assert field([1], "x") is MISSING


@pytest.mark.parametrize(
    ("condition", "stays"),
    [
        ("math", True),
        ("easy", False),
        (["easy", "hard"], True),
        ({"in": ["easy", "math"]}, True),
        ({"not_in": ["hard"]}, False),
        ({"not_in": ["easy"]}, True),
        ({"in": ["math"], "not_in": ["hard"]}, False),
        ({"min": 1}, False),  # a list is no number
    ],
)
def test_of_a_list_any_element_counts(condition, stays):
    refusal = Filters(None, {"meta.tags": condition}).refusal(ROW)
    assert refusal == (None if stays else "filter:meta.tags")


@pytest.mark.parametrize(
    ("value", "condition", "stays"),
    [
        (5, {"min": 5, "max": 5}, True),
        (5, {"min": 5.5}, False),
        (5.5, {"max": 5}, False),
        (float("nan"), {"min": 0}, False),
        ("5", {"min": 0}, False),
        (True, {"min": 0}, False),
        (True, True, True),
        (1, True, False),
        (True, 1, False),
        (1.0, 1, True),
        (0, [1, 0], True),
        ("", "", True),
        (None, {"not_in": ["a"]}, False),  # a row without the field goes
    ],
)
def test_values_of_a_field(value, condition, stays):
    assert (Filters(None, {"a": condition}).refusal({"a": value}) is None) == stays


def test_the_first_condition_that_fails_is_told():
    asked = Filters("v3", {"a": 1, "b": {"min": 2}})
    assert asked.refusal({"a": 0, "b": 0}) == "used_in"
    assert asked.refusal({"used_in": ["v3"], "a": 0, "b": 0}) == "filter:a"
    assert asked.refusal({"used_in": ["v3"], "a": 1, "b": 0}) == "filter:b"
    assert asked.refusal({"used_in": ["v3"], "a": 1, "b": 2}) is None
    assert asked.refusal({"used_in": ["v3"], "a": 1}) == "filter:b"
    assert Filters(None, None).refusal({}) is None


@pytest.mark.parametrize(
    ("used_in", "kept"),
    [
        (["v2", "v3"], True),
        ("v3", True),
        ("v2, v3", True),
        ("v31", False),
        (None, False),
        ([], False),
        ({"v3": 1}, False),
        (3, False),
    ],
)
def test_used_in(used_in, kept):
    assert Filters("v3", None).refusal({"used_in": used_in}) == (None if kept else "used_in")
    assert Filters("v3", None).refusal({}) == "used_in"

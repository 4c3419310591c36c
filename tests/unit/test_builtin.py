"""Built-in sources are pure functions, and no training source shows a held-out problem."""

import re
from itertools import product

import pytest

from nemoflow import builtin
from nemoflow.errors import UserError

HELD_OUT = {f"{a}+{b}" for a, b in product(range(100), repeat=2) if builtin.is_held_out(a, b)}


@pytest.mark.parametrize("name", builtin.NAMES)
def test_equal_arguments_give_equal_rows_and_more_continue_them(name):
    rows = list(builtin.rows(name, 3, 20))
    assert len(rows) == 20
    assert rows == list(builtin.rows(name, 3, 30))[:20]
    assert rows != list(builtin.rows(name, 4, 20))


@pytest.mark.parametrize("name", sorted(set(builtin.NAMES) - {"python_library"}))
def test_no_training_source_shows_a_held_out_problem(name):
    shown = re.findall(r"\d+\+\d+", str(list(builtin.rows(name, 0, 2000))))
    assert not HELD_OUT.intersection(shown)


def test_validation_problems_are_the_held_out_ones_alone():
    rows = list(builtin.rows("problems", 0, 78, "validation"))
    asked = {re.search(r"\d+\+\d+", row["question"])[0] for row in rows}
    assert asked <= HELD_OUT
    assert len({row["question"] for row in rows}) == 78
    assert {row["expected_answer"] for row in rows} == {
        str(sum(map(int, problem.split("+")))) for problem in asked
    }


def test_every_training_problem_once_a_round():
    count = 2 * len(builtin.problems_below(builtin.SMALL_OPERANDS, held_out=False))
    asked = [row["question"] for row in builtin.rows("small_problems", 0, count)]
    assert len(set(asked)) == count


def test_facts_have_one_right_choice_of_four():
    rows = list(builtin.rows("fact_choices", 0, 70, "validation"))
    assert len({row["stem"] for row in rows}) == 70
    sentences = " ".join(row["text"] for row in builtin.rows("facts", 0, 500))
    for row in rows:
        assert len(set(row["choices"])) == 4
        right = row["choices"][row["label"]]
        assert f"{row['stem']} {right}." in sentences
        wrong = set(row["choices"]) - {right}
        assert not any(f"{row['stem']} {choice}." in sentences for choice in wrong)


def test_library_pieces_are_whole_lines_of_bounded_size():
    pieces = [row["text"] for row in builtin.rows("python_library", 0, 100)]
    assert all(150 < len(piece) <= 600 for piece in pieces)
    assert any('"""' in piece for piece in pieces)


def test_unknown_names_are_user_errors():
    with pytest.raises(UserError, match="there are"):
        builtin.rows("wikipedia", 0, 1)
    with pytest.raises(UserError, match="split"):
        builtin.rows("facts", 0, 1, "test")

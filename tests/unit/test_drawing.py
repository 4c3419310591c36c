"""Geometry of charts."""

import pytest

from nemoflow.drawing import (
    MOST_POINTS,
    Line,
    chart,
    duration,
    labelled,
    short,
    span,
    thinned,
    ticks,
)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1_234_567, "1.23M"),
        (999_999, "1M"),
        (999, "999"),
        (25e12, "25T"),
        (0.0003, "0.0003"),
        (0, "0"),
    ],
)
def test_short_numbers(number, text):
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.25, "5.2 s"), (75.2, "1:15 min"), (3720, "1:02 h"), (200_000, "2 d 7 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_ticks_are_round_and_within():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.13, 0.61, 5) == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])


def test_an_axis_shows_every_value_and_zero_where_it_is_near():
    assert span([0.5, 5]) == (0, pytest.approx(5.27))
    assert span([4, 5])[0] == pytest.approx(3.94)
    assert span([0, 0]) == (0, 1) and span([3, 3]) == (0, 6) and span([-1, -1]) == (-2, 1)


def test_points_stand_where_the_axes_say():
    drawn = chart([Line("loss", "loss", [[(0, 0), (10, 4)]])], y_range=(0, 4))
    axes = drawn.axes
    assert drawn.paths == [
        ("loss", f"M{axes.across(0)} {axes.down(0)}L{axes.across(10)} {axes.down(4)}")
    ]
    assert (axes.across(10), axes.down(4)) == (axes.right, axes.top)


def test_the_mean_of_a_noisy_line_does_not_reach_over_its_parts():
    low, high = ([(x, y) for x in range(first, first + 50)] for first, y in ((0, 1), (50, 3)))
    assert {y for _, y in Line("reward", "reward", [low, high]).means} == {1, 3}


def test_a_noisy_line_is_drawn_faint_with_its_mean_over_it():
    drawn = chart([Line("loss", "loss", [[(x, x % 2) for x in range(100)]])])
    assert [style for style, _ in drawn.paths] == ["loss faint", "loss"] and not drawn.dots


def test_labels_that_would_overlap_are_left_out():
    marks = [(40, "phase1"), (300, "phase2"), (310, "long"), (440, "far too long")]
    assert [label for _, label in labelled(marks, 460)] == ["phase1", "phase2", "", ""]


def test_long_lines_are_thinned_and_keep_both_ends():
    points = [(x, x) for x in range(2000)]
    assert len(thinned(points)) == MOST_POINTS
    assert (thinned(points)[0], thinned(points)[-1]) == (points[0], points[-1])


def test_nothing_to_draw():
    assert chart([Line("loss", "loss", [[]])]) is None
    assert chart([Line("loss", "loss", [[(0, 0)]])]).x_ticks

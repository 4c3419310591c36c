"""Geometry of the report's charts: numbers in, SVG coordinates out; a template draws them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Points = list[tuple[float, float]]
MOST_POINTS = 300  # of a line; more are not seen
SMOOTHED = 40  # lines with more points than this are drawn faint, with their mean over them
MARKED = 30  # lines with fewer points than this show each of them


def short(number: float) -> str:
    """1234567 as 1.23M."""
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            return f"{number / limit:.3g}{letter}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """75.2 as 1:15 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@dataclass(frozen=True)
class Line:
    """A series to draw; `style` is its class in the page's style sheet."""

    name: str
    style: str
    points: Points

    @property
    def last(self) -> float:
        """The value it ends with."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Axes:
    """From values to places: what two axes show, and their frame in SVG units."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: float
    top: float
    right: float
    bottom: float

    def across(self, x: float) -> float:
        """The place of a value of the horizontal axis."""
        first, last = self.x_range
        return round(self.left + (x - first) / (last - first) * (self.right - self.left), 1)

    def down(self, y: float) -> float:
        """The place of a value of the vertical axis."""
        low, high = self.y_range
        return round(self.bottom - (y - low) / (high - low) * (self.bottom - self.top), 1)

    def path(self, points: Points) -> str:
        """The SVG path through points."""
        return "M" + "L".join(f"{self.across(x)} {self.down(y)}" for x, y in thinned(points))


@dataclass(frozen=True)
class Chart:
    """A drawn chart in SVG units.

    Ticks are (place, label); `paths` are (style, d), faint ones first; `dots` are (style, x, y);
    `marks` are vertical lines (x, label), where a phase or step begins.
    """

    width: float
    height: float
    axes: Axes
    lines: list[Line]
    x_name: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[tuple[str, str]]
    dots: list[tuple[str, float, float]]
    marks: list[tuple[float, str]]


def chart(
    lines: Sequence[Line],
    x_name: str,
    size: tuple[float, float] = (460, 230),
    marks: Sequence[tuple[float, str]] = (),
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
) -> Chart | None:
    """Draw lines over common axes; None where there is no point to draw.

    Ranges follow from the points where they are not given.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    width, height = size
    first, last = x_range or reach(x for line in lines for x, _ in line.points)
    axes = Axes(
        (first, last if last > first else first + 1),
        y_range or span(y for line in lines for _, y in line.points),
        *(42, 20 if marks else 8, width - 8, height - 22),
    )
    noisy = [line for line in lines if len(line.points) > SMOOTHED]
    means = [smoothed(line.points) if line in noisy else line.points for line in lines]
    sparse = [line for line in lines if len(line.points) < MARKED]
    return Chart(
        width,
        height,
        axes,
        lines,
        x_name,
        [(axes.across(x), short(x)) for x in ticks(*axes.x_range, int(width / 75))],
        [(axes.down(y), short(y)) for y in ticks(*axes.y_range, int(height / 45))],
        [(f"{line.style} faint", axes.path(line.points)) for line in noisy]
        + [(line.style, axes.path(mean)) for line, mean in zip(lines, means, strict=True)],
        [(line.style, axes.across(x), axes.down(y)) for line in sparse for x, y in line.points],
        [(axes.across(x), label) for x, label in marks],
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low .. high, at most about `about` of them."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if rough <= power * times * 1.0001)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def reach(values: Iterable[float]) -> tuple[float, float]:
    """The least and the greatest."""
    values = list(values)
    return min(values), max(values)


def span(values: Iterable[float]) -> tuple[float, float]:
    """The range of an axis that shows all values, with some room around them."""
    low, high = reach(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def thinned(points: Points) -> Points:
    """At most `MOST_POINTS` of them, both ends among them."""
    if len(points) <= MOST_POINTS:
        return points
    stride = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * stride)] for place in range(MOST_POINTS)]


def smoothed(points: Points) -> Points:
    """The running mean over about a twentieth of the line."""
    around = max(2, len(points) // 40)
    means = []
    for place, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, place - around) : place + around + 1]]
        means.append((x, sum(near) / len(near)))
    return means

"""Geometry of the report's charts: numbers in, SVG coordinates out; a template draws them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Points = list[tuple[float, float]]
MOST_POINTS = 300  # of a line; more are not seen
SMOOTHED = 40  # parts with more points than this are drawn faint, with their mean over them
LETTER = 6  # width of a letter, SVG units
MARKED = 15  # lines with fewer points than this show each of them


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
    """A series to draw, one part per stage; `style` is its class in the page's style sheet."""

    name: str
    style: str
    parts: list[Points]

    @property
    def points(self) -> Points:
        """All of it."""
        return [point for part in self.parts for point in part]

    @property
    def means(self) -> Points:
        """It without its noise; no mean reaches from one stage into the next."""
        return [point for part in self.parts for point in smoothed(part)]

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
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    paths: list[tuple[str, str]]
    dots: list[tuple[str, float, float]]
    marks: list[tuple[float, str]]


def chart(
    lines: Sequence[Line],
    size: tuple[float, float] = (460, 230),
    marks: Sequence[tuple[float, str]] = (),
    y_range: tuple[float, float] | None = None,
    x_end: float | None = None,
) -> Chart | None:
    """Draw lines over common axes; None where there is no point to draw.

    Ranges follow from the points where they are not given; x counts from 0.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    width, height = size
    axes = Axes(
        (0, x_end or max(x for line in lines for x, _ in line.points) or 1),
        y_range or span(y for line in lines for _, y in line.points),
        *(42, 20 if marks else 8, width - 8, height - 22),
    )
    noisy = [line for line in lines if any(len(part) > SMOOTHED for part in line.parts)]
    sparse = [line for line in lines if len(line.points) < MARKED]
    return Chart(
        width,
        height,
        axes,
        lines,
        [(axes.across(x), short(x)) for x in ticks(*axes.x_range, max(3, int(width / 75)))],
        [(axes.down(y), short(y)) for y in ticks(*axes.y_range, max(3, int(height / 45)))],
        [(f"{line.style} faint", axes.path(line.points)) for line in noisy]
        + [(line.style, axes.path(line.means)) for line in lines],
        [(line.style, axes.across(x), axes.down(y)) for line in sparse for x, y in line.points],
        labelled([(axes.across(x), label) for x, label in marks], width),
    )


def labelled(marks: Sequence[tuple[float, str]], width: float) -> list[tuple[float, str]]:
    """Marks at their places, without the labels that would lie over another or off the chart."""
    found, free = [], 0.0
    for x, label in marks:
        end = x + LETTER * len(label)
        fits = free <= x and end <= width + LETTER
        found.append((x, label if fits else ""))
        free = end if fits else free
    return found


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low .. high, at most about `about` of them."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if rough <= power * times * 1.0001)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def span(values: Iterable[float]) -> tuple[float, float]:
    """The range of an axis that shows all values; from 0 where 0 is not far."""
    values = list(values)
    low, high = min(values), max(values)
    if low == high:
        return min(0.0, 2 * low), max(0.0, 2 * high) or 1.0
    margin = (high - low) * 0.06
    return (0.0 if 0 <= low < high / 3 else low - margin), high + margin


def thinned(points: Points) -> Points:
    """At most `MOST_POINTS` of them, both ends among them."""
    if len(points) <= MOST_POINTS:
        return points
    stride = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(place * stride)] for place in range(MOST_POINTS)]


def smoothed(points: Points) -> Points:
    """The running mean over about a twentieth of a long line; a short one as it is."""
    if len(points) <= SMOOTHED:
        return points
    around = max(2, len(points) // 40)
    means = []
    for place, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, place - around) : place + around + 1]]
        means.append((x, sum(near) / len(near)))
    return means

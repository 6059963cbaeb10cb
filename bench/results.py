"""The results of a run, and whether they meet the requirements. Pure functions over data; `report` writes them."""

import statistics
from collections.abc import Sequence

import msgspec

from bench.load import Load
from bench.rows import Bar, Limit, Row


class Spread(msgspec.Struct, frozen=True):
    """The median of some rounds, with the least and the most."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


class Results(msgspec.Struct):
    """The results, added while the bench runs. Lists have one figure for each round."""

    rows: Sequence[Row]
    limits: Sequence[Limit]
    key_count_large: int
    loads: dict[tuple[str, str], list[Load]] = {}
    """Keys are the names of row and side."""
    failures: dict[tuple[str, str], str] = {}
    """Loads that do not count, with the reason. A row with one is not judged by its other rounds."""
    missing: dict[str, str] = {}
    """Sides that could not be started, with the reason."""
    figures: dict[str, list[float]] = {}
    """Keys are the names of limits."""
    sync_seconds: list[float] = []
    notes: list[str] = []

    def title(self, item: Row | Limit, *also: Row) -> str:
        """`also`: rows of the same load with other numbers of connections."""
        title = item.title.format(large=f"{self.key_count_large:,}")
        if isinstance(item, Limit):
            return title
        counts = " or ".join(str(row.connections) for row in (item, *also))
        return f"{title}, {counts} connection{'s' * (item.connections > 1)}"


class Verdict(msgspec.Struct, frozen=True):
    """One line of the judgement. `is_met` is None if it could not be measured; `reason` then says why."""

    title: str
    measured: str
    required: str
    goal: str
    is_met: bool | None
    is_goal_met: bool | None
    reason: str = ""


def verdicts(results: Results) -> list[Verdict]:
    bars = [_judge_bar(results, row, bar) for row in results.rows for bar in row.bars]
    return bars + [_judge_limit(results, limit) for limit in results.limits]


def is_good(results: Results) -> bool:
    """False if a requirement was missed or a load failed. What is missing on this machine is named and is no fault."""
    return not results.failures and all(verdict.is_met is not False for verdict in verdicts(results))


def _judge_bar(results: Results, row: Row, bar: Bar) -> Verdict:
    rows, side = [row, *(each for each in results.rows if each.name in bar.also_rows)], row.sides[0]
    title = results.title(row, *rows[1:])
    title += f": {side} / {'best of ' * (len(bar.against) > 1)}{' and '.join(bar.against)}"
    required, goal = f"≥ {bar.required:g}", f"{bar.goal:g}" if bar.goal else ""
    needed = [(each.name, side) for each in rows] + [(row.name, other) for other in bar.against]
    for row_name, name in needed:
        if name in results.missing:
            return Verdict(title, "", required, goal, None, None, f"{name} is missing")
        if (row_name, name) in results.failures:
            return Verdict(title, "", required, goal, is_met=False, is_goal_met=None, reason=f"{name} failed")
    ours, theirs = _best(results, needed[: len(rows)]), _best(results, needed[len(rows) :])
    ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    measured = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    is_goal_met = None if bar.goal is None else ratio.median >= bar.goal
    return Verdict(title, measured, required, goal, ratio.median >= bar.required, is_goal_met)


def _best(results: Results, loads: Sequence[tuple[str, str]]) -> list[float]:
    """The highest rate of each round among these rows and sides."""
    rates = [[load.operations_per_second for load in results.loads[each]] for each in loads]
    return [max(several) for several in zip(*rates, strict=True)]


def _judge_limit(results: Results, limit: Limit) -> Verdict:
    required, goal = f"≤ {limit.required:g} {limit.unit}", f"{limit.goal:g} {limit.unit}" if limit.goal else ""
    title = results.title(limit)
    if (limit.name, limit.side) in results.failures:
        return Verdict(title, "", required, goal, is_met=False, is_goal_met=None, reason=f"{limit.side} failed")
    if limit.name not in results.figures:
        return Verdict(title, "", required, goal, None, None, f"{limit.side} is missing")
    found, digits = spread(results.figures[limit.name]), 0 if limit.required > 100 else 2
    measured = f"{found.median:.{digits}f} {limit.unit} ({found.low:.{digits}f}-{found.high:.{digits}f})"
    is_goal_met = None if limit.goal is None else found.median <= limit.goal
    return Verdict(title, measured, required, goal, found.median <= limit.required, is_goal_met)

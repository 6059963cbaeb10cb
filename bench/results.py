"""What a run found, and whether that is what must be. Pure functions over data; `report` writes them down."""

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
    """Filled while the bench runs; lists hold one figure for each round."""

    rows: Sequence[Row]
    limits: Sequence[Limit]
    key_count_large: int
    loads: dict[tuple[str, str], list[Load]] = {}
    """By the names of row and side."""
    failures: dict[tuple[str, str], str] = {}
    """Loads that do not count, and why. A row with one is not judged by its other rounds."""
    missing: dict[str, str] = {}
    """Sides that could not be started, and why."""
    figures: dict[str, list[float]] = {}
    """By the names of limits."""
    sync_seconds: list[float] = []
    notes: list[str] = []

    def title(self, item: Row | Limit) -> str:
        title = item.title.format(large=f"{self.key_count_large:,}")
        if isinstance(item, Limit):
            return title
        return f"{title}, {item.connections} connection{'s' * (item.connections > 1)}"


class Verdict(msgspec.Struct, frozen=True):
    """One line of the judgement. `is_met` is None if it could not be measured; `reason` then says why."""

    title: str
    measured: str
    must: str
    aim: str
    is_met: bool | None
    is_aim_met: bool | None
    reason: str = ""


def verdicts(results: Results) -> list[Verdict]:
    bars = [_judge_bar(results, row, bar) for row in results.rows for bar in row.bars]
    return bars + [_judge_limit(results, limit) for limit in results.limits]


def is_good(results: Results) -> bool:
    """False if a must was missed or a load failed; what is missing on this machine is named, and no fault."""
    return not results.failures and all(verdict.is_met is not False for verdict in verdicts(results))


def _judge_bar(results: Results, row: Row, bar: Bar) -> Verdict:
    rows, side = [row, *(each for each in results.rows if each.name in bar.also_rows)], row.sides[0]
    title = results.title(row) + "".join(f" or {each.connections}" for each in rows[1:])
    title += f": {side} / {'the best of ' * (len(bar.against) > 1)}{' and '.join(bar.against)}"
    must, aim = f"≥ {bar.must:g}", f"{bar.aim:g}" if bar.aim else ""
    needed = [(each.name, side) for each in rows] + [(row.name, other) for other in bar.against]
    for row_name, name in needed:
        if name in results.missing:
            return Verdict(title, "", must, aim, None, None, f"{name} is missing")
        if (row_name, name) in results.failures:
            return Verdict(title, "", must, aim, is_met=False, is_aim_met=None, reason=f"{name} failed")
    ours, theirs = _best(results, needed[: len(rows)]), _best(results, needed[len(rows) :])
    ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    measured = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    is_aim_met = None if bar.aim is None else ratio.median >= bar.aim
    return Verdict(title, measured, must, aim, ratio.median >= bar.must, is_aim_met)


def _best(results: Results, loads: Sequence[tuple[str, str]]) -> list[float]:
    """The highest rate of each round among these rows and sides."""
    rates = [[load.operations_per_second for load in results.loads[each]] for each in loads]
    return [max(several) for several in zip(*rates, strict=True)]


def _judge_limit(results: Results, limit: Limit) -> Verdict:
    must, aim = f"≤ {limit.must:g} {limit.unit}", f"{limit.aim:g} {limit.unit}" if limit.aim else ""
    title = results.title(limit)
    if (limit.name, limit.side) in results.failures:
        return Verdict(title, "", must, aim, is_met=False, is_aim_met=None, reason=f"{limit.side} failed")
    if limit.name not in results.figures:
        return Verdict(title, "", must, aim, None, None, f"{limit.side} is missing")
    found, digits = spread(results.figures[limit.name]), 0 if limit.must > 100 else 2
    measured = f"{found.median:.{digits}f} {limit.unit} ({found.low:.{digits}f}-{found.high:.{digits}f})"
    is_aim_met = None if limit.aim is None else found.median <= limit.aim
    return Verdict(title, measured, must, aim, found.median <= limit.must, is_aim_met)

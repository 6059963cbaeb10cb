"""The results of a run, and whether they meet the requirements. Pure functions over data; `report` writes them."""

import statistics
from collections.abc import Sequence

import msgspec

from bench.load import Load
from bench.rows import OWN, Bar, Limit, Row


class Spread(msgspec.Struct, frozen=True):
    """The median of some rounds, with the least and the most."""

    median: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    return Spread(statistics.median(figures), min(figures), max(figures))


class Instance(msgspec.Struct, frozen=True, order=True):
    """A side as it runs: the service with one interpreter, or a peer."""

    side: str
    python: str = ""
    """The name of the interpreter; empty for a peer."""

    def __str__(self) -> str:
        return f"{self.side} on Python {self.python}" if self.python else self.side


class Results(msgspec.Struct):
    """The results, added while the bench runs. Lists have one figure for each round."""

    rows: Sequence[Row]
    limits: Sequence[Limit]
    pythons: Sequence[str]
    """The names of the interpreters."""
    key_count_large: int
    loads: dict[tuple[str, Instance], list[Load]] = {}
    """Keys are the name of the row, and the instance."""
    failures: dict[tuple[str, Instance], str] = {}
    """Loads that do not count, with the reason. A row with one is not judged by its other rounds."""
    missing: dict[Instance, str] = {}
    """Instances that could not be started, with the reason."""
    figures: dict[tuple[str, Instance], list[float]] = {}
    """Keys are the name of the limit, and the instance."""
    sync_seconds: list[float] = []
    notes: list[str] = []

    def instances(self, side: str) -> list[Instance]:
        """One for each interpreter if the side is the service."""
        return [Instance(side, python) for python in self.pythons] if side in OWN else [Instance(side)]

    def title(self, item: Row | Limit, *also: Row) -> str:
        """`also`: rows of the same load with other numbers of connections."""
        title = item.title.format(large=f"{self.key_count_large:,}")
        if isinstance(item, Limit):
            return title
        counts = " or ".join(str(row.connections) for row in (item, *also))
        return f"{title}, {counts} connection{'s' * (item.connections > 1)}"


class Verdict(msgspec.Struct, frozen=True):
    """One line of the judgement, for one interpreter.

    `is_met` and `is_goal_met` are None if there is no such bar or it could not be measured; then `reason` says why.
    """

    title: str
    python: str
    measured: str
    required: str
    goal: str
    is_met: bool | None
    is_goal_met: bool | None
    reason: str = ""


def verdicts(results: Results) -> list[Verdict]:
    bars = [
        _judge_bar(results, row, bar, python) for row in results.rows for bar in row.bars for python in results.pythons
    ]
    return bars + [_judge_limit(results, limit, python) for limit in results.limits for python in results.pythons]


def is_good(results: Results) -> bool:
    """False if a requirement was missed or a load failed. What is missing on this machine is named and is no fault."""
    return not results.failures and all(verdict.is_met is not False for verdict in verdicts(results))


def _judge_bar(results: Results, row: Row, bar: Bar, python: str) -> Verdict:
    """Where the service is also on the other side of the ratio, it has the same interpreter there."""
    rows, side = [row, *(each for each in results.rows if each.name in bar.also_rows)], row.sides[0]
    title = results.title(row, *rows[1:])
    title += f": {side} / {'best of ' * (len(bar.against) > 1)}{' and '.join(bar.against)}"
    title += f", {bar.against_row}" * (bar.against_row is not None)
    required, goal = f"≥ {bar.required:g}" if bar.required else "", f"{bar.goal:g}" if bar.goal else ""
    if bar.against_row is not None and bar.against_row not in {each.name for each in results.rows}:
        return Verdict(title, python, "", required, goal, None, None, f"{bar.against_row} was not run")
    needed = [(each.name, _instance(side, python)) for each in rows]
    needed += [(bar.against_row or row.name, _instance(other, python)) for other in bar.against]
    for row_name, instance in needed:
        if instance in results.missing:
            return Verdict(title, python, "", required, goal, None, None, f"{instance.side} is missing")
        if (row_name, instance) in results.failures:
            return Verdict(title, python, "", required, goal, False, None, f"{instance.side} failed")  # noqa: FBT003
    ours, theirs = _best(results, needed[: len(rows)]), _best(results, needed[len(rows) :])
    ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    measured = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    is_met, is_goal_met = (None if least is None else ratio.median >= least for least in (bar.required, bar.goal))
    return Verdict(title, python, measured, required, goal, is_met, is_goal_met)


def _instance(side: str, python: str) -> Instance:
    return Instance(side, python if side in OWN else "")


def _best(results: Results, loads: Sequence[tuple[str, Instance]]) -> list[float]:
    """The highest rate of each round among these rows and instances."""
    rates = [[load.operations_per_second for load in results.loads[each]] for each in loads]
    return [max(several) for several in zip(*rates, strict=True)]


def _judge_limit(results: Results, limit: Limit, python: str) -> Verdict:
    required, goal = f"≤ {limit.required:g} {limit.unit}", f"{limit.goal:g} {limit.unit}" if limit.goal else ""
    title, measured = results.title(limit), (limit.name, Instance(limit.side, python))
    if measured in results.failures:
        return Verdict(title, python, "", required, goal, False, None, f"{limit.side} failed")  # noqa: FBT003
    if measured not in results.figures:
        return Verdict(title, python, "", required, goal, None, None, f"{limit.side} is missing")
    found, digits = spread(results.figures[measured]), 0 if limit.required > 100 else 2
    text = f"{found.median:.{digits}f} {limit.unit} ({found.low:.{digits}f}-{found.high:.{digits}f})"
    is_goal_met = None if limit.goal is None else found.median <= limit.goal
    return Verdict(title, python, text, required, goal, found.median <= limit.required, is_goal_met)

"""Writes the results: Markdown for the documentation, text for the terminal."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load import Load
from bench.machine import FREE_SYNC_SECONDS
from bench.results import Results, Verdict, spread, verdicts
from bench.workload import MAX_VALUE_BYTES, MIN_VALUE_BYTES, SMALL_STORE_KEYS

_TEXTS = Path(__file__).parent
"""The report's prose is Markdown of its own, one file for each section; some have fields in braces."""


def markdown(
    results: Results, *, date: str, setting: str, facts: Mapping[str, str], versions: Mapping[str, str], plot: str
) -> str:
    sync_us = spread([1e6 * seconds for seconds in results.sync_seconds])
    free = " This is so short that the disk probably does not wait, so writes look faster than they are." * (
        sync_us.median < 1e6 * FREE_SYNC_SECONDS
    )
    machine = {**facts, "append of 4 KiB with fdatasync": f"{sync_us.median:.0f} µs (median).{free}"}
    parts = [
        "# Benchmarks",
        _text("opening.md").format(date=date, setting=setting),
        "## Targets and results",
        _text("targets.md"),
        _table(
            ["work", "Python", "measured", "required", "goal", "met"],
            "llrrrl",
            [_verdict_cells(each) for each in verdicts(results)],
        ),
        f"![Operations per second]({plot})",
        "## All results",
        _table(
            ["work", "server", "Python", "rounds", "operations/s", "p50 ms", "p99 ms"],
            "lllrrrr",
            _load_cells(results),
        ),
        "\n".join(f"- {note}" for note in [*results.notes, *_client_notes(results), *_absences(results)]),
        "## Instructions per request",
        _text("instructions.md"),
        "## Machine and versions",
        "\n".join(f"- {name}: {text}" for name, text in machine.items()),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        "## How to read the results",
        _text("how_to_read.md").format(
            small_store_keys=f"{SMALL_STORE_KEYS:,}", min_value_bytes=MIN_VALUE_BYTES, max_value_bytes=MAX_VALUE_BYTES
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(name: str) -> str:
    return (_TEXTS / name).read_text(encoding="utf-8").strip()


def summary(results: Results) -> str:
    """For the terminal: the verdicts, the client's share of a core, and what could not be measured."""
    lines = [
        f"{_met(each):28} {each.python:8} {each.measured:24} required {each.required:9} {each.title}"
        for each in verdicts(results)
    ]
    return "\n".join([*lines, *_client_notes(results), *_absences(results)])


def _client_notes(results: Results) -> list[str]:
    """The share of a core that the bench's own client used: near 100 %, the client is what was measured."""
    notes = []
    for row in results.rows:
        instances = [each for side in row.sides for each in results.instances(side)]
        loads = {each: results.loads.get((row.name, each), []) for each in instances}
        shares = {each: statistics.median(found) for each in loads if (found := _client_shares(loads[each]))}
        if shares:
            used = ", ".join(f"{100 * share:.0f} % with {instance}" for instance, share in shares.items())
            notes.append(f"{results.title(row)}: share of a core that the client used: {used}.")
    return notes


def _client_shares(loads: Sequence[Load]) -> list[float]:
    return [load.client_share for load in loads if load.client_share is not None]


def _absences(results: Results) -> list[str]:
    missing = [f"MISSING: {each} ({reason}); its results are left out" for each, reason in results.missing.items()]
    return missing + [
        f"FAILED: {row}, {each}: {' '.join(reason.split())}" for (row, each), reason in results.failures.items()
    ]


def _met(verdict: Verdict) -> str:
    if verdict.is_met is None and verdict.is_goal_met is None:
        return f"not measured: {verdict.reason}"
    if verdict.is_met is None:
        return "the goal" if verdict.is_goal_met else "not the goal"
    if not verdict.is_met:
        return f"NO {verdict.reason}".strip()
    return "yes, and the goal" if verdict.is_goal_met else "yes"


def _verdict_cells(verdict: Verdict) -> list[str]:
    return [verdict.title, verdict.python, verdict.measured, verdict.required, verdict.goal, _met(verdict)]


def _load_cells(results: Results) -> list[list[str]]:
    lines = []
    for row in results.rows:
        for instance in (each for side in row.sides for each in results.instances(side)):
            loads = results.loads.get((row.name, instance), [])
            if instance in results.missing or (row.name, instance) in results.failures:
                figures = ["", "missing" if instance in results.missing else "failed", "", ""]
            else:
                rate = spread([load.operations_per_second for load in loads])
                p50, p99 = spread([load.p50_ms for load in loads]), spread([load.p99_ms for load in loads])
                figures = [f"{len(loads)}", f"{rate.median:,.0f} ({rate.low:,.0f}-{rate.high:,.0f})"]
                figures += [f"{each.median:.2f}" if each.median else "" for each in (p50, p99)]
            lines.append([results.title(row), instance.side, instance.python, *figures])
    return lines


def _table(heads: Sequence[str], alignment: str, lines: Sequence[Sequence[str]]) -> str:
    rules = [{"l": "---", "r": "---:"}[letter] for letter in alignment]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rules, *lines]) if lines else ""

"""`make torture [MINUTES=30] [SEED=…] [ROWS="kills-file …"]`: run all harnesses, round after round, for a given time.

Each round runs in its own process with its own seed. A violation is shown at once, with the command that repeats the
round, and again at the end. Exit status: 0, or 1 if a promise was broken, a harness failed, or a round hung.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from subprocess import PIPE

from harness import Finding
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from torture.rows import ROWS, Row

HANG_SECONDS = 300.0
"""A round takes seconds. One that takes this long counts as a violation, because something hangs."""

console = Console()


@dataclass
class Sums:
    """The totals of all rounds of one row."""

    finding: Finding = field(default_factory=Finding)
    rounds: int = 0
    seconds: float = 0.0
    repeat: list[str] = field(default_factory=list)
    """The commands that repeat the rounds with violations."""


def main() -> int:
    options = _arguments()
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    left_out = {row.name: reason for row in rows if (reason := row.obstacle())}
    for name, reason in left_out.items():
        console.print(f"[yellow]skipped: {name}, because {reason}")
    rows = [row for row in rows if row.name not in left_out]
    console.print(f"seed {options.seed}, {options.minutes:g} minutes, {len(rows)} rows")
    sums: dict[str, Sums] = defaultdict(Sums)
    if options.round is not None:
        for row in rows:
            _run_round(row, options.round, sums[row.name])
    else:
        _run_until(time.monotonic() + options.minutes * 60, rows, options.seed, sums)
    return _report(rows, sums, left_out)


def _run_until(deadline: float, rows: list[Row], seed: int, sums: dict[str, Sums]) -> None:
    """Run the row that has had the smallest share of the time so far. Each row runs at least once."""
    start = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=deadline - start)
        while rows and (time.monotonic() < deadline or any(row.name not in sums for row in rows)):
            row = min(rows, key=lambda row: sums[row.name].seconds / row.weight if row.name in sums else -1.0)
            own = sums[row.name]
            progress.update(bar, description=f"{row.name:<20}", completed=time.monotonic() - start)
            _run_round(row, random.Random(f"{seed}/{row.name}/{own.rounds}").randrange(2**32), own)
        progress.update(bar, description="", completed=deadline - start)


def _run_round(row: Row, seed: int, sums: Sums) -> None:
    began = time.monotonic()
    finding = _finding(row, seed)
    sums.seconds += time.monotonic() - began
    sums.rounds += 1
    sums.finding.add(finding)
    if finding.violations:
        command = f'make torture ROWS={row.name} ARGS="--round {seed}"'
        sums.repeat.append(command)
        for violation in finding.violations[:5]:
            console.print(f"[red]{row.name}: {violation}", markup=True, highlight=False)
        console.print(f"[red]repeat with: {command}")


def _finding(row: Row, seed: int) -> Finding:
    command = [sys.executable, "-m", "torture.round", row.name, str(seed)]
    try:
        code, output, errors = _run_alone(command)
    except subprocess.TimeoutExpired:
        return Finding(violations=[f"the round did not end within {HANG_SECONDS:g} s"])
    lines = output.splitlines()
    if code or not lines:
        return Finding(violations=[f"the round ended with {code}: {errors[-2000:]}"])
    found = json.loads(lines[-1])
    return Finding(Counter(found["figures"]), found["violations"], found["seconds"])


def _run_alone(command: list[str]) -> tuple[int, str, str]:
    """Run one round. If it hangs, or this process is interrupted, it is killed with all servers that it started."""
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=HANG_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output, errors


def _report(rows: list[Row], sums: dict[str, Sums], left_out: dict[str, str]) -> int:
    table = Table("row", "promise", "rounds", "done", "figures", "violations")
    for row in rows:
        own = sums[row.name]
        figures = [f"{count:,} {name}" for name, count in own.finding.figures.items() if name != row.unit]
        figures += [_shown(what, seconds) for what, seconds in own.finding.seconds.items()]
        done = f"{own.finding.figures[row.unit]:,} {row.unit}"
        table.add_row(
            row.name, row.promise, str(own.rounds), done, ", ".join(figures), str(len(own.finding.violations))
        )
    for name, reason in left_out.items():
        table.add_row(name, next(row.promise for row in ROWS if row.name == name), "0", f"skipped: {reason}", "", "")
    console.print(table)
    repeat = [command for row in rows for command in sums[row.name].repeat]
    for command in repeat:
        console.print(f"[red]repeat with: {command}")
    return 1 if repeat else 0


def _shown(what: str, seconds: list[float]) -> str:
    return f"{what}: p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description="Run the harnesses until the time is over.")
    parser.add_argument("--minutes", type=float, default=10.0, help="duration (default %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="default: random")
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], metavar="ROW", help="only these rows")
    parser.add_argument("--round", type=int, metavar="SEED", help="repeat only the round with this seed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

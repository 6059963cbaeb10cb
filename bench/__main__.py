"""The order of a run: start the sides, load them in turn, stop them, write the report.

One exit stack stops every program and removes every file. Exit status: 0, or 1 if a requirement was missed or a load
failed.
"""

import argparse
import datetime as dt
import platform
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from bench import plot, postgresql, report, results, rows
from bench.machine import facts, sync_seconds, versions
from bench.processes import BenchError, MissingProgramError, program
from bench.results import Results, spread
from bench.rows import (
    IDLE,
    LEASEHOLD_AWAITED,
    LEASEHOLD_LARGE,
    LEASEHOLD_PG_RELAYED,
    LEASEHOLD_PROBED,
    LIMITS,
    MEMORY,
    PARTIAL,
    ROWS,
    STALL,
    START,
    Row,
)
from bench.service import AwaitedLeasehold, LargeLeasehold, RelayedLeasehold
from bench.sides import Side
from bench.stalls import ProbedLeasehold
from bench.starting import SIDES, Site

_DEFAULT_OUTPUT = Path("docs/benchmarks.md")
_PARTIAL_UPDATES = 10
_WORST_STALLS = 10
"""Programs whose versions the report lists."""


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, _end)
    names = options.only or rows.NAMES
    found = Results(
        rows=[row for row in ROWS if row.name in names],
        limits=[limit for limit in LIMITS if limit.name in names],
        key_count_large=options.keys_large,
    )
    machine: dict[str, str] = {}
    try:
        program("wrk")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder)))
            folder.chmod(0o711)  # PostgreSQL does not run as root and needs access to the folder
            machine = facts(folder.resolve())
            site = Site(stack, folder, key_count_large=found.key_count_large, starts=options.rounds)
            sides = _start(site, found)
            for number in range(options.rounds):
                found.sync_seconds.append(sync_seconds(folder))
                for row in (row for row in found.rows if number < row.most_rounds):
                    _measure(
                        row, sides, found, number, seconds=options.seconds, rounds=min(options.rounds, row.most_rounds)
                    )
            _weigh(sides, found)
            _count(sides, found)
            _look_at_idleness(sides, found)
            _attack(sides, found)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    output: Path | None = options.output or (None if options.only else _DEFAULT_OUTPUT)
    if output is not None:
        _write(output, found, machine, setting=f"{options.rounds} rounds of {options.seconds} s")
    print(report.summary(found))
    return 0 if results.is_good(found) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=3, help="duration of each load (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="each runs every load once on each side (default %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=rows.NAMES, help="only these rows: " + ", ".join(rows.NAMES)
    )
    parser.add_argument(
        "--keys-large", type=int, default=1_000_000, help="keys in the large store (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, help=f"file of the report (default {_DEFAULT_OUTPUT}; none with --only)")
    parser.add_argument(
        "--folder", default="/var/tmp", help="folder for all data; must be on a disk (default %(default)s)"
    )
    return parser.parse_args()


def _end(number: int, _: FrameType | None) -> None:
    """Raise an exception on a signal, so that the exit stack stops what was started."""
    sys.exit(128 + number)


def _start(site: Site, found: Results) -> Mapping[str, Side]:
    """Start the sides that the chosen rows need. Sides that cannot be started are noted as missing."""
    needed = {side for row in found.rows for side in row.sides} | {limit.side for limit in found.limits}
    sides: dict[str, Side] = {}
    for name, start in SIDES.items():
        if name not in needed:
            continue
        print(f"starting {name}", flush=True)
        try:
            sides[name] = start(site, site.own(name))
        except MissingProgramError as error:
            found.missing[name] = str(error)
            print(f"MISSING: {name}: {error}", flush=True)
        except BenchError as error:
            found.missing[name], found.failures["start", name] = "it did not start", "it did not start"
            print(f"FAILED: {name}: {error}", flush=True)
    return sides


def _measure(row: Row, sides: Mapping[str, Side], found: Results, number: int, *, seconds: int, rounds: int) -> None:
    # Forwards, then backwards, because work left over by one side (a rewrite, a snapshot) slows down the next one.
    for side in row.sides if number % 2 == 0 else reversed(row.sides):
        if side not in sides or (row.name, side) in found.failures:
            continue
        try:
            load = sides[side].load(row.work, connections=row.connections, seconds=seconds, seed=number)
        except BenchError as error:
            found.failures[row.name, side] = str(error)
            print(f"FAILED: {row.name}, {side}: {error}", flush=True)
            continue
        found.loads.setdefault((row.name, side), []).append(load)
        rate = f"{load.operations_per_second:9,.0f}/s  p50 {load.p50_ms:6.2f} ms  p99 {load.p99_ms:6.2f} ms"
        print(f"round {number + 1}/{rounds}  {row.name:11} {side:16} {rate}", flush=True)


def _weigh(sides: Mapping[str, Side], found: Results) -> None:
    """Measure the large store after its loads. The memory is the larger one of now and of its start."""
    large = sides.get(LEASEHOLD_LARGE)
    if not isinstance(large, LargeLeasehold):
        return
    before, after = large.memory_at_start, large.memory()
    found.notes.append(
        f"The store with {found.key_count_large:,} keys of 100-byte values: RSS {before.rss_mb:.0f} MB "
        f"(PSS {before.pss_mb:.0f} MB) after its start, RSS {after.rss_mb:.0f} MB (PSS {after.pss_mb:.0f} MB) after "
        f"all loads; {large.take_over_seconds:.1f} s to import the plain JSON file."
    )
    found.figures[MEMORY.name] = [max(before.rss_mb, after.rss_mb)]
    found.figures[START.name] = large.start_seconds


def _count(sides: Mapping[str, Side], found: Results) -> None:
    """Count the traffic between the service and its database for partial updates of a large document."""
    relayed = sides.get(LEASEHOLD_PG_RELAYED)
    if not isinstance(relayed, RelayedLeasehold):
        return
    try:
        updates = [relayed.update(number) for number in range(1, _PARTIAL_UPDATES + 1)]
    except BenchError as error:
        found.failures[PARTIAL.name, LEASEHOLD_PG_RELAYED] = str(error)
        return
    found.figures[PARTIAL.name] = [each.sent / 1024 for each in updates]
    received = spread([each.received / 1024 for each in updates])
    found.notes.append(
        f"A partial update of a 1 MiB document on PostgreSQL: the database sent {received.median:,.1f} KiB "
        f"({received.low:,.1f}-{received.high:,.1f}) to the service. When the service stored the whole document, it "
        f"sent {relayed.whole.sent / 1024:,.1f} KiB. These are TCP payload bytes, of {_PARTIAL_UPDATES} updates."
    )


def _look_at_idleness(sides: Mapping[str, Side], found: Results) -> None:
    """Measure the processor time of the service while many requests wait for locks."""
    awaited = sides.get(LEASEHOLD_AWAITED)
    if not isinstance(awaited, AwaitedLeasehold):
        return
    try:
        found.figures[IDLE.name] = [awaited.idle_percent()]
    except BenchError as error:
        found.failures[IDLE.name, LEASEHOLD_AWAITED] = str(error)


def _attack(sides: Mapping[str, Side], found: Results) -> None:
    """Measure the longest stall of the event loop, and note which requests caused the longest ones."""
    probed = sides.get(LEASEHOLD_PROBED)
    if not isinstance(probed, ProbedLeasehold):
        return
    try:
        stalls = probed.stalls()
    except BenchError as error:
        found.failures[STALL.name, LEASEHOLD_PROBED] = str(error)
        return
    worst = sorted(stalls, key=lambda name: stalls[name], reverse=True)
    found.figures[STALL.name] = [stalls[worst[0]]]
    longest = "; ".join(f"{name} {stalls[name]:.0f} ms" for name in worst[:_WORST_STALLS])
    found.notes.append(f"The longest stalls of {len(stalls)} kinds of requests, of up to 1 MiB each: {longest}.")


def _write(output: Path, found: Results, machine: Mapping[str, str], *, setting: str) -> None:
    picture = output.with_suffix(".svg")
    own = {"leasehold": version("leasehold"), "Python": platform.python_version(), "uvloop": version("uvloop")}
    text = report.markdown(
        found,
        date=str(dt.datetime.now(dt.UTC).date()),
        setting=setting,
        facts=machine,
        versions={**own, **versions(), "PostgreSQL and pgbench": postgresql.version()},
        plot=picture.name,
    )
    output.write_text(text)
    picture.write_text(plot.svg(found))
    print(f"wrote {output} and {picture}")


if __name__ == "__main__":
    sys.exit(main())

"""The order of a run: start the sides, load them in turn, stop them, write the report.

The service runs once for each `--python`, in the same rounds; the peers run once.

One exit stack stops every program and removes every file. Exit status: 0, or 1 if a requirement was missed or a load
failed.
"""

import argparse
import datetime as dt
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from bench import plot, postgresql, report, results, rows
from bench.catching_up import WatchedLeasehold
from bench.interpreters import Interpreter, interpreters
from bench.machine import facts, sync_seconds, versions
from bench.processes import BenchError, MissingProgramError, program
from bench.results import Instance, Results, spread
from bench.rows import (
    CATCH_UP,
    CATCH_UP_STALL,
    IDLE,
    LIMITS,
    MEMORY,
    PARTIAL,
    ROWS,
    STALL,
    STALL_BY_MANY,
    START,
    WATCHERS_IDLE,
    WATCHERS_MEMORY,
    Limit,
    Row,
    rounds_of,
)
from bench.service import AwaitedLeasehold, LargeLeasehold, RelayedLeasehold
from bench.sides import Side
from bench.stalls import ProbedLeasehold
from bench.starting import PEERS, SERVICES, Site, starts

_DEFAULT_OUTPUT = Path("docs/benchmarks.md")
_PARTIAL_UPDATES = 10
_WORST_STALLS = 10


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, _end)
    machine: dict[str, str] = {}
    try:
        program("wrk")
        pythons = interpreters(options.python)
        for python in pythons:
            print(f"Python {python.name}: {python.build}", flush=True)
        found = _nothing_yet(options, pythons)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder)))
            folder.chmod(0o711)  # PostgreSQL does not run as root and needs access to the folder
            machine = facts(folder.resolve())
            site = Site(stack, folder, key_count_large=found.key_count_large, starts=options.rounds)
            sides = _start(site, found, pythons)
            for number in range(options.rounds):
                found.sync_seconds.append(sync_seconds(folder))
                for row in found.rows:
                    _measure(row, sides, found, number, seconds=options.seconds, rounds=options.rounds)
            for instance, side in sides.items():
                _examine(instance, side, found)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    output: Path | None = options.output or (None if options.only else _DEFAULT_OUTPUT)
    if output is not None:
        _write(output, found, machine, pythons, setting=f"{options.rounds} rounds of {options.seconds} s")
    print(report.summary(found))
    return 0 if results.is_good(found) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each load (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="each runs every load once on each side (default %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", choices=rows.NAMES, help="only these rows: " + ", ".join(rows.NAMES)
    )
    parser.add_argument(
        "--keys-large", type=int, default=1_000_000, help="keys in the large store (default %(default)s)"
    )
    parser.add_argument(
        "--python",
        action="extend",
        nargs="+",
        metavar="ENVIRONMENT/bin/python",
        help="measure the service of these environments (default: the one that runs the bench)",
    )
    parser.add_argument("--output", type=Path, help=f"file of the report (default {_DEFAULT_OUTPUT}; none with --only)")
    parser.add_argument(
        "--folder", default="/var/tmp", help="folder for all data; must be on a disk (default %(default)s)"
    )
    options = parser.parse_args()
    options.python = options.python or [sys.executable]
    return options


def _nothing_yet(options: argparse.Namespace, pythons: Sequence[Interpreter]) -> Results:
    names = set(options.only or rows.NAMES)
    names |= {bar.against_row for row in ROWS if row.name in names for bar in row.bars if bar.against_row}
    return Results(
        rows=[row for row in ROWS if row.name in names],
        limits=[limit for limit in LIMITS if limit.name in names],
        pythons=[python.name for python in pythons],
        key_count_large=options.keys_large,
    )


def _end(number: int, _: FrameType | None) -> None:
    """Raise an exception on a signal, so that the exit stack stops what was started."""
    sys.exit(128 + number)


def _start(site: Site, found: Results, pythons: Sequence[Interpreter]) -> Mapping[Instance, Side]:
    """Start the sides that the chosen rows need. Instances that cannot be started are noted as missing."""
    needed = {side for row in found.rows for side in row.sides} | {limit.side for limit in found.limits}
    sides: dict[Instance, Side] = {}
    for name in (*PEERS, *SERVICES):
        for instance, start in starts(site, pythons, name).items() if name in needed else ():
            print(f"starting {instance}", flush=True)
            try:
                sides[instance] = start()
            except MissingProgramError as error:
                found.missing[instance] = str(error)
                print(f"MISSING: {instance}: {error}", flush=True)
            except BenchError as error:
                found.missing[instance] = found.failures["start", instance] = "it did not start"
                print(f"FAILED: {instance}: {error}", flush=True)
    return sides


def _measure(
    row: Row, sides: Mapping[Instance, Side], found: Results, number: int, *, seconds: int, rounds: int
) -> None:
    instances = [each for side in row.sides for each in found.instances(side) if number < rounds_of(row, side, rounds)]
    # Forwards, then backwards, because work left over by one side (a rewrite, a snapshot) slows down the next one.
    for instance in instances if number % 2 == 0 else reversed(instances):
        if instance not in sides or (row.name, instance) in found.failures:
            continue
        try:
            load = sides[instance].load(row.work, connections=row.connections, seconds=seconds, seed=number)
        except BenchError as error:
            found.failures[row.name, instance] = str(error)
            print(f"FAILED: {row.name}, {instance}: {error}", flush=True)
            continue
        found.loads.setdefault((row.name, instance), []).append(load)
        rate = f"{load.operations_per_second:9,.0f}/s  p50 {load.p50_ms:6.2f} ms  p99 {load.p99_ms:6.2f} ms"
        name = f"{instance.side} {instance.python}"
        print(f"round {number + 1}/{rounds_of(row, instance.side, rounds)}  {row.name:11} {name:22} {rate}", flush=True)


def _examine(instance: Instance, side: Side, found: Results) -> None:
    """The figures of the limits, after all loads."""
    match side:
        case LargeLeasehold():
            _weigh(instance, side, found)
        case RelayedLeasehold():
            _count(instance, side, found)
        case AwaitedLeasehold():
            _look_at_idleness(instance, side, found)
        case ProbedLeasehold():
            _attack(instance, side, found)
        case WatchedLeasehold():
            _watch(instance, side, found)
        case _:
            pass


def _weigh(instance: Instance, large: LargeLeasehold, found: Results) -> None:
    """Measure the large store. The memory is the larger one of now and of its start."""
    before, after = large.memory_at_start, large.memory()
    found.notes.append(
        f"Python {instance.python}: the store with {found.key_count_large:,} keys of 100-byte values: "
        f"RSS {before.rss_mb:.0f} MB (PSS {before.pss_mb:.0f} MB) after its start, "
        f"RSS {after.rss_mb:.0f} MB (PSS {after.pss_mb:.0f} MB) after all loads; "
        f"{large.take_over_seconds:.1f} s to import the plain JSON file."
    )
    found.figures[MEMORY.name, instance] = [max(before.rss_mb, after.rss_mb)]
    found.figures[START.name, instance] = large.start_seconds


def _count(instance: Instance, relayed: RelayedLeasehold, found: Results) -> None:
    """Count the traffic between the service and its database for partial updates of a large document."""
    try:
        updates = [relayed.update(number) for number in range(1, _PARTIAL_UPDATES + 1)]
    except BenchError as error:
        found.failures[PARTIAL.name, instance] = str(error)
        return
    found.figures[PARTIAL.name, instance] = [each.sent / 1024 for each in updates]
    received = spread([each.received / 1024 for each in updates])
    found.notes.append(
        f"Python {instance.python}: a partial update of a 1 MiB document on PostgreSQL: the database sent "
        f"{received.median:,.1f} KiB ({received.low:,.1f}-{received.high:,.1f}) to the service. When the service "
        f"stored the whole document, it sent {relayed.whole.sent / 1024:,.1f} KiB. These are TCP payload bytes, of "
        f"{_PARTIAL_UPDATES} updates."
    )


def _look_at_idleness(instance: Instance, awaited: AwaitedLeasehold, found: Results) -> None:
    """Measure the processor time of the service while many requests wait for locks."""
    try:
        found.figures[IDLE.name, instance] = [awaited.idle_percent()]
    except BenchError as error:
        found.failures[IDLE.name, instance] = str(error)


def _watch(instance: Instance, watched: WatchedLeasehold, found: Results) -> None:
    """Measure idle watchers, and one that catches up."""
    try:
        if {WATCHERS_IDLE, WATCHERS_MEMORY} & {*found.limits}:
            idle = watched.idleness()
            found.figures[WATCHERS_IDLE.name, instance] = [idle.percent]
            found.figures[WATCHERS_MEMORY.name, instance] = [idle.kib_each]
        if CATCH_UP in found.limits:
            _note_media(instance, CATCH_UP, watched.catch_up_ms(), found)
    except BenchError as error:
        for limit in found.limits:
            if limit.side == instance.side and (limit.name, instance) not in found.figures:
                found.failures[limit.name, instance] = str(error)


def _note_media(instance: Instance, limit: Limit, figures: Mapping[str, float], found: Results) -> None:
    """The slowest representation counts; the note has all of them."""
    found.figures[limit.name, instance] = [max(figures.values())]
    each = "; ".join(f"{media} {figure:.1f} {limit.unit}" for media, figure in figures.items())
    found.notes.append(f"Python {instance.python}: {limit.title}: {each}.")


def _attack(instance: Instance, probed: ProbedLeasehold, found: Results) -> None:
    """Measure the longest stalls of the event loop, and note which requests caused them."""
    try:
        if CATCH_UP_STALL in found.limits:
            _note_media(instance, CATCH_UP_STALL, probed.catch_up_stalls(), found)
    except BenchError as error:
        found.failures[CATCH_UP_STALL.name, instance] = str(error)
    for limit in (STALL, STALL_BY_MANY):
        if limit in found.limits:
            try:
                _note_stalls(instance, limit, probed.stalls(of_many=limit is STALL_BY_MANY), found)
            except BenchError as error:
                found.failures[limit.name, instance] = str(error)


def _note_stalls(instance: Instance, limit: Limit, stalls: Mapping[str, float], found: Results) -> None:
    """The longest stall counts; the note has the longest ones."""
    worst = sorted(stalls, key=lambda name: stalls[name], reverse=True)
    found.figures[limit.name, instance] = [stalls[worst[0]]]
    longest = "; ".join(f"{name} {stalls[name]:.0f} ms" for name in worst[:_WORST_STALLS])
    found.notes.append(
        f"Python {instance.python}: {limit.title}: of {len(stalls)} kinds of requests of up to 1 MiB each, states of "
        f"16 MiB, the worst are {longest}."
    )


def _write(
    output: Path, found: Results, machine: Mapping[str, str], pythons: Sequence[Interpreter], *, setting: str
) -> None:
    picture = output.with_suffix(".svg")
    own = {"leasehold": version("leasehold"), "uvloop": version("uvloop")}
    text = report.markdown(
        found,
        date=str(dt.datetime.now(dt.UTC).date()),
        setting=setting,
        facts={**machine, **{f"Python {python.name}": python.build for python in pythons}},
        versions={**own, **versions(), "PostgreSQL and pgbench": postgresql.version()},
        plot=picture.name,
    )
    output.write_text(text)
    picture.write_text(plot.svg(found))
    print(f"wrote {output} and {picture}")


if __name__ == "__main__":
    sys.exit(main())

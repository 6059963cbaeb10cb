"""Side by side with another version of the service: `python -m bench.against --before OTHER/.venv/bin/leasehold`.

Both versions run at the same time, with stores of their own, and are loaded in turn, in short slices: before, after,
after, before. Two neighbouring slices make a pair. The figures of a row are the medians of the ratios after/before of
all pairs: of the rate, which should not fall, and of the p99, which should not rise. The range beside a median is the
middle half of the ratios. Exit status: 0, or 1 if the rate of a row is below --least.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.load import Load
from bench.postgresql import PostgreSQL
from bench.processes import BenchError, program
from bench.rows import LEASEHOLD, LEASEHOLD_LARGE, LEASEHOLD_PG, ROWS, Row
from bench.service import LargeLeasehold, LeaseholdOnPostgreSQL, SmallLeasehold
from bench.sides import Side

_KINDS: Final = (LEASEHOLD, LEASEHOLD_LARGE, LEASEHOLD_PG)
_ROWS: Final = {row.name: row for row in ROWS if row.sides[0] in _KINDS}
_BEFORE: Final = "before"
_AFTER: Final = "after"
_ORDERS: Final = (
    ((_BEFORE, _AFTER), (_AFTER, _BEFORE)),
    ((_AFTER, _BEFORE), (_BEFORE, _AFTER)),
)
"""Pairs of slices. The order alternates, since what one version leaves behind slows the next."""


class Pair(msgspec.Struct, frozen=True):
    """Two neighbouring slices of one row."""

    before: Load
    after: Load


class Comparison(msgspec.Struct, frozen=True):
    """The ratios after/before of several pairs: their quartiles; the second one is the median."""

    rate: tuple[float, float, float]
    p99: tuple[float, float, float] | None
    """None if the client does not know its latencies."""
    p99_ms_before: float
    """The median."""
    p99_ms_after: float


def compared(pairs: Sequence[Pair]) -> Comparison:
    """Needs at least two pairs."""
    latencies = [pair.after.p99_ms / pair.before.p99_ms for pair in pairs if pair.before.p99_ms]
    return Comparison(
        rate=_quartiles([pair.after.operations_per_second / pair.before.operations_per_second for pair in pairs]),
        p99=_quartiles(latencies) if len(latencies) > 1 else None,
        p99_ms_before=statistics.median(pair.before.p99_ms for pair in pairs),
        p99_ms_after=statistics.median(pair.after.p99_ms for pair in pairs),
    )


def _quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, median, high


def main() -> int:
    options = _arguments()
    chosen = [_ROWS[name] for name in options.only or _ROWS]
    programs = {_BEFORE: options.before, _AFTER: options.after or program("leasehold")}
    pairs: dict[str, list[Pair]] = {row.name: [] for row in chosen}
    try:
        program("wrk")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder)))
            folder.chmod(0o711)  # PostgreSQL, which is not started as root, must pass through
            sides = _start(stack, folder, chosen, programs, options.keys_large)
            for number in range(options.rounds):
                for row in chosen:
                    pairs[row.name] += _measure(row, sides, number, seconds=options.seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    comparisons = {name: compared(of_row) for name, of_row in pairs.items()}
    print(_table(comparisons))
    return 0 if min(each.rate[1] for each in comparisons.values()) >= options.least else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", required=True, help="the program of the other version")
    parser.add_argument("--after", help="that of this version (default: the one installed beside this Python)")
    parser.add_argument(
        "--least", type=float, default=0.97, help="ratio of the rate of every row (default %(default)s)"
    )
    parser.add_argument("--seconds", type=int, default=1, help="of each slice (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="of four slices for each row (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=tuple(_ROWS), help=", ".join(_ROWS))
    parser.add_argument("--keys-large", type=int, default=1_000_000, help="of the large store (default %(default)s)")
    parser.add_argument("--folder", default="/var/tmp", help="for all data; on a disk (default %(default)s)")
    return parser.parse_args()


def _start(
    stack: ExitStack, folder: Path, chosen: Sequence[Row], programs: Mapping[str, str], keys_large: int
) -> Mapping[tuple[str, str], Side]:
    """The sides by kind and version."""
    kinds = {row.sides[0] for row in chosen}
    database = PostgreSQL(stack, _own(folder, "postgresql")) if LEASEHOLD_PG in kinds else None
    sides: dict[tuple[str, str], Side] = {}
    for version, command in programs.items():
        for kind in kinds:
            own = _own(folder, f"{version}-{kind}".replace("-", "_"))
            print(f"starting {kind}, {version}", flush=True)
            if kind == LEASEHOLD_LARGE:
                sides[kind, version] = LargeLeasehold(stack, own, [command], key_count=keys_large, starts=1)
            elif database is not None and kind == LEASEHOLD_PG:
                sides[kind, version] = LeaseholdOnPostgreSQL(stack, own, [command], database)
            else:
                sides[kind, version] = SmallLeasehold(stack, own, [command])
    return sides


def _own(folder: Path, name: str) -> Path:
    own = folder / name
    own.mkdir()
    return own


def _measure(row: Row, sides: Mapping[tuple[str, str], Side], number: int, *, seconds: int) -> list[Pair]:
    pairs = []
    for order in _ORDERS[number % 2]:
        loads = {
            version: sides[row.sides[0], version].load(
                row.work, connections=row.connections, seconds=seconds, seed=number
            )
            for version in order
        }
        pairs.append(Pair(loads[_BEFORE], loads[_AFTER]))
        before, after = loads[_BEFORE], loads[_AFTER]
        rates = f"{before.operations_per_second:9,.0f} {after.operations_per_second:9,.0f}/s"
        print(
            f"round {number + 1:2}  {row.name:12} {rates}  p99 {before.p99_ms:6.2f} {after.p99_ms:6.2f} ms", flush=True
        )
    return pairs


def _table(comparisons: Mapping[str, Comparison]) -> str:
    lines = ["", f"{'after / before':12}  {'rate':21}  {'p99':21}  p99 before, after"]
    for name, each in comparisons.items():
        measured = f"{name:14}  {_shown(each.rate):21}"
        if each.p99 is not None:
            measured += f"  {_shown(each.p99):21}  {each.p99_ms_before:.2f}, {each.p99_ms_after:.2f} ms"
        lines.append(measured)
    return "\n".join(lines)


def _shown(quartiles: tuple[float, float, float]) -> str:
    low, median, high = quartiles
    return f"{median:5.3f} ({low:5.3f}-{high:5.3f})"


if __name__ == "__main__":
    sys.exit(main())

"""Side by side with another version of the service: `python -m bench.against --before OTHER/.venv/bin/leasehold`.

Both versions run at the same time, with stores of their own, and are loaded in turn: before, after, after, before. The
figure of a row is the median of the ratios after/before of all rounds. Exit status: 0, or 1 if a row is below --least.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.postgresql import PostgreSQL
from bench.processes import BenchError, program
from bench.rows import LEASEHOLD, LEASEHOLD_LARGE, LEASEHOLD_PG, ROWS, Row
from bench.service import LargeLeasehold, LeaseholdOnPostgreSQL, SmallLeasehold
from bench.sides import Side

_KINDS: Final = (LEASEHOLD, LEASEHOLD_LARGE, LEASEHOLD_PG)
_ROWS: Final = {row.name: row for row in ROWS if row.sides[0] in _KINDS}
_BEFORE: Final = "before"
_AFTER: Final = "after"


def main() -> int:
    options = _arguments()
    chosen = [_ROWS[name] for name in options.only or _ROWS]
    programs = {_BEFORE: options.before, _AFTER: options.after or program("leasehold")}
    ratios: dict[str, list[float]] = {row.name: [] for row in chosen}
    try:
        program("wrk")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder)))
            folder.chmod(0o711)  # PostgreSQL, which is not started as root, must pass through
            sides = _start(stack, folder, chosen, programs, options.keys_large)
            for number in range(options.rounds):
                for row in chosen:
                    rates = _measure(row, sides, number, seconds=options.seconds)
                    ratios[row.name].append(rates[_AFTER] / rates[_BEFORE])
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    medians = {name: statistics.median(of_row) for name, of_row in ratios.items()}
    print()
    for name, median in medians.items():
        print(f"{name:12} {median:.3f}  ({min(ratios[name]):.3f}-{max(ratios[name]):.3f})")
    return 0 if min(medians.values()) >= options.least else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.against", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", required=True, help="the program of the other version")
    parser.add_argument("--after", help="that of this version (default: the one installed beside this Python)")
    parser.add_argument("--least", type=float, default=0.97, help="ratio of every row (default %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="in which the sides take turns (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=tuple(_ROWS), help=", ".join(_ROWS))
    parser.add_argument("--keys-large", type=int, default=1_000_000, help="of the large store (default %(default)s)")
    parser.add_argument("--folder", default="/var/tmp", help="for all data; on a disk (default %(default)s)")
    return parser.parse_args()


def _start(
    stack: ExitStack, folder: Path, chosen: list[Row], programs: dict[str, str], keys_large: int
) -> dict[tuple[str, str], Side]:
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


def _measure(row: Row, sides: dict[tuple[str, str], Side], number: int, *, seconds: int) -> dict[str, float]:
    """Operations per second by version. The order alternates, since what one leaves behind slows the next."""
    rates: dict[str, list[float]] = {_BEFORE: [], _AFTER: []}
    order = (_BEFORE, _AFTER, _AFTER, _BEFORE) if number % 2 == 0 else (_AFTER, _BEFORE, _BEFORE, _AFTER)
    for version in order:
        side = sides[row.sides[0], version]
        load = side.load(row.work, connections=row.connections, seconds=seconds, seed=number)
        rates[version].append(load.operations_per_second)
    found = {version: statistics.mean(of_version) for version, of_version in rates.items()}
    ratio = found[_AFTER] / found[_BEFORE]
    print(f"round {number + 1}  {row.name:12} {found[_BEFORE]:9,.0f}  {found[_AFTER]:9,.0f}  {ratio:.3f}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())

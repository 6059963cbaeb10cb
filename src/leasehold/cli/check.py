"""`leasehold check`: verifies the files of a store without changing them. No service may use the store meanwhile."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from leasehold.cli.arguments import Command, Parser
from leasehold.errors import unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from leasehold.engines.file.recovery import Report


class Arguments(Namespace):
    path: str


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(program, CHECK.summary, usage="[OPTIONS] PATH", details="No service may use them meanwhile.")
    parser.add_argument("path", metavar="PATH", help="The store's file, data.json.")
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def _line(path: "Path", report: "Report") -> str:
    torn = f", a torn tail of {report.torn_bytes} bytes" if report.torn_bytes else ""
    journal = f", {report.journal_records} records in the journal{torn}"
    if report.snapshot_revision < report.revision:
        journal += f", without it {path.name} ends at revision {report.snapshot_revision}"
    foreign = ", written by another tool" if report.foreign else ""
    first, *others = report.counts.items()
    counts = ", ".join(f"{count} {plural}" for plural, count in (first, *(each for each in others if each[1])))
    return f"{path} is good: {counts}, revision {report.revision}{journal}{foreign}{_others(report)}"


def _others(report: "Report") -> str:
    """The namespaces except `default`."""
    count = len(report.namespaces.states)
    return f"; {count} other namespaces with {report.other_entries} entries" if count else ""


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from pathlib import Path

    from leasehold.engines import inspect_file

    path = Path(arguments.path)
    report = inspect_file(path)
    if not report.revision and not path.exists():
        raise unavailable(f"there is no store at {path}")
    sys.stdout.write(f"{_line(path, report)}\n")
    return 0


CHECK = Command("Verify a store's files without changing them.", run)

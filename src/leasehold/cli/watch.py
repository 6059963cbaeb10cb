"""`leasehold watch`: prints changes as they are committed."""

from collections.abc import Sequence
from typing import Final

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected
from leasehold.cli.exit_codes import SUCCESS
from leasehold.cli.options import JSON, TABLE, OutputArguments, add_output_option

RECONNECT_SECONDS: Final = 300.0
FOUND_BY_CLIENT: Final = b'{"event":"reset"}'
"""What is printed if the connection was lost in the middle of a snapshot, which begins again."""


class Arguments(ConnectionArguments, OutputArguments):
    prefixes: list[str]
    snapshot: bool
    since: int | None
    locks: bool
    values: bool
    limit: int | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        WATCH.summary,
        usage="[OPTIONS] [PREFIX]…",
        details="It runs until it is interrupted, and connects again by itself. json prints each event on a line.",
    )
    add = parser.add_argument
    add("prefixes", metavar="PREFIX", nargs="*", help="Only names that begin with one of these.")
    add_output_option(parser, JSON, (JSON, TABLE))
    add("--snapshot", action="store_true", help="First print all entries.")
    add("--since", metavar="REVISION", type=count_from(0), help="First print what has changed after this revision.")
    add("--locks", action="store_true", help="Also print changes of locks.")
    add("--no-values", dest="values", action="store_false", help="Leave the values out.")
    add("--limit", metavar="COUNT", type=count_from(1), help="End after so many events.")
    add_connection_options(parser)
    parser.set_defaults(retry=RECONNECT_SECONDS)
    parser.check_options(words)
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)

    from leasehold.cli.shown_events import EventPrinter

    printer = EventPrinter(arguments.output)
    with (
        connected(arguments, retry_seconds=0.0) as db,  # the watch has a limit of its own, which may be longer
        db.watch(
            *arguments.prefixes,
            snapshot=arguments.snapshot,
            since=arguments.since,
            locks=arguments.locks,
            values=arguments.values,
            reconnect_seconds=arguments.retry,
        ) as watch,
    ):
        for number, _ in enumerate(watch, start=1):
            printer.add(watch.line or FOUND_BY_CLIENT)
            if number == arguments.limit:
                break
    return SUCCESS


WATCH = Command("Print changes as they are committed.", run)

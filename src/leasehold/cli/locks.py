"""`leasehold locks` and `unlock`: shows who holds locks, and ends a lease."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected
from leasehold.cli.exit_codes import SUCCESS, wrong_usage
from leasehold.cli.options import JSON, TABLE, OutputArguments, add_output_option
from leasehold.cli.output import write_json

if TYPE_CHECKING:
    from leasehold_client import Request


class LocksArguments(ConnectionArguments, OutputArguments):
    prefix: str


def parse_locks(program: str, words: Sequence[str]) -> LocksArguments:
    parser = Parser(program, LOCKS.summary, usage="[OPTIONS] [PREFIX]", details="json prints each lock on a line.")
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="Only locks that begin with it.")
    add_output_option(parser, TABLE, (JSON, TABLE))
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_intermixed_args(words, LocksArguments())


def run_locks(program: str, words: Sequence[str]) -> int:
    arguments = parse_locks(program, words)

    from leasehold.cli.pages import pages
    from leasehold.cli.shown_locks import LockPrinter

    with connected(arguments) as db:
        printer = LockPrinter(arguments.output)
        for page in pages(db, "/locks", [("prefix", arguments.prefix)] if arguments.prefix else []):
            printer.add(page)
    return SUCCESS


LOCKS = Command("Show who holds locks.", run_locks)


# unlock -------------------------------------------------------------------------------------------------------


class UnlockArguments(ConnectionArguments):
    name: str
    token: int | None
    lease: str | None
    force: bool


def parse_unlock(program: str, words: Sequence[str]) -> UnlockArguments:
    parser = Parser(
        program,
        UNLOCK.summary,
        usage="[OPTIONS] NAME",
        details="Say which lease you mean, so that you do not end another one that was acquired meanwhile.",
    )
    parser.add_argument("name", metavar="NAME", help="The name of the lock.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--token", metavar="NUMBER", type=count_from(1), help="Your lease with this fencing token.")
    which.add_argument("--lease", metavar="ID", help="The lease with this lease_id.")
    which.add_argument("--force", action="store_true", help="The lease of any holder; needs the permission admin.")
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_args(words, UnlockArguments())


def run_unlock(program: str, words: Sequence[str]) -> int:
    arguments = parse_unlock(program, words)
    if arguments.token is None and arguments.lease is None and not arguments.force:
        raise wrong_usage("give --token, --lease or --force")
    with connected(arguments) as db:
        response = db.send(_release(arguments))
    write_json(response.content)
    return SUCCESS


def _release(arguments: UnlockArguments) -> "Request":
    from leasehold_client.protocol import locks

    if arguments.token is not None:
        return locks.release_by_token(arguments.name, arguments.token)
    if arguments.lease is not None:
        return locks.release(arguments.name, arguments.lease)
    return locks.force_release(arguments.name)


UNLOCK = Command("End the lease on a lock.", run_unlock)

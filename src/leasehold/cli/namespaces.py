"""`leasehold namespaces`: lists, shows, creates and deletes the namespaces of a service."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from leasehold.cli.arguments import Command, Parser, count_from
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected
from leasehold.cli.exit_codes import NOT_FOUND, SUCCESS, CommandFailed, wrong_usage
from leasehold.cli.options import JSON, TABLE, OutputArguments, add_output_option
from leasehold.cli.output import Table, write_json, write_lines

if TYPE_CHECKING:
    from leasehold_client import Client

ACTIONS: Final = ("list", "show", "create", "delete")
NO_QUOTA: Final = "none"
TITLES: Final = ("NAMESPACE", "ENTRIES", "MAX", "BYTES", "MAX", "REVISION", "CREATED")
PAGE_NAMESPACES: Final = 1_000


class Arguments(ConnectionArguments, OutputArguments):
    action: str
    name: str | None
    max_entries: int | str | None
    max_bytes: int | str | None
    yes: bool


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        NAMESPACES.summary,
        usage="[OPTIONS] [list | show NAME | create NAME | delete NAME]",
        details="create also changes the quotas of a namespace that exists. It needs the permission admin.",
    )
    add = parser.add_argument
    add("action", metavar="ACTION", nargs="?", choices=ACTIONS, default="list", help=f"{', '.join(ACTIONS)}.")
    add("name", metavar="NAME", nargs="?", help="1 to 63 of the characters a to z, 0 to 9 and -.")
    add("--max-entries", metavar="N", type=_quota, help="create: at most so many entries, or none for no quota.")
    add("--max-bytes", metavar="N", type=_quota, help="create: at most so many bytes of keys and values, or none.")
    add("--yes", action="store_true", help="delete: do not ask.")
    add_output_option(parser, TABLE, (JSON, TABLE))
    add_connection_options(parser, has_namespace=False)
    parser.check_options(words)
    arguments = parser.parse_intermixed_args(words, Arguments())
    if (arguments.action == "list") != (arguments.name is None):
        parser.error("list takes no name" if arguments.action == "list" else f"give the NAME to {arguments.action}")
    if arguments.action != "create" and (arguments.max_entries is not None or arguments.max_bytes is not None):
        parser.error("--max-entries and --max-bytes are for create")
    if arguments.action != "delete" and arguments.yes:
        parser.error("--yes is for delete")
    return arguments


def _quota(text: str) -> int | str:
    """The `type` of a quota: a number, or `none`."""
    return text if text == NO_QUOTA else count_from(0)(text)


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    with connected(arguments) as db:
        if arguments.name is None:
            _list(db, arguments.output)
        elif arguments.action == "create":
            _create(db, arguments.name, arguments)
        else:
            _show_or_delete(db, arguments.name, arguments)
    return SUCCESS


def _create(db: "Client", name: str, arguments: Arguments) -> None:
    from leasehold_client.protocol import namespaces
    from leasehold_client.values import MISSING, MissingType

    def quota(given: int | str | None) -> int | MissingType | None:
        return MISSING if given is None else None if isinstance(given, str) else given

    request = namespaces.create(name, max_entries=quota(arguments.max_entries), max_bytes=quota(arguments.max_bytes))
    _print(db.send(request).content, arguments.output)


def _show_or_delete(db: "Client", name: str, arguments: Arguments) -> None:
    """Raises CommandFailed, also if there is no such namespace."""
    from leasehold_client import NoSuchNamespace
    from leasehold_client.protocol import namespaces

    from leasehold.cli.shown_namespaces import parsed

    try:
        if arguments.action == "show":
            _print(db.send(namespaces.info(name)).content, arguments.output)
            return
        if not arguments.yes:
            _confirm(name, parsed(db.send(namespaces.info(name)).content).entries)
        write_json(db.send(namespaces.delete(name)).content)
    except NoSuchNamespace as error:
        raise CommandFailed(error.message, NOT_FOUND) from error


def _confirm(name: str, entries: int) -> None:
    """Ask on the terminal. Raises CommandFailed unless the user agrees."""
    if not sys.stdin.isatty():
        raise wrong_usage("standard input is not a terminal to ask on; delete it with --yes")
    sys.stderr.write(f"Delete the namespace {name} with {entries:,} {'entry' if entries == 1 else 'entries'}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed("nothing was deleted")


# Output -------------------------------------------------------------------------------------------------------


def _list(db: "Client", output: str) -> None:
    from leasehold_client.protocol import namespaces

    from leasehold.cli.shown_namespaces import page_of, row

    table = Table(TITLES)
    after: str | None = None
    while True:
        page = page_of(db.send(namespaces.page(after, limit=PAGE_NAMESPACES)).content)
        if output == JSON:
            write_lines(page.namespaces)
        else:
            table.add(row(each) for each in page.namespaces)
        if page.next is None:
            return
        after = page.next


def _print(namespace: bytes, output: str) -> None:
    from leasehold.cli.shown_namespaces import row

    if output == JSON:
        write_json(namespace)
    else:
        Table(TITLES).add([row(namespace)])


NAMESPACES = Command("List, show, create and delete namespaces.", run)

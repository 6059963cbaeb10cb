"""What the commands that change entries have in common: options, the request, and the output."""

from collections.abc import Iterator
from typing import Final

from leasehold.cli.arguments import Parser
from leasehold.cli.connecting import (
    WriteArguments,
    add_connection_options,
    add_lease_option,
    connected,
    header_text,
    lease_of,
)
from leasehold.cli.exit_codes import SUCCESS
from leasehold.cli.options import JSON, TABLE, OutputArguments, Pair, add_if_match_option, add_output_option
from leasehold.cli.output import write_json

JSON_TYPE: Final = "application/json"


class KeyedArguments(WriteArguments):
    """The arguments of a command with one change."""

    idempotency_key: str | None


class ChangeArguments(KeyedArguments, OutputArguments):
    """Not each command has all of these options. argparse does not set a default where there is one here."""

    key: str
    path: str | None = None
    ttl: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


def add_keyed_options(parser: Parser) -> None:
    """The options of every command with one change."""
    add_lease_option(parser)
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        type=header_text,
        help="Do it once, however often a command has this key within 10 minutes.",
    )


def add_change_options(parser: Parser) -> None:
    """The options of every command that changes one entry."""
    add_if_match_option(parser)
    add_keyed_options(parser)
    add_output_option(parser, JSON, (JSON, TABLE))
    add_connection_options(parser)


def send_change(
    arguments: ChangeArguments,
    method: str,
    *parameters: Pair,
    content: bytes | None = None,
    content_type: str | None = None,
) -> int:
    """Send the request of the command, and print the response. Returns the exit code. Raises CommandFailed."""
    from leasehold_client import Request
    from leasehold_client.protocol.messages import named, target

    headers = [("Accept", JSON_TYPE), *conditions_of(arguments)]
    if content_type is not None:
        headers.append(("Content-Type", content_type))
    with connected(arguments) as db:
        address = target(named("/kv", arguments.key), [*_parameters_of(arguments), *parameters])
        response = db.send(Request(method, address, headers, content, is_change=True))
    if arguments.output == TABLE:
        from leasehold.cli.shown_entries import print_entry

        print_entry(response.content)
    else:
        write_json(response.content)
    return SUCCESS


def _parameters_of(arguments: ChangeArguments) -> Iterator[Pair]:
    if arguments.path is not None:
        yield "path", arguments.path
    if arguments.ttl is not None:
        yield "ttl", arguments.ttl


def conditions_of(arguments: ChangeArguments) -> Iterator[Pair]:
    """The headers on which the change depends."""
    yield from fences_of(arguments)
    if arguments.if_match is not None:
        yield "If-Match", arguments.if_match
    if arguments.if_none_match is not None:
        yield "If-None-Match", arguments.if_none_match


def fences_of(arguments: KeyedArguments) -> Iterator[Pair]:
    """The headers with the lease and the idempotency key."""
    if arguments.idempotency_key is not None:
        yield "Idempotency-Key", arguments.idempotency_key
    lease = lease_of(arguments)
    if lease is not None:
        yield "If-Lease", lease

"""`leasehold get`: prints a value, or an entry."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import ConnectionArguments, add_connection_options, connected, seconds
from leasehold.cli.exit_codes import CONDITION_FAILED, SUCCESS, CommandFailed, wrong_usage
from leasehold.cli.options import JSON, RAW, TABLE, OutputArguments, Pair, add_output_option, add_path_option, etag
from leasehold.cli.output import write_bytes, write_json, write_media

if TYPE_CHECKING:
    from leasehold_client import Client, Response

MAX_WAIT_SECONDS: Final = 60.0
"""As long as one request may wait."""
NOT_MODIFIED: Final = 304


class Arguments(ConnectionArguments, OutputArguments):
    key: str
    text: bool
    path: str | None
    wait: float
    if_none_match: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        GET.summary,
        usage="[OPTIONS] KEY",
        details="raw is the value as it is stored; json is the entry.",
    )
    parser.add_argument("key", metavar="KEY")
    add_output_option(parser, RAW)
    parser.add_argument("--text", action="store_true", help="Print a string without quotes and escapes.")
    add_path_option(parser)
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=0.0,
        help="How long to wait for the entry or the part, if there is none.",
    )
    parser.add_argument(
        "--if-none-match",
        metavar="ETAG",
        type=etag,
        help="Only if it has another ETag or revision; with --wait, wait for that.",
    )
    add_connection_options(parser)
    parser.check_options(words)
    return parser.parse_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    if arguments.text and arguments.output != RAW:
        raise wrong_usage("--text is for -o raw")
    with connected(arguments) as db:
        response = _response(db, arguments)
    if response.status == NOT_MODIFIED:
        raise CommandFailed(f"{arguments.key} has not changed", CONDITION_FAILED)
    media = response.headers.get("content-type", "")
    if arguments.output == TABLE:
        from leasehold.cli.shown_entries import print_entry

        print_entry(response.content)
    elif arguments.text and response.content.startswith(b'"'):
        write_bytes(_text_of(response.content) + b"\n")
    elif arguments.output == JSON or media.partition(";")[0] == "application/json":
        write_json(response.content)
    else:
        write_media(response.content, media)
    return SUCCESS


def _text_of(string: bytes) -> bytes:
    """The text of a JSON string."""
    import json

    text: str = json.loads(string)
    return text.encode()


def _response(db: "Client", arguments: Arguments) -> "Response":
    """The response to the last of as many requests as the wait needs."""
    from leasehold_client import NotFound, Request
    from leasehold_client.protocol.messages import named, number, target

    address = named("/kv", arguments.key)
    give_up_at = time.monotonic() + arguments.wait
    while True:
        wait = min(max(give_up_at - time.monotonic(), 0.0), MAX_WAIT_SECONDS)
        parameters = [*_parameters(arguments), *([("wait", number(wait))] if wait > 0 else [])]
        request = Request("GET", target(address, parameters), _headers(arguments), wait_seconds=wait)
        try:
            response = db.send(request)
        except NotFound:
            if time.monotonic() >= give_up_at:
                raise
            continue
        if response.status != NOT_MODIFIED or time.monotonic() >= give_up_at:
            return response


def _parameters(arguments: Arguments) -> Iterator[Pair]:
    if arguments.path is not None:
        yield "path", arguments.path
    if arguments.output == RAW:
        yield "raw", ""
    elif arguments.output == JSON:
        yield "base64", ""


def _headers(arguments: Arguments) -> Sequence[Pair]:
    accept = ("Accept", "*/*" if arguments.output == RAW else "application/json")
    if arguments.if_none_match is None:
        return (accept,)
    return accept, ("If-None-Match", of_each_representation(arguments.if_none_match))


def of_each_representation(etag: str) -> str:
    """The ETags that the revision of this one has as JSON, as a raw value and as bytes (docs/api.md, ETag).

    The service compares only that of the representation which it would send, and the user does not know which one that
    is. Anything else than one ETag of the service stays as it is.
    """
    own = re.fullmatch(r'(?:W/)?"([0-9]+(?:\.[0-9a-f]{6})?)(?:-raw|-bytes)?"', etag)
    return etag if own is None else ", ".join(f'"{own[1]}{suffix}"' for suffix in ("", "-raw", "-bytes"))


GET = Command("Print a value, or an entry.", run)

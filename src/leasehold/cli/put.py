"""`leasehold put`: stores a value, or a part of one."""

from collections.abc import Iterator, Sequence
from typing import Final

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import add_connection_options, add_lease_option, connected
from leasehold.cli.exit_codes import SUCCESS, wrong_usage
from leasehold.cli.input import InputArguments, add_value_argument, read_input
from leasehold.cli.options import (
    JSON,
    TABLE,
    ChangeArguments,
    OutputArguments,
    add_if_match_option,
    add_output_option,
    add_path_option,
    add_ttl_option,
    conditions_of,
    etag,
    parameters_of,
)
from leasehold.cli.output import write_json

JSON_TYPE: Final = "application/json"


class Arguments(ChangeArguments, InputArguments, OutputArguments):
    key: str
    text: bool
    media: str | None
    if_absent: bool


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        PUT.summary,
        usage="[OPTIONS] KEY VALUE",
        details="In a command under `leasehold lock` it writes only while the lock is held.",
    )
    parser.add_argument("key", metavar="KEY")
    add_value_argument(parser)
    parser.add_argument("--text", action="store_true", help="The value is text, stored as a JSON string.")
    parser.add_argument("--media", metavar="TYPE", help="The value is bytes of this media type: image/png.")
    add_path_option(parser, "Write only this part of the value, a JSON Pointer; /list/- appends.")
    add_ttl_option(parser, "it does not expire")
    add_if_match_option(parser)
    parser.add_argument(
        "--if-none-match", metavar="ETAG", type=etag, help="Only if it does not have this ETag or revision."
    )
    parser.add_argument("--if-absent", action="store_true", help="Only if there is no such entry.")
    add_lease_option(parser)
    add_output_option(parser, JSON, (JSON, TABLE))
    add_connection_options(parser)
    parser.check_options(words)
    # So that options may stand between the key and the value, which is optional.
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    if arguments.if_absent:
        if arguments.if_none_match is not None:
            raise wrong_usage("--if-absent and --if-none-match cannot be combined")
        arguments.if_none_match = "*"
    if arguments.text and arguments.media is not None:
        raise wrong_usage("--text and --media cannot be combined")
    content = _as_json_string(read_input(arguments)) if arguments.text else read_input(arguments)

    from leasehold_client import Request
    from leasehold_client.protocol.messages import named, target

    with connected(arguments) as db:
        headers = [*_media_headers(arguments), *conditions_of(arguments)]
        address = target(named("/kv", arguments.key), parameters_of(arguments))
        response = db.send(Request("POST", address, headers, content, is_change=True))
    if arguments.output == TABLE:
        from leasehold.cli.shown_entries import print_entry

        print_entry(response.content)
    else:
        write_json(response.content)
    return SUCCESS


def _media_headers(arguments: Arguments) -> Iterator[tuple[str, str]]:
    yield "Accept", JSON_TYPE
    yield "Content-Type", JSON_TYPE if arguments.media is None else arguments.media


def _as_json_string(text: bytes) -> bytes:
    import json

    try:
        return json.dumps(text.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise wrong_usage("the text is not UTF-8; store it as bytes with --media") from error


PUT = Command("Store a value, or a part of one.", run)

"""`leasehold put`: stores a value, or a part of one, or adds a number to one."""

from collections.abc import Sequence

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.changes import JSON_TYPE, ChangeArguments, add_change_options, send_change
from leasehold.cli.connecting import header_text
from leasehold.cli.exit_codes import wrong_usage
from leasehold.cli.input import InputArguments, add_value_argument, read_input
from leasehold.cli.options import KEEP, add_path_option, add_ttl_option, etag


class Arguments(ChangeArguments, InputArguments):
    increment: bool
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
    add_value_argument(parser, "The value, as JSON")
    parser.add_argument("--text", action="store_true", help="The value is text, stored as a JSON string.")
    parser.add_argument(
        "--media", metavar="TYPE", type=header_text, help="The value is bytes of this media type: image/png."
    )
    parser.add_argument(
        "--increment",
        action="store_true",
        help="Add the value, a number. The expiry is kept unless --ttl is given.",
    )
    add_path_option(parser, "Write only this part of the value, a JSON Pointer; /list/- appends.")
    add_ttl_option(parser, "it does not expire")
    parser.add_argument(
        "--if-none-match", metavar="ETAG", type=etag, help="Only if it does not have this ETag or revision."
    )
    parser.add_argument("--if-absent", action="store_true", help="Only if there is no such entry.")
    add_change_options(parser)
    parser.check_options(words)
    # So that options may stand between the key and the value, which is optional.
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    if arguments.if_absent:
        if arguments.if_none_match is not None:
            raise wrong_usage("--if-absent and --if-none-match cannot be combined")
        arguments.if_none_match = "*"
    if arguments.text + (arguments.media is not None) + arguments.increment > 1:
        raise wrong_usage("--text, --media and --increment cannot be combined")
    content = read_input(arguments)
    if arguments.increment:
        arguments.ttl = arguments.ttl or KEEP
        return send_change(arguments, "POST", ("increment", ""), content=content, content_type=JSON_TYPE)
    if arguments.text:
        content = _as_json_string(content)
    return send_change(arguments, "POST", content=content, content_type=arguments.media or JSON_TYPE)


def _as_json_string(text: bytes) -> bytes:
    import json

    try:
        return json.dumps(text.decode(), ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise wrong_usage("the text is not UTF-8; store it as bytes with --media") from error


PUT = Command("Store a value, or a part of one.", run)

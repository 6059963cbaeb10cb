"""`leasehold delete`: deletes an entry, a part of a value, or all entries with a prefix."""

from collections.abc import Sequence

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.changes import JSON_TYPE, ChangeArguments, add_change_options, conditions_of, send_change
from leasehold.cli.connecting import connected
from leasehold.cli.exit_codes import SUCCESS, wrong_usage
from leasehold.cli.options import TABLE, add_path_option
from leasehold.cli.output import write_json


class Arguments(ChangeArguments):
    key: str
    prefix: str | None


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(program, DELETE.summary, usage="[OPTIONS] KEY | --prefix PREFIX")
    parser.add_argument("key", metavar="KEY", nargs="?", default="")
    add_path_option(parser, "Delete only this part of the value, a JSON Pointer.")
    parser.add_argument("--prefix", help="Delete all entries whose keys begin with it.")
    add_change_options(parser)
    parser.check_options(words)
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    if (arguments.key == "") == (arguments.prefix is None):
        raise wrong_usage("give a key or --prefix")
    if arguments.prefix is None:
        return send_change(arguments, "DELETE")
    if arguments.path is not None or arguments.if_match is not None or arguments.output == TABLE:
        raise wrong_usage("--prefix cannot be combined with --path, --if-match and -o table")
    return _delete_prefix(arguments, arguments.prefix)


def _delete_prefix(arguments: Arguments, prefix: str) -> int:
    from leasehold_client import Request
    from leasehold_client.protocol.entries import DELETION_SECONDS
    from leasehold_client.protocol.messages import target

    headers = [("Accept", JSON_TYPE), *conditions_of(arguments)]
    with connected(arguments) as db:
        address = target("/kv", [("prefix", prefix)])
        response = db.send(Request("DELETE", address, headers, is_change=True, work_seconds=DELETION_SECONDS))
    write_json(response.content)
    return SUCCESS


DELETE = Command("Delete an entry, a part of a value, or all entries with a prefix.", run)

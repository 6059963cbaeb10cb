"""`leasehold patch`: changes a value by a merge patch or a JSON patch."""

from collections.abc import Sequence
from typing import Final

from leasehold.cli.arguments import Command, Parser
from leasehold.cli.changes import ChangeArguments, add_change_options, send_change
from leasehold.cli.input import InputArguments, add_value_argument, read_input
from leasehold.cli.options import KEEP, add_ttl_option

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"


class Arguments(ChangeArguments, InputArguments):
    json_patch: bool


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        PATCH.summary,
        usage="[OPTIONS] KEY PATCH",
        details="A merge patch (RFC 7396) replaces the members that it has, and removes those that are null.",
    )
    parser.add_argument("key", metavar="KEY")
    add_value_argument(parser, "The patch, as JSON", "PATCH")
    parser.add_argument("--json-patch", action="store_true", help="The patch is a list of operations (RFC 6902).")
    add_ttl_option(parser, KEEP)
    add_change_options(parser)
    parser.check_options(words)
    return parser.parse_intermixed_args(words, Arguments())


def run(program: str, words: Sequence[str]) -> int:
    arguments = parse(program, words)
    arguments.ttl = arguments.ttl or KEEP
    content_type = JSON_PATCH if arguments.json_patch else MERGE_PATCH
    return send_change(arguments, "PATCH", content=read_input(arguments), content_type=content_type)


PATCH = Command("Change members of a value, by a merge patch or a JSON patch.", run)

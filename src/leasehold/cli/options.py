"""Options that several commands for entries have."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Final

from leasehold.cli.arguments import Parser
from leasehold.cli.connecting import header_text, seconds

KEEP: Final = "keep"
Pair = tuple[str, str]


def add_path_option(parser: Parser, help_text: str = "Only this part of the value, a JSON Pointer.") -> None:
    parser.add_argument("--path", metavar="POINTER", help=help_text)


def add_ttl_option(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--ttl",
        metavar="SECONDS",
        type=_ttl,
        help=f"When the entry expires; 'keep' keeps its expiry.  [default: {default}]",
    )


def add_if_match_option(parser: Parser) -> None:
    parser.add_argument("--if-match", metavar="ETAG", type=etag, help="Only if it has this ETag or revision.")


def etag(text: str) -> str:
    """The `type` of an option: an ETag or a revision, which may be given without quotes, or `*`."""
    header_text(text)
    if text == "*" or text.startswith(('"', "W/")):
        return text
    return f'"{text}"'


def _ttl(text: str) -> str:
    if text == KEEP:
        return text
    try:
        seconds(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError("must be a number of seconds, or keep") from error
    return text


# Output -------------------------------------------------------------------------------------------------------

JSON: Final = "json"
TABLE: Final = "table"
RAW: Final = "raw"
TEXT: Final = "text"
"""A line for people."""


class OutputArguments(Namespace):
    output: str


def add_output_option(parser: Parser, default: str, choices: Sequence[str] = (JSON, TABLE, RAW)) -> None:
    *others, last = choices
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        choices=choices,
        default=default,
        help=f"{', '.join(others)} or {last}.  [default: %(default)s]",
    )

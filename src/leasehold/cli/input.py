"""The value that a command sends: from an argument, a file or standard input.

It is sent as it is, so that the service decides what is valid, and no number changes on the way.
"""

import sys
from argparse import Namespace
from typing import Final

from leasehold.cli.arguments import Parser
from leasehold.cli.exit_codes import CommandFailed, wrong_usage

STANDARD_INPUT: Final = "-"
FILE_MARK: Final = "@"


class InputArguments(Namespace):
    value: str | None
    file: str | None


def add_value_argument(parser: Parser, what: str, name: str = "VALUE") -> None:
    parser.add_argument("value", metavar=name, nargs="?", help=f"{what}; - for standard input, @FILE for a file.")
    parser.add_argument("--file", metavar="FILE", help="The same as @FILE.")


def read_input(arguments: InputArguments) -> bytes:
    """Raises CommandFailed."""
    given, file = arguments.value, arguments.file
    if (given is None) == (file is None):
        raise wrong_usage("give one of these: an argument, - for standard input, or a file")
    if file is None:
        assert given is not None
        if given.startswith(FILE_MARK):
            file = given[len(FILE_MARK) :]
        elif given != STANDARD_INPUT:
            return given.encode("utf-8", "surrogateescape")
    return read_file(STANDARD_INPUT if file is None else file)


def read_file(path: str) -> bytes:
    """All of a file, or of standard input. Raises CommandFailed."""
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.buffer.read() if sys.stdin is not None else b""
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            return file.read()
    except OSError as error:
        place = "standard input" if path == STANDARD_INPUT else path
        raise CommandFailed(f"{place} cannot be read: {error.strerror}") from error

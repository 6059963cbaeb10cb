"""Declares the options of commands. A wrong option gives one line that names the option and `--help`.

Based on `argparse`, which takes a sixth of the time of typer to import.
"""

import sys
from argparse import Action, ArgumentParser, ArgumentTypeError, HelpFormatter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Final, NamedTuple, NoReturn

from leasehold.errors import ServiceError

WIDTH_CHARACTERS: Final = 80
OPTIONS_CHARACTERS: Final = 28
"""The last column in which the explanations of the help may begin."""
MAX_SHOWN_CHARACTERS: Final = 80
"""Error messages show at most this much of a wrong word."""


DESCRIBE: Final = ("\0",)
"""The words for which a command raises `Described`. No program can be given this word: the system ends words at it."""


class Described(Exception):  # noqa: N818 - the answer to DESCRIBE
    """What the options of a command are."""

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self.actions = actions


class Command(NamedTuple):
    """`summary`: one sentence for the list of commands.

    `run` gets the name of the program (`leasehold status`) and the words after it, and returns the exit code. It raises
    ServiceError: `invalid_argument` for wrong usage.
    """

    summary: str
    run: Callable[[str, Sequence[str]], int]


class Parser(ArgumentParser):
    """Wrong usage raises `invalid_argument`. `--help` prints the help and raises SystemExit.

    Options must be written in full. `usage`: what follows the name of the program.
    """

    def __init__(self, program: str, summary: str, *, usage: str = "[OPTIONS]", details: str = "") -> None:
        super().__init__(
            prog=program,
            usage=f"{program} {usage}",
            description=f"{summary} {details}".strip(),
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("-h", "--help", action="help", help="Print this help and exit.")

    def check_options(self, words: Iterable[str]) -> None:
        """Raise `invalid_argument` for the first option that is not declared.

        Call it before `parse_args`, which would report a misspelt required option as missing.
        """
        if words is DESCRIBE:
            raise Described(self._actions)
        for word in takewhile(lambda word: word != "--", words):
            option = word.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                self.fail_for_unknown(f"option {option[:MAX_SHOWN_CHARACTERS]}", option, self._option_string_actions)

    def fail_for_unknown(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        from difflib import get_close_matches

        similar = get_close_matches(word, known, n=1)
        self.error(f"there is no {what}" + (f"; did you mean {similar[0]}?" if similar else ""))

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        raise ServiceError("invalid_argument", f"{message}{end} Try '{self.prog} --help'.")

    def print_help(self, _file: object = None) -> None:
        """Print to standard output. Unlike that of ArgumentParser, it raises if standard output cannot be written."""
        sys.stdout.write(self.format_help())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # raises if standard output cannot be written; after SystemExit nothing would report that
        super().exit(status, message)


class _Formatter(HelpFormatter):
    """Headings begin with a capital. The width is fixed, because finding that of the terminal imports `shutil`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=OPTIONS_CHARACTERS, width=WIDTH_CHARACTERS)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and heading.capitalize())

    def format_help(self) -> str:
        text = super().format_help()
        return text[:1].upper() + text[1:]


def count_from(least: int) -> Callable[[str], int]:
    """The `type` of an option whose value is an integer of `least` or more."""

    def convert(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) < least:
            raise ArgumentTypeError(f"must be an integer of {least} or more, not {text[:MAX_SHOWN_CHARACTERS]!r}")
        return int(text)

    return convert

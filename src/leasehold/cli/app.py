"""The commands `leasehold` and `jwt-generator`: which command runs, `--help`, `--version` and the exit code.

A fault or wrong usage is reported in one line on standard error; `exit_codes.py` has the exit codes. Ctrl+C, and a
reader of the output that has ended, end a command as they end other programs. Only the module of the command that runs
is imported, and it imports most modules only when it runs: the imports of `serve` take 0.2 s, and a health check runs
every few seconds.
"""

import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from leasehold import VERSION
from leasehold.cli import exit_codes
from leasehold.cli.arguments import Command, Parser
from leasehold.cli.exit_codes import CommandFailed
from leasehold.errors import ServiceError
from leasehold.process.imports import leave_out
from leasehold.process.signal_mask import end_by_signal, take_ends
from leasehold.process.streams import (
    NoReaderError,
    hold_standard_streams,
    print_error,
    translate_output_errors,
)

PROGRAM: Final = "leasehold"
SUMMARY: Final = "A durable JSON key-value store over HTTP, with lock leases that it enforces on writes."

GROUPS: Final = {
    "Commands for a running service": {
        "get": "get",
        "put": "put",
        "patch": "patch",
        "delete": "delete",
        "list": "list",
        "watch": "watch",
        "txn": "txn",
        "lock": "lock",
        "locks": "locks",
        "unlock": "locks",
        "export": "export",
        "import": "import_entries",
        "copy": "copy_entries",
        "namespaces": "namespaces",
        "status": "status",
    },
    "Commands for servers and stores": {
        "serve": "serve",
        "check": "check",
        "backup": "backup",
        "restore": "backup",
        "move": "move",
        "advance": "backup",
        "distribute": "distribute",
        "token": "token",
        "completion": "completion",
    },
}
"""The module of each command, in the order of `leasehold --help`. The module's `Command` has the name in capitals."""
MODULES: Final = {name: module for group in GROUPS.values() for name, module in group.items()}

_ONLY_FOR_OTHERS: Final = ("rich", "greenlet")
"""structlog imports these packages where it can: one for tracebacks that the log does not print, which takes 5 MB and
50 ms, the other for programs with green threads, which takes 1 MB."""


def main() -> None:
    """`leasehold`."""
    _run(PROGRAM, _run_command)


def token_main() -> None:
    """`jwt-generator`: another name for `leasehold token`."""
    name = "jwt-generator"
    _run(name, lambda words: command("token").run(name, words))


def command(name: str) -> Command:
    found = getattr(import_module(f"leasehold.cli.{MODULES[name]}"), name.upper())
    assert isinstance(found, Command)
    return found


def _run(program: str, run: Callable[[Sequence[str]], int]) -> None:
    hold_standard_streams()
    try:
        with translate_output_errors():
            code = run(sys.argv[1:])
    except CommandFailed as end:
        print_error(f"{program}: {end.message}")
        code = end.exit_code
    except ServiceError as error:
        print_error(f"{program}: {error.message}")
        code = exit_codes.WRONG_USAGE if error.code == "invalid_argument" else exit_codes.FAILED
    except KeyboardInterrupt:
        end_by_signal(signal.SIGINT)
    except NoReaderError:
        end_by_signal(signal.SIGPIPE)
    sys.exit(code)


def _run_command(words: Sequence[str]) -> int:
    name = words[0] if words else ""
    if name != "serve":  # `serve` installs its own handlers
        take_ends()
    if name in MODULES:
        leave_out(*_ONLY_FOR_OTHERS)
        return command(name).run(f"{PROGRAM} {name}", words[1:])
    return _run_alone(words)


# `leasehold` without a command --------------------------------------------------------------------------------


class _Arguments(Namespace):
    version: bool


class _Parser(Parser):
    def format_help(self) -> str:
        width = max(map(len, MODULES))
        text = super().format_help()
        for title, group in GROUPS.items():
            lines = (f"  {name:{width}}  {command(name).summary}\n" for name in group)
            text += f"\n{title}:\n{''.join(lines)}"
        return text


def _run_alone(words: Sequence[str]) -> int:
    parser = _Parser(PROGRAM, SUMMARY, usage="[OPTIONS] COMMAND [ARGUMENTS]")
    parser.add_argument("--version", action="store_true", help="Print the version and exit.")
    if not words:
        parser.print_help()
        return exit_codes.WRONG_USAGE
    if not words[0].startswith("-"):
        parser.fail_for_unknown(f"command {words[0]!r}", words[0], MODULES)
    parser.check_options(words)
    if not parser.parse_known_args(words, _Arguments())[0].version:
        parser.error("a command is missing")
    sys.stdout.write(f"{PROGRAM} {VERSION}\n")
    return 0

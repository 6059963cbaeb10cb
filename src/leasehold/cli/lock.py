"""`leasehold lock`: runs a command while it holds a lock, as `flock` does, for programs on several machines.

    acquire ──▶ start the guard, which starts the command ──▶ renew, pass signals on ──▶ release
    holding.py  process/guard.py, guarded_command.py          holding.py                 holding.py

The command ends before its lease does, also if this process is stopped or killed: the guard sees to that.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from leasehold.cli import exit_codes
from leasehold.cli.arguments import Command, Parser
from leasehold.cli.connecting import (
    LEASE_VARIABLE,
    NAMESPACE_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    URL_VARIABLE,
    ConnectionArguments,
    add_connection_options,
    connected,
    namespace_of,
    seconds,
    service_url,
)
from leasehold.cli.exit_codes import CommandFailed
from leasehold.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leasehold_client import LockHeld

    from leasehold.cli.holding import HeldLease
    from leasehold.process.guarded_command import Result

LOCK_VARIABLE: Final = "LEASEHOLD_LOCK"
FENCE_VARIABLE: Final = "LEASEHOLD_FENCE"
DEFAULT_TTL_SECONDS: Final = 30.0
DEFAULT_WAIT_SECONDS: Final = 60.0
SEPARATOR: Final = "--"


class Arguments(ConnectionArguments):
    name: str
    ttl: float
    wait: float
    at_least: float
    grace: float | None
    conflict_code: int
    command: Sequence[str]


def parse(program: str, words: Sequence[str]) -> Arguments:
    parser = Parser(
        program,
        LOCK.summary,
        usage="[OPTIONS] NAME -- COMMAND [ARGUMENT]…",
        details="It exits with the code of the command. The command gets "
        f"{URL_VARIABLE}, {NAMESPACE_VARIABLE}, {LOCK_VARIABLE}, {LEASE_VARIABLE} and {FENCE_VARIABLE}.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="The name of the lock.")
    add(
        "--ttl",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_TTL_SECONDS,
        help="If this machine fails, the lock is free after so long.  [default: %(default).0f]",
    )
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_WAIT_SECONDS,
        help="How long to wait for the lock.  [default: %(default).0f]",
    )
    waiting.add_argument("-n", "--no-wait", dest="wait", action="store_const", const=0.0, help="Do not wait.")
    add(
        "--at-least",
        metavar="SECONDS",
        type=seconds,
        default=0.0,
        help="Keep the lock for so long, even if the command ends earlier.",
    )
    add(
        "--grace",
        metavar="SECONDS",
        type=seconds,
        help="Time from SIGTERM to SIGKILL if the lease ends, up to half of the ttl.  "
        "[default: 5, or a fifth of the ttl]",
    )
    add(
        "-E",
        "--conflict-exit-code",
        metavar="CODE",
        dest="conflict_code",
        type=_exit_code,
        default=exit_codes.LOCK_HELD,
        help="Exit code if the lock is not obtained; with 0 nothing is printed.  [default: %(default)d]",
    )
    add_connection_options(parser)
    parser.check_options(words)
    own, command = _split(words)
    arguments = parser.parse_args(own, Arguments())
    if not command:
        parser.error(f"the command is missing; it follows {SEPARATOR}")
    arguments.command = command
    return arguments


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before the first `--`, and those after it."""
    at = words.index(SEPARATOR) if SEPARATOR in words else len(words)
    return words[:at], words[at + 1 :]


def _exit_code(text: str) -> int:
    from argparse import ArgumentTypeError

    if not text.isascii() or not text.isdecimal() or len(text) > 3 or int(text) > 255:
        raise ArgumentTypeError("must be an integer from 0 to 255")
    return int(text)


def run(program: str, words: Sequence[str]) -> int:
    try:
        return _run(parse(program, words))
    except ServiceError as error:  # of the parser
        raise _failed(error.message) from error
    except CommandFailed as end:
        raise _failed(end.message) from end


def _failed(message: str) -> CommandFailed:
    return CommandFailed(message, exit_codes.LOCK_COMMAND_FAILED)


def _run(arguments: Arguments) -> int:
    lease = _acquire(arguments)
    if lease is None:
        return arguments.conflict_code

    from leasehold.process.starting import NotStarted
    from leasehold.process.streams import print_error

    try:
        result = _run_command(arguments, lease)
    except NotStarted as error:
        _release(arguments, lease)
        print_error(f"leasehold: {error.message}")
        return error.exit_code
    if result.is_lost:
        print_error(f"leasehold: the lease on {lease.lock!r} is lost, and the command was ended")
        return exit_codes.LEASE_LOST
    if result.is_left or result.exit_code is None:
        raise _failed("the command may still run, so the lock is not released, and ends by itself")
    was_held = _release(arguments, lease)
    return result.exit_code if was_held else exit_codes.LEASE_LOST


def _acquire(arguments: Arguments) -> "HeldLease | None":
    """None if another holder has the lock. The client is closed, because the process forks afterwards."""
    from leasehold_client import LockHeld

    from leasehold.cli.holding import acquire

    with connected(arguments) as db:
        try:
            return acquire(db, arguments.name, ttl=arguments.ttl, wait=arguments.wait)
        except LockHeld as held:
            if arguments.conflict_code != 0:
                _tell_holder(arguments.name, held)
            return None


def _tell_holder(name: str, held: "LockHeld") -> None:
    import json

    from leasehold.process.streams import print_error

    print_error(f"leasehold: the lock {name!r} is held by {json.dumps(held.owner, ensure_ascii=False)}")


def _run_command(arguments: Arguments, lease: "HeldLease") -> "Result":
    from leasehold.cli.holding import Renewals
    from leasehold.process.guard_schedule import Schedule
    from leasehold.process.guarded_command import GuardedCommand

    sys.stdout.flush()  # the guard must not have it in its buffer, too
    is_nested = bool(os.environ.get(LOCK_VARIABLE))
    schedule = Schedule.of_lease(lease.deadline, lease.ttl, arguments.grace, is_nested=is_nested)
    command = GuardedCommand(arguments.command, _environment(arguments, lease), schedule)
    renewals = Renewals(lease, lambda: connected(arguments), extend=command.extend, lose=command.lose)
    try:
        return command.wait()
    finally:
        renewals.stop()


def _environment(arguments: Arguments, lease: "HeldLease") -> "Mapping[str, str]":
    """The environment of the command, in which its own `leasehold put` is fenced by the lease."""
    variables = dict(os.environ) | {
        URL_VARIABLE: service_url(arguments.url),
        NAMESPACE_VARIABLE: namespace_of(arguments),
        LOCK_VARIABLE: lease.lock,
        LEASE_VARIABLE: lease.lease_id,
        FENCE_VARIABLE: str(lease.token),
    }
    if arguments.token_file is not None:
        variables[TOKEN_FILE_VARIABLE] = os.path.abspath(arguments.token_file)  # noqa: PTH100 - pathlib takes long
        variables.pop(TOKEN_VARIABLE, None)
    return variables


def _release(arguments: Arguments, lease: "HeldLease") -> bool:
    """Whether the lease was alive until now, as far as is known."""
    from leasehold_client import LeaseholdError, LeaseLost, LockNotFound, NoSuchNamespace

    from leasehold.cli.holding import release
    from leasehold.process.streams import print_error

    with connected(arguments) as db:
        try:
            release(db, lease, at_least_seconds=arguments.at_least)
        except (LeaseLost, LockNotFound, NoSuchNamespace):
            print_error(f"leasehold: the lease on {lease.lock!r} was lost before the command ended")
            return False
        except LeaseholdError as error:
            print_error(f"leasehold: the lock {lease.lock!r} is not released, and ends by itself: {error.message}")
    return True


LOCK = Command("Run a command while holding a lock.", run)

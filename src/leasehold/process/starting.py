"""Starts a program as the first process of its own process group, without a shell."""

import errno
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from leasehold.process import terminal

GO: Final = b"g"
NO_PROCESS: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""The interpreter ignores these signals from its start, so what they were before is not known."""


class NotStarted(Exception):  # noqa: N818 - the result of an attempt
    """`exit_code`: 127 if there is no such program, 126 if it cannot be run, as `env` and shells exit.

    125 if the system has no room for another process.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    mask: Iterable[int],
    *,
    takes_terminal: bool,
    announce: Callable[[int], None],
) -> int:
    """Start a program, and return its process id, which is also the id of its process group. Raises NotStarted.

    `announce` gets the id before the program runs, so that the program is known to another process from the beginning.
    The caller has one thread, blocks all signals, and has only such descriptors open that are for the program or close
    on exec. `mask`: the signals that the program blocks. `takes_terminal`: it becomes the foreground group of the
    terminal at standard input. Signals that this process ignores stay ignored, as `nohup` needs it.
    """
    before = terminal.foreground_group()
    results, own = os.pipe()
    waiting, release = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        raise NotStarted(f"no process can be started: {error.strerror}", NO_PROCESS) from error
    if pid == 0:
        try:
            os.close(release)
            if os.read(waiting, 1) != GO:
                os._exit(NO_PROCESS)  # the parent was killed
            _become(words, environment, mask, loser=before if takes_terminal else None)
        except OSError as error:
            os.write(own, str(error.errno).encode())
        except ValueError:  # of Python, for an empty name, before the system is asked
            os.write(own, str(errno.ENOENT).encode())
        finally:
            os._exit(NOT_FOUND)  # nothing of the parent's program may run in this process
    for each in (own, waiting):
        os.close(each)
    announce(pid)
    os.write(release, GO)
    os.close(release)
    with open(results, "rb") as stream:  # noqa: PTH123 - a descriptor
        number = stream.read()  # empty, because exec closes the other end
    if not number:
        return pid
    os.waitpid(pid, 0)
    if takes_terminal:
        terminal.pass_to(before, of=pid)
    code = int(number)
    is_missing = isinstance(OSError(code, ""), FileNotFoundError)
    raise NotStarted(f"{words[0]!r} cannot be run: {os.strerror(code)}", NOT_FOUND if is_missing else NOT_EXECUTABLE)


def _become(words: Sequence[str], environment: Mapping[str, str], mask: Iterable[int], *, loser: int | None) -> None:
    """`loser`: the group that the terminal is taken from."""
    os.setpgid(0, 0)
    if loser is not None:
        terminal.pass_to(os.getpid(), of=loser)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) != signal.SIG_IGN or number in IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
    # Signals that came since the fork are delivered here.
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.execvpe(words[0], [*words], environment)  # noqa: S606 - the words are the user's own

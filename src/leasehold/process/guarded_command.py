"""A command that ends before its lease does: starts its guard, passes signals and the terminal on, returns its result.

    command = GuardedCommand(words, environment, schedule)
    command.extend(deadline)        # at each renewal, from any thread
    result = command.wait()         # on the main thread

Signals to this process are passed on to the process group of the command, except those that the process ignored from
the start, as `nohup` and shells arrange for jobs in the background. While the command is stopped by the terminal
(ctrl+Z), this process stops, too, so that the shell takes over; the guard still ends the command in time.
"""

import os
import select
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from leasehold.process import guard_messages, terminal
from leasehold.process.guard import Guard
from leasehold.process.guard_messages import Lines
from leasehold.process.guard_schedule import Schedule
from leasehold.process.starting import IGNORED_BY_PYTHON, NO_PROCESS, NotStarted

NOT_PASSED_ON: Final = {
    signal.SIGKILL,  # these two cannot be handled
    signal.SIGSTOP,
    signal.SIGCHLD,  # these two are about this process
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGABRT,  # faults of this process
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
    *IGNORED_BY_PYTHON,
}
STOPS_OF_TERMINALS: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


@dataclass(frozen=True)
class Result:
    """`exit_code`: as a shell has it, 128 + n after signal n; None if it is not known. `is_lost`: the command was ended
    because the lease ended. `is_left`: processes of the command may still run."""

    exit_code: int | None
    is_lost: bool
    is_left: bool


class GuardedCommand:
    """Made on the main thread, before the process has others, and before it opens connections: it forks.

    `environment` is the whole environment of the command. Raises NotStarted if there can be no guard.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], schedule: Schedule) -> None:
        self._passes_terminal = terminal.can_be_passed()
        is_foreground = self._passes_terminal and terminal.foreground_group() == os.getpgrp()
        orders, self._orders = os.pipe()
        reports, own = os.pipe()
        self._reports = Lines(reports)
        self._group = 0
        self._continued = 0
        self._is_lost = False
        self._result: Result | None = None
        # The guard must never be without its own arrangement of signals.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._guard = _fork()
            if self._guard == 0:
                for each in (self._orders, reports):
                    os.close(each)
                _be_guard(Guard(orders, own, schedule), words, environment, mask, takes_terminal=is_foreground)
            for each in (orders, own):
                os.close(each)
            # In the background, this process sets the foreground group, and writes messages to the terminal.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            self._passed_on = _passed_on()
            self._wakeup, self._signals = os.pipe()
            for each in (self._wakeup, self._signals):
                os.set_blocking(each, False)
            for number in (*self._passed_on, signal.SIGCHLD):
                signal.signal(number, _only_wake)
            signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def extend(self, deadline: float) -> None:
        """The lease certainly lasts until then (`boot_clock`)."""
        guard_messages.write(self._orders, "deadline", repr(deadline))

    def lose(self) -> None:
        """The lease is over: the command is killed at once."""
        guard_messages.write(self._orders, "lost")

    def wait(self) -> Result:
        """Wait for the end of the command and of its process group. Raises NotStarted."""
        try:
            while self._result is None:
                select.select([self._reports.pipe, self._wakeup], [], [])
                self._pass_signals_on()
                for word, *values in self._reports.read():
                    self._note(word, values)
                if self._reports.is_over and self._result is None:
                    self._result = self._end_without_guard()
        finally:
            if self._passes_terminal:
                terminal.pass_to(os.getpgrp(), of=self._group)
            signal.set_wakeup_fd(-1)
            for number in (*self._passed_on, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
        with suppress(ChildProcessError):  # it may be taken already
            os.waitpid(self._guard, 0)
        return self._result

    def _note(self, word: str, values: Sequence[str]) -> None:
        match word:
            case "started":
                self._group = int(values[0])
            case "failed":
                raise NotStarted(" ".join(values[1:]), int(values[0]))
            case "stopped":
                # A stop from before the last SIGCONT is over. Two stops may have been reported while this process was
                # stopped, so the SIGCONT after the first `_stop` is passed on before the second report is judged.
                self._pass_signals_on()
                if int(values[0]) in STOPS_OF_TERMINALS and int(values[1]) == self._continued:
                    self._stop()
            case "lost":
                self._is_lost = True
            case "ended":
                code = None if values[0] == "?" else int(values[0])
                self._result = Result(code, self._is_lost, values[1] == "1")
            case _:
                raise AssertionError(word)

    def _end_without_guard(self) -> Result:
        """The guard was killed, so nothing would end the command in time."""
        if self._group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        return Result(None, self._is_lost, is_left=True)

    # Signals ------------------------------------------------------------------------------------------------------

    def _pass_signals_on(self) -> None:
        """Pass on the signals that have come. Does not wait."""
        try:
            numbers = os.read(self._wakeup, 512)
        except BlockingIOError:
            return
        for number in numbers:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            _take_orphans()
            return
        if number == signal.SIGCONT and self._passes_terminal and self._group:
            terminal.pass_to(self._group, of=os.getpgrp())
        self._continued += number == signal.SIGCONT
        guard_messages.write(self._orders, "signal", number)

    def _stop(self) -> None:
        """Stop this process until the shell continues it, if a shell can: the system ignores SIGTSTP otherwise."""
        whom = os.getpid()
        if self._passes_terminal:
            whom = 0  # the group, because the shell may wait for another process of it, such as a script
            terminal.pass_to(os.getpgrp(), of=self._group)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(whom, signal.SIGTSTP)
        # It goes on here after SIGCONT, which is then passed on.
        signal.signal(signal.SIGTSTP, _only_wake if signal.SIGTSTP in self._passed_on else signal.SIG_IGN)


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise NotStarted(f"no process can be started: {error.strerror}", NO_PROCESS) from error


def _be_guard(
    guard: Guard,
    words: Sequence[str],
    environment: Mapping[str, str],
    mask: Iterable[int],
    *,
    takes_terminal: bool,
) -> NoReturn:
    code = NO_PROCESS
    try:
        guard.run(words, environment, mask, takes_terminal=takes_terminal)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        os._exit(code)  # the rest of the program is for the parent


def _passed_on() -> Sequence[signal.Signals]:
    return [
        number
        for number in signal.valid_signals()
        if number not in NOT_PASSED_ON and signal.getsignal(number) != signal.SIG_IGN
    ]


def _only_wake(_number: int, _frame: object) -> None:
    """The number comes through `set_wakeup_fd`."""


def _take_orphans() -> None:
    """Take the exit statuses of all children. As the first process of a container, this process gets those of others;
    the group of the command would not become empty while they are not taken."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass

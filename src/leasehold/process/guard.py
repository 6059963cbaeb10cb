"""The guard: a process that starts a command, and ends it before the lease is over, whatever happens to its parent.

`leasehold lock` starts it. The parent renews the lease and tells the guard each new deadline through a pipe
(`guard_messages.py`). If the parent is stopped, killed or too slow, no new deadline comes, and the guard ends the
command in time. `guard_schedule.py` decides when; this module does it.

- The guard, and not its parent, has the command as its child: no other process gets the id of the command's group until
  the guard has taken its exit status, so a signal never goes to a stranger.
- The guard has a process group of its own, so a signal to the group of the parent (SIGSTOP, ctrl+Z) does not stop it.
  It stays in the session, because the system does not let a terminal stop a group whose parents are all in other
  sessions (an orphaned group, POSIX 3.263). It blocks all signals but SIGCHLD.
- The whole process group of the command is ended. A process that leaves the group, as daemons do, is not found.
- When the first process of the command ends, the rest of its group is ended, too: otherwise it would go on without the
  lock.
"""

import os
import select
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from leasehold.process import guard_messages
from leasehold.process.boot_clock import boot_seconds
from leasehold.process.guard_messages import Lines
from leasehold.process.guard_schedule import Schedule, Stage
from leasehold.process.starting import NotStarted, start

LONGEST_SLEEP_SECONDS: Final = 0.25
"""`select` does not count the time for which the machine is suspended, and leases do. So the clock is read so often."""
GROUP_LOOKS_SECONDS: Final = 0.01
"""The system does not tell when a group has become empty."""
SIGNALLED: Final = 128
LEFT_SECONDS: Final = 5.0
"""How long after SIGKILL processes are waited for. Some cannot be ended: those of another user, and those in a system
call that does not return."""


class Guard:
    """`orders` is the reading end of a pipe from the parent, `reports` the writing end of one to it."""

    def __init__(self, orders: int, reports: int, schedule: Schedule) -> None:
        self._orders = Lines(orders)
        self._reports = reports
        self._schedule = schedule
        self._group = 0
        self._exit_code: int | None = None
        """Of the first process of the command, once it has ended."""
        self._continued = 0
        """How many times the parent has continued the command."""

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], mask: Iterable[int], *, takes_terminal: bool
    ) -> None:
        """Run the command to its end. All signals must be blocked. `mask`: those that the command blocks."""
        os.setpgid(0, 0)
        os.set_blocking(self._reports, False)  # a stopped parent that does not read must not stop the guard
        wakeup = self._wake_at_ends()
        try:
            self._group = start(
                words,
                environment,
                mask,
                takes_terminal=takes_terminal,
                announce=lambda group: self._report("started", group),
            )
        except NotStarted as error:
            self._report("failed", error.exit_code, error.message)
            return
        try:
            is_left = self._watch(wakeup)
        except BaseException:
            self._send(signal.SIGKILL)
            raise
        self._report("ended", "?" if self._exit_code is None else self._exit_code, int(is_left))

    @staticmethod
    def _wake_at_ends() -> int:
        """A descriptor that becomes readable when the command has ended or was stopped."""
        wakeup, own = os.pipe()
        for end in (wakeup, own):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        return wakeup

    def _watch(self, wakeup: int) -> bool:
        """Returns whether processes of the group are left that cannot be ended."""
        while True:
            self._obey()
            self._look()
            now = boot_seconds()
            if self._exit_code is not None and not self._exists():
                return False
            if self._schedule.stage is Stage.KILLED and now >= self._schedule.kill_at + LEFT_SECONDS:
                return True
            was_lost = self._schedule.is_lost
            self._schedule, signals = self._schedule.due(now)
            for number in signals:
                self._send(number)
            if self._schedule.is_lost and not was_lost:
                self._report("lost")
            sources = [wakeup] if self._orders.is_over else [wakeup, self._orders.pipe]
            if select.select(sources, [], [], self._pause(now))[0]:
                _drain(wakeup)

    def _pause(self, now: float) -> float:
        if self._exit_code is not None or self._schedule.stage is Stage.KILLED:
            return GROUP_LOOKS_SECONDS
        next_at = self._schedule.next_at()
        return LONGEST_SLEEP_SECONDS if next_at is None else min(max(next_at - now, 0.0), LONGEST_SLEEP_SECONDS)

    def _obey(self) -> None:
        for word, *values in self._orders.read():
            match word:
                case "deadline":
                    self._schedule = self._schedule.renewed(float(values[0]))
                case "lost":
                    self._schedule = self._schedule.lost(boot_seconds())
                    self._report("lost")
                case "signal":
                    self._send(int(values[0]))
                    self._continued += int(values[0]) == signal.SIGCONT
                case _:
                    raise AssertionError(word)
        if self._orders.is_over:
            self._schedule = self._schedule.abandoned(boot_seconds())

    def _look(self) -> None:
        """Take what has happened to the first process of the command."""
        while self._exit_code is None:
            pid, status = os.waitpid(self._group, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._report("stopped", os.WSTOPSIG(status), self._continued)
            else:
                code = os.waitstatus_to_exitcode(status)
                self._exit_code = code if code >= 0 else SIGNALLED - code
                self._schedule = self._schedule.ending(boot_seconds())

    def _exists(self) -> bool:
        """Whether the group has processes. Once its first process is gone, the system keeps the id as long as it has.

        The id of an empty group becomes free. It does not come back within the time of one look, because the system
        counts through all other ids first.
        """
        try:
            os.killpg(self._group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # processes of another user, which the command has become
            return True
        return True

    def _send(self, number: int) -> None:
        try:
            os.killpg(self._group, number)
        except (ProcessLookupError, PermissionError):
            return

    def _report(self, word: str, *values: object) -> None:
        guard_messages.write(self._reports, word, *values)


def _drain(wakeup: int) -> None:
    try:
        while os.read(wakeup, 512):
            pass
    except BlockingIOError:
        return

"""`GuardedCommand` with a guard that reports in an order which is rare otherwise."""

import os
import signal
import subprocess
import sys

from running import until

STOPPED_TWICE = """
import os
import select
import signal
import sys

from leasehold.process import guarded_command
from leasehold.process.guard_messages import Lines
from leasehold.process.guard_schedule import Schedule


class Guard:
    def __init__(self, orders, reports, _schedule):
        self.orders, self.reports = Lines(orders), reports

    def run(self, *_words, **_options):
        os.setpgid(0, 0)
        stopped = f"stopped {signal.SIGTTIN} 0"
        os.write(self.reports, f"started {os.getpid()}\\n{stopped}\\n{stopped}\\n".encode())
        while ["signal", str(int(signal.SIGCONT))] not in self.orders.read():
            if self.orders.is_over:  # the test has killed the parent
                return
            select.select([self.orders.pipe], [], [])
        os.write(self.reports, b"ended 6 0\\n")


guarded_command.Guard = Guard
schedule = Schedule.of_lease(0.0, 600.0, None, is_nested=False)
sys.exit(guarded_command.GuardedCommand(["true"], os.environ, schedule).wait().exit_code)
"""
"""The guard reports two stops before it is told of a SIGCONT, and the end after that. So it is when the command stops,
is continued by another process than the shell, and stops again, while `leasehold lock` is stopped."""


def next_status(pid: int) -> int:
    """Wait until the process stops or ends."""
    taken = 0
    status = 0

    def has_come() -> bool:
        nonlocal taken, status
        taken, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        return taken == pid

    until(has_come)
    return status


def test_one_sigcont_is_enough_after_two_stops_of_the_command() -> None:
    # In a group of its own. The system lets SIGTSTP stop it, because its parent is in another group of the session.
    with subprocess.Popen([sys.executable, "-c", STOPPED_TWICE], process_group=0) as process:
        try:
            assert os.WIFSTOPPED(next_status(process.pid))
            os.kill(process.pid, signal.SIGCONT)
            status = next_status(process.pid)
            assert os.WIFEXITED(status), "it has stopped again"
            assert os.waitstatus_to_exitcode(status) == 6
        finally:
            process.kill()

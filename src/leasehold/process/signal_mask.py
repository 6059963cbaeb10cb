"""SIGTERM and SIGINT are blocked from the first line of the program until something handles them.

The kernel drops a signal to the first process of a container (PID 1) that has no handler for it. `docker stop` during
the second of imports would then end in SIGKILL. A blocked signal stays pending instead, also for PID 1. So the signals
are blocked in `__main__` and across forks, until an event loop (`server/stopping.py`) or `sigwait`
(`server/workers.py`) handles them. Commands that run once restore the default action.
"""

import os
import signal
import sys
from typing import Final, NoReturn

ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def hold_ends() -> None:
    """Block the signals, so that they stay pending. Threads and child processes inherit this."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def take_ends() -> None:
    """Unblock the signals. Pending ones are delivered at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def ignore_ends() -> None:
    """Ignore further signals while the process exits.

    The interpreter removes its handlers before it exits. The default action for a second signal would then end the
    process with an error status.
    """
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)


def end_by_signal(number: signal.Signals) -> NoReturn:
    """End the process as if it had no handler for the signal, so that a shell sees how it ended.

    The kernel does not do that to PID 1; then the exit code is what a shell would report.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)

"""The signals that end the service, held until something handles them.

The first process of a container (PID 1) is not ended by a signal that it has no handler for: the kernel drops it, and
`docker stop` in the second that it takes to import all this would end in SIGKILL. A signal that is blocked is kept
instead, for PID 1 too. So they are held from the first line on (`__main__`), through forks, until an event loop
(`server`), `sigwait` (`workers`) or, for commands that just run, the usual action takes them.
"""

import signal
from typing import Final

ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def hold_ends() -> None:
    """Keep the signals that come for later. Threads and processes that are made meanwhile keep them, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def take_ends() -> None:
    """Act on the signals, those that came meanwhile first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def ignore_ends() -> None:
    """The process ends already. The interpreter gives up its handlers before that, and the usual action of a second
    signal would end it as if it had not been in order."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)

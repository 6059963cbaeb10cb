"""The deadline of a shutdown: the process ends in time, whatever hangs.

An orderly shutdown may wait for something that never ends: a disk that does not answer a sync, a silent database, a
blocked event loop. So a deadline runs in a thread and as a kernel alarm; neither needs the event loop or a lock.
Everything acknowledged is durable by then, so a forced end does not lose it.
"""

import os
import signal
import threading
from math import ceil
from typing import Final

import structlog

log = structlog.get_logger(__name__)

FORCED_CODE: Final = 1
"""The exit code of a process that was ended by force."""
FORCED_CODES: Final = (FORCED_CODE, -signal.SIGALRM)
"""The exit codes of a child process that was ended by force, as `os.waitstatus_to_exitcode` returns them."""
LOG_SECONDS: Final = 1.0
"""The longest wait for the log line of a forced end: the reader of the log may be what hangs."""
ALARM_SECONDS: Final = 3
"""If the threads do not run either, the kernel ends the process (SIGALRM) this much later."""


class Deadline:
    """Ends the process by force `seconds` after `begin`, unless `cancel` is called first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_begun = False
        self._cancelled = threading.Event()

    def begin(self) -> None:
        """Start the deadline. Idempotent, and safe to call in a signal handler."""
        if self._has_begun:
            return
        self._has_begun = True
        signal.alarm(ceil(self._seconds) + ALARM_SECONDS)
        threading.Thread(target=self._watch, name="leasehold-deadline", daemon=True).start()

    def cancel(self) -> None:
        """Stop the deadline: the shutdown was completed in time."""
        self._cancelled.set()
        if self._has_begun:
            signal.alarm(0)

    def _watch(self) -> None:
        if self._cancelled.wait(self._seconds):
            return
        telling = threading.Thread(target=self._tell, name="leasehold-last-words", daemon=True)
        telling.start()
        telling.join(LOG_SECONDS)
        os._exit(FORCED_CODE)

    def _tell(self) -> None:
        log.error(
            "exit forced: the shutdown did not end in time; acknowledged changes are kept",
            waited_seconds=self._seconds,
        )

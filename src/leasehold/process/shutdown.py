"""The end of a process: once it is asked for it comes, whatever hangs.

A stop in good order may wait for what never ends: a disk that does not answer a sync, a database that is silent, an
event loop that is stuck. So a deadline runs beside it, in a thread and in the kernel, which needs neither the event
loop nor a lock. All that was acknowledged is durable by then, so a forced end loses nothing of it.
"""

import os
import signal
import threading
from math import ceil
from typing import Final

import structlog

log = structlog.get_logger(__name__)

FORCED_CODE: Final = 1
"""Exit code of a process that had to be ended by force."""
FORCED_CODES: Final = (FORCED_CODE, -signal.SIGALRM)
"""Of a child that was ended so, as `os.waitstatus_to_exitcode` tells them."""
LOG_SECONDS: Final = 1.0
"""At most so long the log of a forced end is waited for: whoever reads it may be what hangs."""
ALARM_SECONDS: Final = 3
"""So much later the kernel ends the process (SIGALRM), should not even its threads run."""


class Deadline:
    """Ends the process by force `seconds` after `begin`, unless `cancel` comes before that."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._has_begun = False
        self._cancelled = threading.Event()

    def begin(self) -> None:
        """Idempotent. May be called by a signal handler."""
        if self._has_begun:
            return
        self._has_begun = True
        signal.alarm(ceil(self._seconds) + ALARM_SECONDS)
        threading.Thread(target=self._watch, name="leasehold-deadline", daemon=True).start()

    def cancel(self) -> None:
        """The process ends by itself."""
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
            "the end is forced: something did not stop in time; what was acknowledged is kept",
            waited_seconds=self._seconds,
        )

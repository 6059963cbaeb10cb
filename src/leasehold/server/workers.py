"""Several processes on one port, for stores that several servers may share.

Each worker is a complete server that accepts connections on the port itself (SO_REUSEPORT). The supervisor starts the
workers, replaces those that die, forwards signals, and reports once that all are ready. It holds one end of a pipe; the
workers watch the other end and stop when the supervisor has died for whatever reason.
"""

import math
import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog

from leasehold.engines import open_engine
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import SHUTDOWN_REST_SECONDS
from leasehold.process.shutdown import FORCED_CODES
from leasehold.process.signal_mask import ENDS
from leasehold.server.access import warn_of_exposure
from leasehold.server.config import Settings
from leasehold.server.listening import bind
from leasehold.server.run import Ready
from leasehold.server.run import run as run_server

log = structlog.get_logger(__name__)

RESTART_SECONDS: Final = 1.0
"""The pause between the death of a worker and the start of its replacement, so that a persistent fault does not cause a
busy loop."""
START_POLL_SECONDS: Final = 0.1
STOP_POLL_SECONDS: Final = 0.2
WORKER_END_SECONDS: Final = 5.0
"""The supervisor kills a worker this long after the worker's own deadline for a forced end."""
_WATCHED: Final = ENDS | {signal.SIGCHLD}
_READY: Final = b"\0"


def run(settings: Settings, ready: Ready) -> None:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT. Raises ServiceError if they cannot start."""
    if not open_engine(settings.store).shared:
        raise ServiceError("invalid_argument", "--workers needs a store that processes can share, like postgresql://…")
    # An unshared bind first: it fails if another service listens on the port, as without workers.
    bind(settings.host, settings.port, shared=False).close()
    # Bound but never listening: reserves the port while workers are replaced.
    with (
        bind(settings.host, settings.port, shared=True) as held,
        tempfile.TemporaryDirectory(prefix="leasehold-") as folder,
    ):
        host, port = held.getsockname()[:2]
        warn_of_exposure(settings, host)
        Supervisor(msgspec.structs.replace(settings, port=port), held, Path(folder)).run(lambda: ready(host, port))


def _is_told_to_end() -> bool:
    """Whether SIGTERM or SIGINT is pending. Consumes the signal."""
    return signal.sigtimedwait(ENDS, 0) is not None


class _ToldToEndError(Exception):
    """A signal to stop arrived while a worker was starting."""


class Supervisor:
    """Runs the workers. It has one thread and no event loop, and waits for signals and for its child processes."""

    def __init__(self, settings: Settings, held: socket.socket, metrics_folder: Path) -> None:
        self._settings = settings
        self._held = held
        self._metrics_folder = metrics_folder
        self._workers: set[int] = set()
        self._lifeline = os.pipe()

    def run(self, ready: Callable[[], None]) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            # One after the other: a fault that affects all workers is reported once.
            for _ in range(self._settings.workers):
                self._start()
            ready()
            self._watch()
        except _ToldToEndError:
            pass
        finally:
            were_in_time = self._stop()
            # SIGTERM and SIGINT stay blocked: a second one asks for what has already been done.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if not were_in_time:
            raise unavailable("workers were ended by force; acknowledged changes are kept")

    def _watch(self) -> None:
        """Replace workers that die, until told to stop."""
        missing = 0
        while True:
            info = signal.sigtimedwait(_WATCHED, RESTART_SECONDS) if missing else signal.sigwaitinfo(_WATCHED)
            if info is None:
                missing -= self._restart()
            elif info.si_signo in ENDS:
                return
            else:
                missing += self._reap()

    def _reap(self) -> int:
        dead = 0
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid in self._workers:
                self._workers.discard(pid)
                log.error("a worker died and will be started again", pid=pid, code=os.waitstatus_to_exitcode(status))
                dead += 1
        return dead

    def _restart(self) -> int:
        try:
            self._start()
        except ServiceError as error:
            log.warning("a worker could not be started", reason=error.message)
            return 0
        return 1

    def _start(self) -> None:
        """Start one worker and wait until it accepts connections. Raises `unavailable` with the reason if it fails."""
        receiving, sending = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(receiving)
            self._work(sending)
        os.close(sending)
        with os.fdopen(receiving, "rb") as report:
            self._await_report(receiving, pid)
            said = report.read(1) or b"the worker died"
            if said != _READY:
                message = (said + report.read()).decode(errors="replace")
                os.waitpid(pid, 0)
                if _is_told_to_end():  # ctrl+c is sent to the supervisor and to the worker
                    raise _ToldToEndError
                raise unavailable(message)
        self._workers.add(pid)

    def _await_report(self, receiving: int, pid: int) -> None:
        """Return when a new worker has reported or died. Kill it if a signal to stop arrives first."""
        while not select.select([receiving], [], [], START_POLL_SECONDS)[0]:
            if _is_told_to_end():
                os.kill(pid, signal.SIGKILL)  # it may hang, and it has not accepted any request yet
                os.waitpid(pid, 0)
                raise _ToldToEndError

    def _work(self, sending: int) -> NoReturn:
        """Run a worker in the forked process. Never returns to the code of the supervisor."""
        code = 1
        report: int | None = sending
        try:
            os.close(self._lifeline[1])
            self._held.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # its event loop unblocks the others

            def ready(_host: str, _port: int) -> None:
                nonlocal report
                os.write(sending, _READY)
                os.close(sending)
                report = None

            run_server(self._settings, ready, lifeline=self._lifeline[0], metrics_folder=self._metrics_folder)
            code = 0
        except ServiceError as error:
            if report is None:
                log.exception("a worker failed", reason=error.message)
            else:
                os.write(report, error.message.encode())
        except Exception:
            log.exception("a worker failed")
        finally:
            os._exit(code)

    def _stop(self) -> bool:
        """Stop all workers. Returns False if one had to be ended by force.

        Each worker has its own deadline. A worker that misses it, because the whole process hangs, is killed.
        """
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + self._settings.limits.shutdown_timeout_seconds + SHUTDOWN_REST_SECONDS
        deadline += WORKER_END_SECONDS
        were_in_time = True
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid:
                self._workers.discard(pid)
                if os.waitstatus_to_exitcode(status) in FORCED_CODES:
                    were_in_time = False
            elif time.monotonic() > deadline:
                log.error("workers are killed because they did not stop in time", pids=sorted(self._workers))
                for late in self._workers:
                    os.kill(late, signal.SIGKILL)
                were_in_time, deadline = False, math.inf
            else:
                signal.sigtimedwait({signal.SIGCHLD}, STOP_POLL_SECONDS)
        for end in self._lifeline:
            os.close(end)
        return were_in_time

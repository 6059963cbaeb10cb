"""Several processes on one port, for stores that several servers may share.

Each worker is a whole server that accepts on the port by itself (SO_REUSEPORT). The supervisor starts them, starts one
again that died, passes signals on, and says once that all are ready. Workers hold the end of a pipe whose other end
only the supervisor has: when it is gone, however it went, they stop.
"""

import math
import os
import select
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import structlog

from leasehold.engines import open_engine
from leasehold.errors import ServiceError, unavailable
from leasehold.limits import SHUTDOWN_REST_SECONDS
from leasehold.process.shutdown import FORCED_CODES
from leasehold.process.signals import ENDS
from leasehold.server import run as server
from leasehold.server.config import Settings

log = structlog.get_logger(__name__)

RESTART_SECONDS: Final = 1.0
"""Between the death of a worker and the start of the next in its place, so that a fault does not spin."""
START_POLL_SECONDS: Final = 0.1
STOP_POLL_SECONDS: Final = 0.2
WORKER_END_SECONDS: Final = 5.0
"""So much later than a worker should have ended by force, its supervisor does it."""
_WATCHED: Final = ENDS | {signal.SIGCHLD}
_READY: Final = b"\0"


def run(settings: Settings, ready: server.Ready) -> None:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT. Raises ServiceError when they cannot start."""
    if not open_engine(settings.store).shared:
        raise ServiceError("invalid_argument", "--workers is for stores that may be shared, like postgresql://…")
    # Only workers of ours share the port: another service that listens there is told, as without workers.
    server.bind(settings.host, settings.port, shared=False).close()
    # Held, but never listening: keeps the port ours while workers come and go.
    with (
        server.bind(settings.host, settings.port, shared=True) as held,
        tempfile.TemporaryDirectory(prefix="leasehold-") as folder,
    ):
        host, port = held.getsockname()[:2]
        server.warn_of_exposure(settings, host)
        Supervisor(msgspec.structs.replace(settings, port=port), held, Path(folder)).run(lambda: ready(host, port))


def _is_told_to_end() -> bool:
    """Whether a signal to end has come meanwhile. It is taken."""
    return signal.sigtimedwait(ENDS, 0) is not None


class _ToldToEndError(Exception):
    """A signal came while a worker was being started."""


class Supervisor:
    """Keeps the workers. One thread, no event loop: it waits for signals and for its children."""

    def __init__(self, settings: Settings, held: socket.socket, metrics_folder: Path) -> None:
        self._settings = settings
        self._held = held
        self._metrics_folder = metrics_folder
        self._workers: set[int] = set()
        self._lifeline = os.pipe()

    def run(self, ready: server.Notify) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            # The first alone: a fault that meets all is told once.
            for _ in range(self._settings.workers):
                self._start()
            ready()
            self._watch()
        except _ToldToEndError:
            pass
        finally:
            were_in_time = self._stop()
            # The ends stay held: a second signal asks for what is done by now.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        if not were_in_time:
            raise unavailable("workers had to be ended by force; what was acknowledged is kept")

    def _watch(self) -> None:
        """Until told to end, replace the workers that die."""
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
        """Start one worker and wait until it accepts requests. Raises what kept it from that."""
        receiving, sending = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(receiving)
            self._work(sending)
        os.close(sending)
        with os.fdopen(receiving, "rb") as report:
            self._await_report(receiving, pid)
            said = report.read(1) or b"it died"
            if said != _READY:
                message = (said + report.read()).decode(errors="replace")
                os.waitpid(pid, 0)
                if _is_told_to_end():  # so was the worker: ctrl+c goes to both
                    raise _ToldToEndError
                raise unavailable(message)
        self._workers.add(pid)

    def _await_report(self, receiving: int, pid: int) -> None:
        """Return when a new worker has said something or is gone; give it up when told to end before that."""
        while not select.select([receiving], [], [], START_POLL_SECONDS)[0]:
            if _is_told_to_end():
                os.kill(pid, signal.SIGKILL)  # it may be stuck, and nothing was asked of it yet
                os.waitpid(pid, 0)
                raise _ToldToEndError

    def _work(self, sending: int) -> NoReturn:
        """The life of a worker. Never returns to the supervisor's code."""
        code = 1
        report: int | None = sending
        try:
            os.close(self._lifeline[1])
            self._held.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # the ends stay held until a loop takes them

            def ready(_host: str, _port: int) -> None:
                nonlocal report
                os.write(sending, _READY)
                os.close(sending)
                report = None

            server.run(self._settings, ready, lifeline=self._lifeline[0], metrics_folder=self._metrics_folder)
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
        """End all workers; False if one had to be ended by force.

        Each ends itself by its deadline. One that does not, because it stands still as a whole, is killed.
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
                log.error("workers are ended by force, because they did not stop in time", pids=sorted(self._workers))
                for late in self._workers:
                    os.kill(late, signal.SIGKILL)
                were_in_time, deadline = False, math.inf
            else:
                signal.sigtimedwait({signal.SIGCHLD}, STOP_POLL_SECONDS)
        for end in self._lifeline:
            os.close(end)
        return were_in_time

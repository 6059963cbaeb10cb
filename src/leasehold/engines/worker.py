"""A thread that does blocking work, one job after another, and reports to the event loop.

Plain functions and one queue in, `call_soon_threadsafe` out: an executor with futures in its place lost a third of
the durable writes a second.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

Job = Callable[[], object]
JobDone = Callable[[Exception | None], None]


class Worker:
    """Started at once; `stop` ends it after the jobs that it has. Reports come in the order of the jobs."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Job, JobDone] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Job, done: JobDone) -> None:
        """Run `job` on the thread, then call `done` on the event loop with what it raised, or None."""
        self._jobs.put((job, done))

    async def call(self, job: Callable[[], T]) -> T:
        """Run `job` on the thread and wait for its result. Once begun it is not cancelled with its caller."""
        results: list[T] = []
        finished: asyncio.Future[None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            if finished.cancelled():
                return
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

        self.do(lambda: results.append(job()), done)
        await finished
        return results[0]

    async def rest(self) -> None:
        """Return when all jobs so far have been reported."""
        await self.call(lambda: None)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                job()
            except Exception as error:  # noqa: BLE001  whatever it is, the one who asked must hear of it
                self._report(done, error)
            else:
                self._report(done, None)

    def _report(self, done: JobDone, error: Exception | None) -> None:
        # RuntimeError: the loop was closed with jobs under way, so nobody is left to be told.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(done, error)

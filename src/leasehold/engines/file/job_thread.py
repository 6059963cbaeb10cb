"""A thread that runs blocking jobs one after another and reports the results to the event loop.

It uses a queue of plain functions, and `call_soon_threadsafe` for the results. With an executor and futures there were
a third fewer durable writes per second.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

Job = Callable[[], object]
JobDone = Callable[[BaseException | None], None]

RETRY_SECONDS: Final = 0.05
"""Between two attempts to report a result, when memory has run out."""


class _Job:
    """A job and its result."""

    __slots__ = ("done", "error", "is_over", "work")

    def __init__(self, work: Job, done: JobDone) -> None:
        self.work = work
        self.done = done
        self.is_over = False
        self.error: BaseException | None = None


class JobThread:
    """The thread starts at once; `stop` ends it after the jobs in the queue. Results are reported in the order of jobs.

    Each job is reported, even after an exception or when memory runs out, because its caller waits for the report.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Job, done: JobDone) -> None:
        """Run `job` on the thread, then call `done` on the event loop with the exception that it raised, or None.

        If this raises, the job does not run.
        """
        self._jobs.put(_Job(job, done))

    async def call(self, job: Callable[[], T]) -> T:
        """Run `job` on the thread and wait for its result. If the caller is cancelled, the job still runs."""
        results: list[T] = []
        finished: asyncio.Future[None] = self._loop.create_future()

        def done(error: BaseException | None) -> None:
            try:
                if finished.done():  # it was cancelled, or this is repeated
                    return
                if error is None:
                    finished.set_result(None)
                else:
                    finished.set_exception(error)
            except BaseException:
                self._loop.call_soon(done, error)  # the caller waits for it
                raise

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
        """Run and report jobs. If a step fails, it is repeated, so that no job is lost."""
        job: _Job | None = None
        while True:
            try:
                if job is None:
                    job = self._jobs.get()
                    if job is None:
                        return
                if not job.is_over:
                    try:
                        job.work()
                    except BaseException as error:  # noqa: BLE001  it is reported to the caller
                        job.error = error
                    job.is_over = True
                self._loop.call_soon_threadsafe(job.done, job.error)
                job = None
            except BaseException:  # noqa: BLE001  the thread must not end, because later jobs need it
                if self._loop.is_closed():
                    job = None  # the caller no longer exists
                else:
                    time.sleep(RETRY_SECONDS)

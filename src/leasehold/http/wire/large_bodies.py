"""Work on large bodies and values in steps, each in an iteration of the event loop: others are served in between.

A mebibyte of MessagePack can take 80 ms to count, decode and check, and a state of Terraform 60 ms. To change a part of
a mebibyte of JSON, it is decoded and encoded, which can take 50 ms. In the lane that would be one piece, so it is done
before; `rules.preparation` says how, and the lane decides whether the result counts. Of all connections together, one
does one step in an iteration.
"""

from collections.abc import Generator, Iterable
from functools import partial
from itertools import chain
from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.idempotency import fingerprint_steps
from leasehold.http.routing.route import PureEndpoint, ReadBody
from leasehold.http.wire.answering import LARGE_BYTES, Answerer
from leasehold.model import Operation, Outcome
from leasehold.values import collector_paused

_END: Final = object()


class LargeBodyAnswerer(Answerer):
    """The part of a connection that reads large bodies, and prepares changes of large values."""

    __slots__ = ()

    def _read_large(self, request: Request, read_body: ReadBody, endpoint: PureEndpoint) -> None:
        self._enter_lane(request)
        self._do_step(request, chain(fingerprint_steps(request), read_body(request), self._submit(request, endpoint)))

    def _submit(self, request: Request, endpoint: PureEndpoint) -> Generator[None]:
        """The last step, in an iteration after that of the last one of `read_body`."""
        yield
        self._ask_store(request, endpoint)

    def _do_step(self, request: Request, steps: Iterable[None]) -> None:
        """Do a step, and the next one in another iteration. The change is in the lane after the last one."""
        try:
            if self._current is not request:  # the connection is closed
                self._leave_lane()
                return
            with collector_paused(len(request.body)):
                is_over = next(iter(steps), _END) is _END
            if not is_over:
                self._shared.round_robin.enqueue(partial(self._do_step, request, steps))
        except ServiceError as refusal:
            self._leave_lane()
            self._refuse(request, refusal)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            self._leave_lane()
            self._fail(request, failure)

    def _submit_change(self, request: Request, operation: Operation) -> None:
        if request.lane_bytes:
            self._enter_lane(request)
        try:
            preparation = self._store.preparation(operation, len(request.body))
            if preparation is None:  # nearly always
                self._store.submit(operation, self._complete)
            else:
                steps = self._submit_prepared(request, preparation)
                self._shared.preparations.begin(request, partial(self._do_preparation, request, steps))
        except BaseException:  # it is not in the lane
            self._leave_lane()
            raise

    def _enter_lane(self, request: Request) -> None:
        """From now on the body of the current request counts as one in the lane, until `_leave_lane`."""
        if not self._is_in_lane:
            self._quota_used += len(request.body) // LARGE_BYTES
            self._is_in_lane = True
            self._shared.lane_bodies.take(self, request.lane_bytes)

    def _submit_prepared(self, request: Request, preparation: Generator[None, None, Operation]) -> Generator[None]:
        operation = yield from preparation
        self._store.submit(operation, partial(self._complete_prepared, request))

    def _do_preparation(self, request: Request, steps: Generator[None]) -> None:
        """Do a step, and the next one in another iteration. The change is in the lane after the last one."""
        shared = self._shared
        try:
            if self._current is not request:  # the connection is closed
                steps.close()
                self._leave_lane()
                shared.preparations.end(request)
            elif next(steps, _END) is not _END:
                shared.round_robin.enqueue(partial(self._do_preparation, request, steps))
        except BaseException as failure:  # noqa: BLE001 - as in _begin; it is not in the lane
            self._leave_lane()
            shared.preparations.end(request)
            self._fail(request, failure)

    def _complete_prepared(self, request: Request, outcome: Outcome | ServiceError) -> None:
        self._shared.preparations.end(request)
        self._complete(outcome)

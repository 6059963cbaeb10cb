"""Work on large bodies and values in steps, each in an iteration of the event loop: others are served in between.

Three kinds of requests have such work: those with a large body, changes of a large value, and those whose answer shows
parts of a large value, or is converted to MessagePack.

A mebibyte of MessagePack can take 80 ms to count, decode and check, and a state of Terraform 60 ms. To change a part of
a mebibyte of JSON, it is decoded and encoded, which can take 50 ms. In the lane that would be one piece, so it is done
before; `rules.preparation` says how, and the lane decides whether the result counts. Of all connections together, one
does one step in an iteration.
"""

from collections.abc import Generator, Iterable
from functools import partial
from itertools import chain
from typing import Final

from msgspec.structs import replace

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.responses import Response
from leasehold.http.routing.idempotency import fingerprint_steps
from leasehold.http.routing.route import PureEndpoint, ReadBody
from leasehold.http.wire.answering import LARGE_BYTES, Answerer
from leasehold.model import Operation, Outcome, is_change
from leasehold.values import collector_paused, to_messagepack_steps

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

    def _read_in_steps(self, request: Request, steps: Generator[None, None, Outcome]) -> None:
        self._answer_in_steps(request, self._read_completely(steps), is_stored=False)

    def _read_completely(self, steps: Generator[None, None, Outcome]) -> Generator[None]:
        outcome: Outcome | ServiceError
        try:
            outcome = yield from steps
        except ServiceError as refusal:
            outcome = refusal
        self._complete(outcome)

    def _respond_in_steps(self, request: Request, response: Response, outcome: Outcome | ServiceError | None) -> None:
        steps = self._pack_and_respond(response) if response.pieces is None else self._join_and_respond(response)
        self._answer_in_steps(request, steps, is_stored=is_change(outcome))

    def _join_and_respond(self, response: Response) -> Generator[None]:
        made: list[bytes] = []
        for piece in response.pieces or ():
            made.append(piece)
            yield
        body = b"".join(made)
        yield
        self._respond(replace(response, body=body, pieces=None))

    def _pack_and_respond(self, response: Response) -> Generator[None]:
        if not response.is_packed and response.body is not None:
            with collector_paused(len(response.body)):
                packed = yield from to_messagepack_steps(response.body)
            response = replace(response, body=packed, is_packed=True)
        self._respond(response)

    def _answer_in_steps(self, request: Request, steps: Generator[None], *, is_stored: bool) -> None:
        """Do `steps`, which answer the request, when it is its turn. `is_stored`: it has made a change."""
        self._shared.answers.begin(request, partial(self._do_answer, request, steps, is_stored))

    def _do_answer(self, request: Request, steps: Generator[None], is_stored: bool) -> None:  # noqa: FBT001
        """Do a step, and the next one in another iteration. The request is answered by the last one."""
        shared = self._shared
        try:
            if self._current is not request:  # the connection is closed
                steps.close()
            elif next(steps, _END) is not _END:
                shared.round_robin.enqueue(partial(self._do_answer, request, steps, is_stored))
                return
            shared.answers.end(request)
        except BaseException as failure:  # noqa: BLE001 - as in _begin
            shared.answers.end(request)
            self._fail(request, failure, is_stored=is_stored)

    def _complete_prepared(self, request: Request, outcome: Outcome | ServiceError) -> None:
        self._shared.preparations.end(request)
        self._complete(outcome)

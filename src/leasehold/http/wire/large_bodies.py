"""Reading large bodies in steps, each in an iteration of the event loop, so that other clients are served in between.

A mebibyte of MessagePack can take 80 ms to count, decode and check, and a state of Terraform 60 ms. Of all connections
together, one does one step in an iteration.
"""

from collections.abc import Generator, Iterable
from functools import partial
from itertools import chain
from typing import Final

from leasehold.errors import ServiceError
from leasehold.http.requests import Request
from leasehold.http.routing.idempotency import fingerprint_steps
from leasehold.http.routing.route import PureEndpoint, ReadBody
from leasehold.http.wire.answering import Answerer
from leasehold.values import collector_paused

_END: Final = object()


class LargeBodyAnswerer(Answerer):
    """The part of a connection that reads large bodies."""

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

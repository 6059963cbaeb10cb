"""The fast path of a plain write: `POST /kv/{key}` or `PUT /kv/{key}` with a JSON body and a known header block.

It takes a third of the instructions of the general path: it parses no head again, makes neither a request nor a
response, and formats the answer once. The write itself goes through the lane, as every write does.

Invariants:

- It begins and answers exactly as the general path would, or it leaves that to the general path. So the service works
  without it: without this module, and without the lines in `QuickAnswerer`, `Connection` and `Connections` that name
  it.
- It begins one kind of write: a whole value, without a query and without a header that changes its effect.
- It gives one kind of answer: 200 with the replaced entry. For each other outcome `request` makes the request that the
  general path would have had, and the general path answers it.
- Whatever may change between two requests is checked for each of them: the end of the token, the key that it must
  cover, the incarnation, a stop of the service. What the fields alone decide is kept with the header block: Host and
  Origin, as `admission` keeps it, and whether this caller may write and the body is JSON (`_may_write_quickly`).
- A connection calls it only between two requests, while none is queued and its client reads what is sent.

A new option of these requests needs nothing here if it is a query parameter. If it is a header field, add it to
`requests.OPTIONS`.
"""

from typing import Final, Protocol

import msgspec

from leasehold import values
from leasehold.access.permissions import Principal
from leasehold.errors import ServiceError
from leasehold.http.encoding import Templates
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.bodies import JSON_TYPES
from leasehold.http.wire.header_cache import HeaderCache
from leasehold.http.wire.quick_answer import LONGEST_LINE_BYTES, OTHER_BYTES, QuickAnswer, QuickContext
from leasehold.keys import check_key
from leasehold.model import Outcome, Put, Written
from leasehold.trace_context import TraceContext

_POST: Final = b"POST /kv/"
_PUT: Final = b"PUT /kv/"
QUICK_PUTS: Final = (_POST, _PUT)
"""What these requests begin with. The caller checks it, because for other requests a call would cost more than this."""


class PutContext(QuickContext, Protocol):
    """What the connections of a server share."""

    header_cache: HeaderCache


class BegunPut(msgspec.Struct, frozen=True, gc=False):
    """A write that waits for its commit."""

    operation: Put
    path: bytes
    """The key as the request has it."""
    answer: QuickAnswer
    """That of its method."""
    headers: Headers
    number: int
    """The number in its request id."""
    trace: TraceContext | None


class QuickPut:
    """Shared by all connections of a server."""

    __slots__ = ("_admission", "_context", "_header_cache", "_is_enabled", "_known", "_methods", "_space")

    def __init__(self, context: PutContext) -> None:
        self._context = context
        self._admission = context.admission
        self._header_cache = context.header_cache
        self._known = context.header_cache.by_size
        self._space = context.store.space
        self._is_enabled = context.limits.max_request_line_bytes >= LONGEST_LINE_BYTES
        self._methods = {
            _POST[1]: (len(_POST), QuickAnswer("POST", context, Templates.entry_written)),
            _PUT[1]: (len(_PUT), QuickAnswer("PUT", context, Templates.entry_written)),
        }
        """Where the key begins, and the answer, by the first byte in which the methods differ."""

    def begin(self, data: bytes, trace: TraceContext | None) -> BegunPut | None:
        """The write that `data`, read after a whole request, asks for. None: the general path must begin it.

        `data` begins with one of QUICK_PUTS. `trace`: the trace of the request, whose field is not in `data`.
        """
        begin, answer = self._methods[data[1]]
        end = data.find(b" ", begin)
        path = data[begin:end]
        if path.translate(OTHER_BYTES) != path or not self._is_enabled or self._context.stopping:
            return None
        headers = self._known.get(len(data) - end)
        if headers is None or not data.startswith(headers.block, end):
            headers = self._header_cache.find(data, end)
            if headers is None:
                return None
        principal = headers.principal
        if principal is None or (headers.quick_writer is not principal and not _may_write_quickly(principal, headers)):
            return None
        verifier = self._admission.verifier
        if verifier is not None:  # would `Admission.admit` admit this caller again?
            now = verifier.now
            if headers.verified_by is not verifier or not now() < principal.expires_at:
                return None
        key = path.decode()
        if principal.prefixes is not None and not principal.covers(key):
            return None
        peek = self._space.peek
        try:
            if peek is None or peek(key) is None:
                check_key(key)
            operation = Put(key, values.parse_json(data[end + len(headers.block) :]))
        except ServiceError:
            return None
        return BegunPut(operation, path, answer, headers, next(self._context.request_numbers), trace)

    def answer(self, begun: BegunPut, outcome: Outcome | ServiceError, seconds: float) -> bytes | None:
        """The answer to a write. None: the general path must give it, to the request that `request` makes.

        `seconds`: since the beginning, for the metrics.
        """
        if type(outcome) is not Written or outcome.created or self._context.stopping:
            return None
        return begun.answer.encode(begun.path, outcome.entry, begun.headers, begun.number, seconds)

    def request(self, begun: BegunPut) -> Request:
        """The request as the general path would have made it and admitted it, without its body."""
        return begun.answer.request(begun.path, begun.headers, begun.number, begun.trace)


def _may_write_quickly(principal: Principal, headers: Headers) -> bool:
    """Whether this caller may write JSON with these fields, and they change nothing. It is noted in `quick_writer`."""
    if (
        "write" not in principal.permissions
        or "read" not in principal.permissions
        or not headers.is_plain
        or headers.content_type not in JSON_TYPES
    ):
        return False
    headers.quick_writer = principal
    return True

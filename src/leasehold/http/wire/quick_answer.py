"""What the fast paths share: which paths they serve, and the answer with an entry.

Only `quick_get` and `quick_put` use this module. A fast path keeps a `QuickAnswer` for each of its methods.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from leasehold.http.encoding import Templates
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.admission import Admission
from leasehold.http.wire.header_cache import LINE_END
from leasehold.limits import MAX_KEY_BYTES, Limits
from leasehold.metrics import Distribution, Metrics, place_of
from leasehold.model import Entry
from leasehold.store.store import Store
from leasehold.times import time_bytes
from leasehold.trace_context import TraceContext
from leasehold.values.entry_text import PLAIN_KEY_ENTRY_JSON

_FOLDER: Final = b"/kv/"
BEFORE_KEY: Final = b" " + _FOLDER
LONGEST_LINE_BYTES: Final = len(b"POST /kv/") + MAX_KEY_BYTES + len(LINE_END)
"""The fast paths do not check the length of a line, so no shorter limit may be set."""
_PATTERN: Final = "/kv/{key}"
JSON_BYTES: Final = len(PLAIN_KEY_ENTRY_JSON % (b"", b"", b"", time_bytes(0), time_bytes(0))) + len(b"\n")
"""The length of a body without its key, value and revision."""
_NOT_OF_KEYS: Final = b'%?# "\\' + bytes(range(32)) + bytes(range(127, 256))
OTHER_BYTES: Final = bytes.maketrans(_NOT_OF_KEYS, bytes(len(_NOT_OF_KEYS)))
"""A table that changes a path if it is not the key itself, as it stands behind BEFORE_KEY, and its JSON: if it has an
escape or a query, or a character that JSON escapes. One `translate` takes half of the time of a search for each of
these bytes."""


class QuickContext(Protocol):
    """What the connections of a server share."""

    admission: Admission
    common_lines: bytes
    limits: Limits
    logs_requests: bool
    metrics: Metrics
    request_id_prefix: bytes
    request_numbers: Iterator[int]
    stopping: bool
    store: Store

    def renew_templates(self) -> Templates: ...

    def log_request(self, method: str, path: bytes, status: int, fields: Mapping[str, str]) -> None: ...


class Template(Protocol):
    """`Templates.entry_read` or `Templates.entry_written`."""

    def __call__(self, templates: Templates, /, *, common: bytes, request_id: bytes) -> bytes: ...


class QuickAnswer:
    """The answer to the requests of one method: 200 with an entry that does not expire."""

    __slots__ = (
        "_common_lines",
        "_context",
        "_incarnation",
        "_place",
        "_seconds",
        "_space",
        "_template",
        "entry_format",
        "histogram",
        "method",
    )

    def __init__(self, method: str, context: QuickContext, template: Template) -> None:
        self.method = method
        self._context = context
        self._space = context.store.space
        self._template = template
        self.histogram = Distribution([0])
        """Of these requests in the metrics, from the first answer on."""
        self._seconds = 0.0
        self._place = 0
        """Of the last `seconds` in the histogram. All requests of a batch mostly took the same time."""
        self._common_lines = b""
        self._incarnation = ""
        self.entry_format = b""
        """The format string of the answer, with the two above."""

    def encode(self, path: bytes, entry: Entry, headers: Headers, number: int, seconds: float) -> bytes:
        """The answer to a request, which is also counted and logged.

        `path`: the key of the entry, as the request has it. It is in the processor's cache; in a large store the copy
        in the entry is not. `headers`: of the request. `number`: in its request id. `seconds`: since its beginning.
        """
        context = self._context
        if context.common_lines is not self._common_lines or self._space.incarnation is not self._incarnation:
            self._renew()
        value, revision = entry.value, b"%d" % entry.revision
        created = entry.created_at
        created_at = updated_at = time_bytes(created)
        if entry.updated_at is not created:  # to compare such large numbers takes longer
            updated_at = time_bytes(entry.updated_at)
        size = len(path) + len(value) + len(revision) + JSON_BYTES
        cors_lines = headers.cors_lines
        answer = self.entry_format % (number, cors_lines, revision, size, path, value, revision, created_at, updated_at)
        histogram = self.histogram
        if seconds:
            if seconds != self._seconds:
                self._seconds, self._place = seconds, place_of(seconds)
            histogram.counts[self._place] += 1
            histogram.total += seconds
        else:  # what `count_seconds` does then
            histogram.counts[0] += 1
        if context.logs_requests:
            self.log(path, number)
        return answer

    def log(self, path: bytes, number: int) -> None:
        """Log a request that was answered."""
        ids = {"request_id": self._request_id(number).decode()}
        self._context.log_request(self.method, _FOLDER + path, 200, ids)

    def renewed(self) -> tuple[bytes, list[int]]:
        """The format string of the answer and the counts of the histogram, for a caller that does not use `encode`."""
        is_current = self._context.common_lines is self._common_lines
        if not is_current or self._space.incarnation is not self._incarnation:
            self._renew()
        return self.entry_format, self.histogram.counts

    def request(self, path: bytes, headers: Headers, number: int, trace: TraceContext | None) -> Request:
        """The request as the general path would have made it and admitted it, without its body."""
        principal = headers.principal
        assert principal is not None
        return Request(
            self.method,
            _FOLDER + path,
            headers,
            keep_alive=True,
            request_id=self._request_id(number),
            principal=principal,
            trace=trace,
        )

    def _request_id(self, number: int) -> bytes:
        return b"%b-%x" % (self._context.request_id_prefix, number)

    def _renew(self) -> None:
        """Bring the format string up to date: once a second, and when the incarnation has changed.

        Called for an answer, because the metrics show the histogram from the first call on.
        """
        context = self._context
        templates = context.renew_templates()
        request_id = context.request_id_prefix + b"-%x"
        self.entry_format = self._template(templates, common=context.common_lines, request_id=request_id)
        self._common_lines, self._incarnation = context.common_lines, templates.incarnation
        self.histogram = context.metrics.seconds_of(self.method, _PATTERN, 200)

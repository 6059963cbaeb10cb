"""Header blocks that need not be parsed again.

A client sends the same header fields with every request. The cache keeps the bytes of a block that the parser and all
checks have accepted. A request that arrives complete, in one read, with such a block needs no parser.
The field `traceparent` is left out of the block that is kept, so it is known with and without this field.
Measured on a GET with two fields: 0.9 µs in place of 3.3 µs, a quarter of the service's own work for it.
"""

import re
from itertools import islice
from typing import Final

import msgspec

from leasehold.http.requests import Headers, Request
from leasehold.http.wire.trace_field import FIELD_BYTES, without_trace
from leasehold.limits import Limits
from leasehold.trace_context import HEADER as TRACEPARENT
from leasehold.trace_context import parse_traceparent

LINE_END: Final = b" HTTP/1.1\r\n"
"""The end of the line of each request that is kept."""
MAX_HEADS: Final = 1_024
MAX_BLOCK_BYTES: Final = 2_048
CONNECTION_FIELDS: Final = frozenset((b"expect", b"transfer-encoding", b"upgrade"))
"""Fields that concern the connection or the framing, beside Connection."""
KEEP_ALIVE: Final = b"keep-alive"
"""The only value of Connection in a block that is kept. Many clients send it, and in HTTP/1.1 it changes nothing."""
CHANGING_FIELDS: Final = frozenset(
    (
        *(b"if-match", b"if-none-match", b"if-lease", b"idempotency-key", b"x-request-id"),
        *(b"forwarded", b"x-forwarded-for", b"x-real-ip"),
        *(b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-amzn-trace-id"),
    )
)
"""Fields whose values differ from request to request. Their blocks would be used once and displace others."""
_PARSED_FIELDS: Final = (CONNECTION_FIELDS | CHANGING_FIELDS) - {TRACEPARENT}
"""A block with one of them is not kept. `traceparent` is left out of a block that is kept."""

_REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[!-\"$->@-~]*)(?:\?([!-\"$-~]*))? HTTP/1\.1\r\n"
)
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")}


class Head(msgspec.Struct, frozen=True):
    headers: Headers
    content_length: int


class HeaderCache:
    """Shared by all connections. When it is full it drops the older half; blocks that are in use come back at once."""

    def __init__(self, limits: Limits) -> None:
        self._max_target_bytes = limits.max_request_line_bytes
        self._max_body_bytes = min(limits.max_body_bytes, limits.max_state_bytes)
        # A block that is kept must also be within the limits when it has a `traceparent` in addition. The limit of
        # bytes counts a space in each field, which the block may lack.
        self._max_fields = limits.max_header_fields - 1
        self._max_block_bytes = min(MAX_BLOCK_BYTES, limits.max_header_bytes - FIELD_BYTES - self._max_fields)
        self._heads: dict[bytes, Head] = {}
        self._block_bytes = 0
        """Of the last block that was found."""
        self.by_size: dict[int, Headers] = {}
        """The headers that `find` has found last, by the size of what it was given."""

    def recall(self, data: bytes) -> Request | None:
        """The request, without an id, if `data` is exactly one request with a known block. Else None: parse it."""
        line = _REQUEST_LINE.match(data)
        if line is None:
            return None
        begin = line.end()
        # Most blocks are as long as the last one. No block contains the blank line that ends it anywhere else.
        end = begin + self._block_bytes
        head = self._heads.get(data[begin:end])
        if head is None or end > len(data):
            end = data.find(b"\r\n\r\n", begin) + 4
            head = self._heads.get(data[begin:end])
            if head is None:
                return None
            self._block_bytes = end - begin
        if len(data) != end + head.content_length:
            return None
        if begin > self._max_target_bytes:
            return None
        method, path, query = line.groups()
        request = Request(_METHODS[method], path, head.headers, body=data[end:], keep_alive=True)
        if query:
            request.take_query(query)
        return request

    def find(self, data: bytes, begin: int) -> Headers | None:
        """The fields, if `data` from `begin` on is exactly LINE_END, a known block, and the body that it announces.

        They are put into `by_size`. The next requests of this size mostly have the same block, and a comparison takes a
        tenth of the instructions that the hash of a block takes.
        """
        begin_of_block = begin + len(LINE_END)
        if not data.startswith(LINE_END, begin):
            return None
        end = data.find(b"\r\n\r\n", begin_of_block) + 4
        head = self._heads.get(data[begin_of_block:end])
        if head is None or len(data) != end + head.content_length:
            return None
        self.by_size[len(data) - begin] = head.headers
        return head.headers

    def remember(self, data: bytes, headers: Headers) -> None:
        """Keep the block of a request that the parser accepted, if `data` is exactly this request."""
        if not _PARSED_FIELDS.isdisjoint(headers) or headers.get(b"connection", KEEP_ALIVE).lower() != KEEP_ALIVE:
            return
        if TRACEPARENT in headers:
            traced = without_trace(data)
            if traced is None or parse_traceparent(headers[TRACEPARENT]) is None:  # there are two
                return
            data = traced[0]
        line = _REQUEST_LINE.match(data)
        if line is None:
            return
        begin = line.end()
        end = data.find(b"\r\n\r\n", begin) + 4
        content_length = int(headers.get(b"content-length", b"0"))
        if end - begin > self._max_block_bytes or len(data) != end + content_length:
            return
        if content_length > self._max_body_bytes:
            return  # another request with this block may be of a route with a lower limit
        if data.count(b"\r\n", begin, end) - 1 > self._max_fields:
            return
        if len(self._heads) >= MAX_HEADS:
            for block in list(islice(self._heads, MAX_HEADS // 2)):
                del self._heads[block]
            self.by_size.clear()
        headers.pop(TRACEPARENT, None)  # the request has its trace already
        headers.block = LINE_END + data[begin:end]
        self._heads[data[begin:end]] = Head(headers, content_length)

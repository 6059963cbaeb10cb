"""Bytes of one connection in, complete requests and refusals out.

Three things are done around the parser. A request whose header block is in the cache bypasses it. The request line is
held back until it is complete and checked, because llhttp accepts malformed ones. After a request that offers another
protocol (Upgrade) llhttp stops, and a new parser continues in HTTP/1.1.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import httptools

from leasehold.errors import not_implemented
from leasehold.http.requests import Request
from leasehold.http.wire.head_faults import BEGUN_LINE, REQUEST_LINE, malformed, uri_too_long
from leasehold.http.wire.header_cache import HeaderCache
from leasehold.http.wire.reception import Reception, ReceptionContext
from leasehold.http.wire.states import IN_BODY, Receiving

NEW: Final = Receiving.NEW
IDLE: Final = Receiving.IDLE
HEAD: Final = Receiving.HEAD
ENDED: Final = Receiving.ENDED
CLIENT_CLOSED: Final = Receiving.CLIENT_CLOSED


class ParserContext(ReceptionContext, Protocol):
    """What all parsers of a server share."""

    header_cache: HeaderCache


class RequestParser:
    """Feeds the bytes of one connection to its reception."""

    __slots__ = ("_context", "_header_cache", "_parser", "_reception")

    def __init__(self, reception: Reception, context: ParserContext) -> None:
        self._reception = reception
        self._context = context
        self._header_cache = context.header_cache
        self._parser: httptools.HttpRequestParser | None = None
        """Made for the first request whose header block is not in the cache: many connections never send one."""

    def recall(self, data: bytes) -> Request | None:
        """The request, if `data` is exactly one request and its header block is in the cache. Else None: call `feed`.

        Separate from `feed`, so that the usual request needs no list and no loop.
        """
        reception = self._reception
        if reception.state is not IDLE and reception.state is not NEW:
            return None
        request = self._header_cache.recall(data)
        if request is not None:
            request.request_id = self._context.next_request_id()
            reception.state = IDLE
        return request

    def feed(self, data: bytes) -> Sequence[Request]:
        """Receive `data`. Returns the requests that are complete by now, in their order."""
        self._feed(data)
        return self._reception.taken()

    def _feed(self, data: bytes) -> None:
        reception = self._reception
        is_between = reception.state is IDLE or reception.state is NEW
        if is_between or reception.line:
            data = self._hold_line(data)
        elif reception.state is ENDED or reception.state is CLIENT_CLOSED:
            return
        if not data:
            return
        reception.raw_bytes += len(data)
        self._parse(data)
        if reception.state is HEAD or reception.state in IN_BODY:
            reception.check_unfinished()
        elif is_between and reception.state is IDLE:
            self._header_cache.remember(data, reception.headers)

    def _parse(self, data: bytes) -> None:
        reception = self._reception
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(reception)
        reception.parser = parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            reception.refuse_line(not_implemented() if reception.line_is_good else malformed())
        except httptools.HttpParserError:
            reception.refuse(malformed())
        finally:
            reception.parser = None

    def _hold_line(self, data: bytes) -> bytes:
        """The bytes for the parser: none until the request line is complete and well-formed."""
        reception = self._reception
        data = reception.line + data
        line = data.lstrip(b"\r\n")  # empty lines before a request are ignored (RFC 9112, section 2.2)
        if not line:
            return data
        reception.line_is_good = REQUEST_LINE.match(line) is not None
        if reception.line_is_good:
            reception.line = b""
            return data
        limits = self._context.limits
        if b"\n" in line or not BEGUN_LINE.fullmatch(line):
            reception.refuse_line(malformed())
        elif len(line) > limits.max_request_line_bytes:
            # A method longer than any is unknown, not a target too long (RFC 9112, section 3).
            reception.refuse_line(uri_too_long(limits) if b" " in line else not_implemented())
        else:
            reception.hold_line(data)
        return b""

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Continue in HTTP/1.1 after a request that offered another protocol (RFC 9110, section 7.8).

        llhttp stops after its head and does not parse the body. A new parser reaches the same state by a head that
        announces the same body.
        """
        reception = self._reception
        self._parser = None
        if reception.state is ENDED:
            return
        if reception.state in IN_BODY:
            self._parse(reception.replayed_head())
        self._feed(rest)

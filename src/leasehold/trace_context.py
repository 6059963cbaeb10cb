"""The trace that a request belongs to, from its header `traceparent` (W3C Trace Context, section 3.2).

A malformed header is ignored, as the specification requires: then the request belongs to no trace.
"""

import re
from typing import Final

import msgspec

HEADER: Final = b"traceparent"
SAMPLED: Final = 0x01
_VERSION_0: Final = b"00"
_INVALID_VERSION: Final = b"ff"
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_TRACE: Final = "0" * 32
_NO_PARENT: Final = "0" * 16


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """A trace, and the span of the caller in it. Both ids are hexadecimal digits in lower case: 32 and 16."""

    trace_id: str
    parent_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records its spans of this trace."""
        return bool(self.flags & SAMPLED)


def parse_traceparent(sent: bytes) -> TraceContext | None:
    """The trace that the value of a `traceparent` names. None if it is malformed.

    A later version than 00 may add fields at the end, after a dash. The values of a header that was sent twice are
    joined with a comma, so they are malformed.
    """
    found = _TRACEPARENT.fullmatch(sent)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == _INVALID_VERSION or (version == _VERSION_0 and more is not None):
        return None
    context = TraceContext(trace_id.decode(), parent_id.decode(), int(flags, 16))
    return None if context.trace_id == _NO_TRACE or context.parent_id == _NO_PARENT else context

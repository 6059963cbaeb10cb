"""Takes the field `traceparent` out of a request that arrives in one read.

A traced client sends another value with every request. Without the field, its header block is the one of the request
before, so the header cache and the fast paths know it. Only the usual form of the field is taken out: a request with
any other form, and one whose value is malformed, is parsed.

The caller must parse the original data if it does not know the rest. A known rest shows that the field was the only one
of its name, because no block that contains one is known.
"""

from typing import Final

from leasehold.trace_context import TraceContext, parse_traceparent

_BEGINS: Final = (b"\r\ntraceparent: ", b"\r\nTraceparent: ")
"""As most libraries write it, and as Go's does."""
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"
_BEGIN_BYTES: Final = len(_BEGINS[0])
_VALUE_BYTES: Final = 55
"""Of version 00."""
FIELD_BYTES: Final = _BEGIN_BYTES + _VALUE_BYTES
"""What the field adds to a header block."""


def without_trace(data: bytes) -> tuple[bytes, TraceContext] | None:
    """The data without the field, and the trace. None: `data` has no such field in its usual form."""
    begin = data.find(_BEGINS[0])
    if begin < 0:
        begin = data.find(_BEGINS[1])
        if begin < 0:
            return None
    end = begin + FIELD_BYTES
    if data[end : end + 2] != _LINE_END or data.find(_HEAD_END, 0, begin + 2) >= 0:  # it is in the body
        return None
    trace = parse_traceparent(data[begin + _BEGIN_BYTES : end])
    return None if trace is None else (data[:begin] + data[end:], trace)

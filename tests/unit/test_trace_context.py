"""`traceparent`: what is a trace, and what is malformed (W3C Trace Context, section 3.2)."""

import pytest

from leasehold.trace_context import TraceContext, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True), ("fe", False)]
)
def test_a_trace_is_sampled_if_the_last_bit_of_the_flags_is_set(flags: str, *, is_sampled: bool) -> None:
    context = parse_traceparent(f"00-{TRACE}-{PARENT}-{flags}".encode())
    assert context == TraceContext(TRACE, PARENT, int(flags, 16))
    assert context is not None
    assert context.is_sampled is is_sampled


@pytest.mark.parametrize(
    "sent", [f"01-{TRACE}-{PARENT}-01", f"fe-{TRACE}-{PARENT}-01-more", f"cc-{TRACE}-{PARENT}-01-"]
)
def test_a_later_version_may_have_more_fields(sent: str) -> None:
    assert parse_traceparent(sent.encode()) == TraceContext(TRACE, PARENT, 1)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-001",
        f"00-{TRACE}-{PARENT}-0g",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01 ",
        f" 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT.upper()}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT[1:]}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"0-{TRACE}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01, 01-{TRACE}-{PARENT}-01",
    ],
)
def test_a_malformed_value_names_no_trace(sent: str) -> None:
    assert parse_traceparent(sent.encode()) is None

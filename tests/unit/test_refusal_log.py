"""The log of refused requests: one line for each, with a limit on the rate, so that it cannot fill a disk."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from leasehold.access.authorization import unauthenticated
from leasehold.access.permissions import Principal, forbidden
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.refusal_log import MAX_LINES, PERIOD_SECONDS, RefusalLog, printable


def request(subject: str = "ann") -> Request:
    asked = Request("GET", b"/kv/secret-key", Headers(), request_id=b"r-1", pattern="/kv/{key}")
    asked.principal = Principal(subject, frozenset({"write"}))
    return asked


def flood(log: RefusalLog, count: int) -> None:
    for _ in range(count):
        log.record(request(), unauthenticated("expired"), "192.0.2.1")


def told(lines: Any) -> list[tuple[str, int, int | None]]:
    return [(line["event"], line["status"], line.get("count")) for line in lines]


def test_a_refusal_is_logged_with_caller_request_and_reason() -> None:
    with capture_logs() as lines:
        RefusalLog(0).record(request(), forbidden("no", reason="no permission to read"), "192.0.2.1")
    assert lines == [
        {
            "event": "request refused",
            "log_level": "info",
            "status": 403,
            "reason": "no permission to read",
            "method": "GET",
            "route": "/kv/{key}",
            "client": "192.0.2.1",
            "sub": "ann",
            "request_id": "r-1",
        }
    ]


def test_a_refusal_without_a_valid_token_names_no_caller() -> None:
    with capture_logs() as lines:
        RefusalLog(0).record(request(), unauthenticated("expired"), "192.0.2.1")
    assert ("sub" in lines[0], lines[0]["reason"]) == (False, "expired")


def test_over_the_rate_refusals_are_counted_and_not_logged() -> None:
    with capture_logs() as lines:
        log = RefusalLog(0)
        flood(log, 10_000)
        log.sweep(PERIOD_SECONDS - 1)
        assert len(lines) == MAX_LINES
        log.sweep(PERIOD_SECONDS)
        flood(log, 1)
    cut = ("more requests were refused", 401, 10_000 - MAX_LINES)
    assert told(lines) == [("request refused", 401, None)] * MAX_LINES + [cut, ("request refused", 401, None)]


def test_many_bad_tokens_do_not_hide_a_403() -> None:
    with capture_logs() as lines:
        log = RefusalLog(0)
        flood(log, 10_000)
        log.record(request(), forbidden("no", reason="another host"), "192.0.2.1")
    assert told(lines)[-1] == ("request refused", 403, None)


def test_the_number_of_omitted_refusals_is_logged_at_shutdown() -> None:
    with capture_logs() as lines:
        log = RefusalLog(0)
        flood(log, MAX_LINES + 5)
        log.sweep(1, last=True)
    assert told(lines)[-1] == ("more requests were refused", 401, 5)


@pytest.mark.parametrize("count", [0, 1, MAX_LINES])
def test_without_omitted_refusals_no_number_is_logged(count: int) -> None:
    with capture_logs() as lines:
        log = RefusalLog(0)
        flood(log, count)
        log.sweep(PERIOD_SECONDS, last=True)
    assert told(lines) == [("request refused", 401, None)] * count


@pytest.mark.parametrize(
    "text", ["ann\n2026 forged", "\x1b[31mred", "\u2028", "ä\u202eb", "\x7f", "\x00", "x" * 10_000]
)
def test_text_from_outside_is_shortened_and_made_printable(text: str) -> None:
    shown = printable(text)
    assert (shown.isascii(), shown.isprintable(), len(shown) < 1_000) == (True, True, True)


def test_an_ordinary_name_is_logged_unchanged() -> None:
    assert printable("service/ann@example.com") == "service/ann@example.com"

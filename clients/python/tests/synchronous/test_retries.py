# Made from `asynchronous/test_retries.py` by tools/make_sync.py: edit that file.
import itertools
import logging
from typing import Any

import httpx2
import pytest
from running import Server, free_port

from leasehold_client import (
    Client,
    InternalError,
    NotFound,
    Request,
    ServiceError,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
    Unreachable,
)
from leasehold_client._sync import runtime
from synchronous.together import beside, together

pytestmark = pytest.mark.anyio

ENTRY = '{"key": "a", "value": 1, "revision": 1}'
Answer = tuple[int, str, dict[str, str]]


def error(status: int, code: str, **headers: str) -> Answer:
    return status, f'{{"error": "{code}", "message": "as planned"}}', headers


def answering(*answers: Answer | Exception, requests: list[httpx2.Request]) -> httpx2.MockTransport:
    """A service that gives these answers, one after the other, and the last one again and again."""
    waiting = list(answers)

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        given = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        if isinstance(given, Exception):
            raise given
        status, text, headers = given
        return httpx2.Response(status, text=text, headers=headers)

    return httpx2.MockTransport(answer)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts. They take no time: the clock of the client moves."""
    taken: list[float] = []

    def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(runtime, "sleep", sleep)
    monkeypatch.setattr(runtime, "clock", lambda: sum(taken))
    return taken


def client(*answers: Answer | Exception, requests: list[httpx2.Request] | None = None, **options: Any) -> Client:
    transport = answering(*answers, requests=[] if requests is None else requests)
    return Client("http://service", http=httpx2.Client(transport=transport), **options)


def test_a_change_is_sent_again_unchanged_until_it_is_answered(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    requests: list[httpx2.Request] = []
    failures: tuple[Answer | Exception, ...] = (
        httpx2.ReadError("cut"),
        httpx2.ConnectError("refused"),
        error(503, "unavailable"),
        (502, "<html>", {}),
    )
    with client(*failures, (200, ENTRY, {}), requests=requests) as db:
        assert (db.put("a", 1)).revision == 1
        db.put("a", 1)
    keys = [request.headers["idempotency-key"] for request in requests]
    assert len(set(keys[:5])) == 1
    assert keys[5] != keys[0]
    assert {(request.method, request.url.path, request.content) for request in requests} == {("POST", "/kv/a", b"1")}
    assert len(pauses) == 4
    assert all(shorter < longer * 2 for shorter, longer in itertools.pairwise(pauses))
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 4
    assert messages[0].startswith("POST /kv/a: attempt 1 failed (cut)")
    assert "unavailable: as planned" in messages[2]


def test_a_retry_waits_as_long_as_the_service_asks_for(pauses: list[float]) -> None:
    answers: tuple[Answer, ...] = (error(429, "too_many_requests", **{"Retry-After": "7"}), (200, ENTRY, {}))
    with client(*answers) as db:
        db.get("a")
    assert pauses == [7.0]


def test_a_retry_that_would_come_too_late_is_not_waited_for(pauses: list[float]) -> None:
    with client(error(429, "too_many_requests", **{"Retry-After": "31"})) as db:
        with pytest.raises(TooManyRequests) as refused:
            db.get("a")
    assert refused.value.retry_after == 31.0
    assert pauses == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx2.ConnectError("refused"), Unreachable),
        (httpx2.ReadTimeout("too slow"), Unreachable),
        (error(503, "unavailable"), Unavailable),
        ((504, "<html>", {}), UnexpectedResponse),
    ],
    ids=["refused", "slow", "unavailable", "proxy"],
)
def test_retries_end_in_time(pauses: list[float], answer: Answer | Exception, kind: type[Exception]) -> None:
    with client(answer, retry_seconds=20) as db:
        with pytest.raises(kind):
            db.put("a", 1)
    assert 10 < sum(pauses) <= 20


@pytest.mark.parametrize(
    ("answer", "kind", "attempts"),
    [
        (error(404, "not_found"), NotFound, 1),
        (error(418, "not_known_yet"), ServiceError, 1),
        (error(500, "internal"), InternalError, 3),
        ((404, "<html>", {}), UnexpectedResponse, 1),
        ((200, "<html>", {}), UnexpectedResponse, 1),
        ((200, '{"key": "a"}', {}), UnexpectedResponse, 1),
    ],
    ids=["refusal", "new code", "internal", "page", "success that is none", "incomplete"],
)
def test_what_another_attempt_cannot_change_is_raised(
    pauses: list[float], answer: Answer, kind: type[Exception], attempts: int
) -> None:
    requests: list[httpx2.Request] = []
    with client(answer, requests=requests) as db:
        with pytest.raises(kind):
            db.get("a")
    assert len(requests) == attempts


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed_and_says_to_where(pauses: list[float], status: int) -> None:
    requests: list[httpx2.Request] = []
    with client((status, "See there", {"Location": "https://other/kv/a"}), requests=requests) as db:
        with pytest.raises(UnexpectedResponse, match=f"HTTP {status} redirects to https://other/kv/a") as refused:
            db.get("a")
        assert refused.value.status == status
        with pytest.raises(UnexpectedResponse, match="redirects are not followed"):
            db.put("a", 1)
    assert len(requests) == 2


def test_the_deletion_of_a_prefix_may_take_minutes(pauses: list[float]) -> None:
    requests: list[httpx2.Request] = []
    unreachable = httpx2.ConnectError("refused")
    with client((200, '{"deleted": 7}', {}), requests=requests) as db:
        assert db.delete_prefix("many/") == 7
    assert requests[0].extensions["timeout"]["read"] == 610.0
    with client(unreachable, retry_seconds=20) as db:
        with pytest.raises(Unreachable):
            db.delete_prefix("many/")
    assert 10 < sum(pauses) <= 20


def test_without_retries_the_first_failure_is_raised(pauses: list[float]) -> None:
    with free_port() as port:
        with Client(f"http://127.0.0.1:{port}", retry_seconds=0) as db:
            with pytest.raises(Unreachable, match=f"http://127.0.0.1:{port} did not respond"):
                db.get("a")
    assert pauses == []


def test_a_request_of_ones_own_may_have_its_own_time_for_retries(pauses: list[float]) -> None:
    with free_port() as port:
        with Client(f"http://127.0.0.1:{port}", retry_seconds=300) as db:
            with pytest.raises(Unreachable, match="did not respond: "):
                db.send(Request("GET", "/kv/a"), within_seconds=0.0)
    assert pauses == []


def test_requests_during_a_restart_are_done_once(own_server: Server) -> None:
    with Client(own_server.url) as db:

        def count() -> None:
            for _ in range(20):
                db.increment("n")

        def restart() -> None:
            beside(own_server.restart)

        together(count, restart, count)
        assert (db.get("n")).value == 40


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("127.0.0.1:8080", {}),
        ("ftp://127.0.0.1", {}),
        ("http://127.0.0.1:port", {}),
        ("http://", {}),
        ("http://ann:secret@127.0.0.1", {}),
        ("http://127.0.0.1?a=1", {}),
        ("http://127.0.0.1#a", {}),
        ("http://127.0.0.1:8080", {"retry_seconds": 301}),
        ("http://127.0.0.1:8080", {"retry_seconds": -1}),
    ],
)
def test_a_client_with_invalid_settings_is_not_created(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Client(url, **options)

"""Bearer tokens: which are accepted, which are refused with 401, and what the log says about refusals."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from callers import (
    BAD,
    BOTH,
    CENTURY_SECONDS,
    GOOD,
    OF_ANOTHER,
    READER,
    SECRET,
    UNAUTHENTICATED,
    WRITER,
    bearer,
    put,
    request,
    routes,
    token,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Server, Wire, message, refusal, running, until


def test_tokens_of_parametrized_tests_are_valid_for_the_whole_run() -> None:
    made = [headers["Authorization"].removeprefix("Bearer ") for headers in (READER, WRITER, BOTH, OF_ANOTHER)]
    ends = [jwt.decode(each, SECRET, algorithms=["HS256"])["exp"] for each in [*made, GOOD]]
    assert min(ends) > time.time() + CENTURY_SECONDS / 2


@pytest.mark.parametrize("kind", BAD)
def test_every_invalid_token_gets_the_same_401_on_every_route(guarded: Server, kind: str) -> None:
    checked = routes(guarded)
    assert len(checked) >= 10
    seen = set()
    for method, target in [*checked, ("HEAD", "/kv/a"), ("HEAD", "/kv"), ("HEAD", "/stream")]:
        response = request(guarded, method, target, BAD[kind])
        body = {} if method == "HEAD" else response.json()
        body.pop("request_id", None)
        challenge = response.headers["WWW-Authenticate"]
        if target.startswith("/terraform/"):
            challenge = challenge.removesuffix(', Basic realm="leasehold"')
        seen.add((response.status_code, challenge, method == "HEAD", json.dumps(body)))
    text = json.dumps({"error": "unauthenticated", "message": "a valid bearer token is needed"})
    assert seen == {(401, "Bearer", False, text), (401, "Bearer", True, "{}")}


def test_a_refused_request_does_not_show_whether_the_entry_exists(guarded: Server, key: str) -> None:
    put(guarded, key)
    answers = [guarded.get(name) for name in (key, f"{key}-absent")]
    texts = [answer.text.replace(answer.headers["X-Request-Id"], "") for answer in answers]
    names = [sorted(answer.headers) for answer in answers]
    assert (texts[0], names[0]) == (texts[1], names[1])


def test_a_token_sent_twice_is_refused(guarded: Server) -> None:
    field = f"Authorization: Bearer {GOOD}"
    with Wire(guarded) as wire:
        wire.send(message("GET", "/kv", field, field), message("GET", "/kv", field))
        assert [wire.answer().refusal, wire.answer().status] == [UNAUTHENTICATED, 200]


def test_a_refused_write_changes_nothing(guarded: Server, key: str) -> None:
    put(guarded, key)
    for headers in (BAD["expired"], READER):
        guarded.put(key, "2", headers=headers)
        guarded.delete(key, headers=headers)
    assert guarded.get(key, headers=READER).json()["value"] == 1


def test_a_token_that_expires_while_the_service_runs_is_refused(guarded: Server) -> None:
    short = bearer(token("read", lifetime_seconds=2))

    def status() -> int:
        return guarded.request("GET", "/kv", headers=short).status_code

    assert status() == 200
    until(lambda: status() == 401)


def test_an_unknown_path_is_not_found_without_a_token(guarded: Server) -> None:
    assert refusal(guarded.request("GET", "/nowhere")) == (404, "no_such_route")
    assert refusal(guarded.request("POST", "/kv")) == (405, "method_not_allowed")


def test_a_refused_token_leaves_the_connection_open(guarded: Server) -> None:
    with Wire(guarded) as wire:
        wire.send(message("PUT", "/kv/a", body=b"1"), message("GET", "/health"))
        assert [wire.answer().refusal, wire.answer().status] == [UNAUTHENTICATED, 200]


@given(st.binary(max_size=60).map(lambda noise: noise.translate(None, b"\r\n\0")))
@settings(max_examples=200, deadline=None, database=None)
def test_random_bytes_as_a_token_are_refused(guarded: Server, noise: bytes) -> None:
    with Wire(guarded) as wire:
        wire.send(b"GET /kv HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + noise + b"\r\n\r\n")
        assert wire.answer().status in (400, 401)


# What needs no token ------------------------------------------------------------------------------------------


def test_health_needs_no_token(guarded: Server) -> None:
    open_routes = routes(guarded, permission=False)
    assert {target for _, target in open_routes} == {"/health", "/health/live", "/health/ready", "/openapi.json"}
    assert [request(guarded, *route, {}).status_code for route in open_routes] == [200] * 4


def test_an_invalid_token_is_refused_on_routes_that_need_none(guarded: Server) -> None:
    assert refusal(guarded.request("GET", "/health", headers=BAD["expired"])) == UNAUTHENTICATED


def test_a_service_without_tokens_ignores_the_authorization_header(server: Server, key: str) -> None:
    assert server.put(key, "1", headers=BAD["garbage"]).status_code == 201


# The log of refusals ------------------------------------------------------------------------------------------


def test_the_log_has_no_token_and_no_secret(guarded: Server) -> None:
    for headers in [*BAD.values(), READER, BOTH]:
        guarded.put("logged", "1", headers=headers)
    log = guarded.log()
    tokens = [value.removeprefix("Bearer ") for headers in [*BAD.values(), READER, BOTH] for value in headers.values()]
    parts = {part for text in tokens for part in text.split(".") if len(part) > 10}
    assert [part for part in parts if part in log] == []
    assert ("/kv/logged" in log, SECRET.decode() in log, "Traceback" in log) == (True, False, False)


LOGGED: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "no token": ("/kv/logged-key", {}, {"status": 401, "reason": "no token"}),
    "expired": ("/kv/logged-key", BAD["expired"], {"status": 401, "reason": "expired"}),
    "another secret": ("/kv/logged-key", BAD["another secret"], {"status": 401, "reason": "signed with another key"}),
    "no right": ("/kv/logged-key", WRITER, {"status": 403, "reason": "no permission to read", "sub": "ann"}),
    "another prefix": (
        "/kv/logged-key",
        bearer(token("read", prefixes=["x"], subject="bob")),
        {"status": 403, "reason": "not covered by the prefixes", "sub": "bob"},
    ),
    "another site": (
        "/kv/logged-key",
        BOTH | {"Origin": "http://evil.example"},
        {"status": 403, "reason": "page of another site"},
    ),
    "another host": ("/kv/logged-key", BOTH | {"Host": "evil.example"}, {"status": 403, "reason": "another host"}),
    "a list": ("/kv?prefix=logged-key", {}, {"status": 401, "route": "/kv"}),
}


def test_a_refusal_is_logged_without_the_token_and_the_key(secret_file: Path) -> None:
    arguments = [f"--auth-secret-file={secret_file}", "--log-format=json"]
    with running(arguments=arguments) as own:
        for kind, (target, headers, _) in LOGGED.items():
            own.request("GET", target, headers={"X-Request-Id": kind.replace(" ", "-")} | headers)
        log = own.log()
    lines = {event["request_id"]: event for event in map(json.loads, log.splitlines()) if "request_id" in event}
    usual = {"event": "request refused", "method": "GET", "route": "/kv/{key}", "client": "127.0.0.1"}
    for kind, (_, _, expected) in LOGGED.items():
        line = lines[kind.replace(" ", "-")]
        assert (kind, line) == (kind, line | usual | expected)
    parts = {part for _, headers, _ in LOGGED.values() for part in headers.get("Authorization", "").split(".") if part}
    assert [part for part in [*parts, "logged-key"] if part in log] == []


def test_many_refusals_are_logged_as_a_few_lines_and_a_count(secret_file: Path) -> None:
    with running(arguments=[f"--auth-secret-file={secret_file}"]) as own:
        for _ in range(200):
            own.client.get("/kv/a")
        own.terminate()
        lines = own.log().splitlines()
    told, more = (sum(event in line for line in lines) for event in ("request refused", "more requests were refused"))
    assert (told < 100, more > 0) == (True, True)


@pytest.mark.parametrize("kind", BAD)
def test_no_answer_shows_a_part_of_the_token(guarded: Server, kind: str) -> None:
    response = guarded.get("a", headers=BAD[kind])
    said = response.text + repr(response.headers)
    sent = BAD[kind].get("Authorization", "").removeprefix("Bearer ")
    assert [part for part in sent.split(".") if len(part) > 6 and part in said] == []

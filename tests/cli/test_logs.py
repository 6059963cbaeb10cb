"""The log on standard error: one event per line, no secrets, and no lines that a client can forge."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from running import Server, Wire, message, running

SECRET = "hunter2-secret-value"

OUTSIDE = [
    message("GET", "/kv/line%0Abreak"),
    message("GET", "/kv/line%0D%0Abreak?path=/%0A"),
    message("GET", "/kv/\x85\xe2\x80\xa8\xc2\x85"),
    message("GET", "/kv/\xff\xfe"),
    message("GET", "/kv/%1B[31mred"),
    message("GET", "/kv/a", "X-Request-Id: {forged}=\x85"),
    message("GET", "/kv/" + "k" * 2_000),
    message("GET", '/kv/"quoted"\\'),
    message("PUT", f"/kv/a?{SECRET}=1", body=b"1"),
    message("PUT", "/kv/a", f"Authorization: Bearer {SECRET}", body=f'"{SECRET}"'.encode()),
    message("PUT", "/kv/a", f"Cookie: {SECRET}", body=f'["{SECRET}"'.encode()),
    message("PUT", "/kv/a?path=/" + SECRET, body=f'{{"{SECRET}": 1}}'.encode()),
    message("PATCH", "/kv/a", "Content-Type: application/json-patch+json", body=f'[{{"op": "{SECRET}"}}]'.encode()),
    b"NONSENSE " + SECRET.encode() + b"\r\n\r\n",
]


@pytest.fixture(params=["text", "json"])
def talkative(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(log_level="debug", arguments=[f"--log-format={request.param}"]) as started:
        started.client.close()
        yield started


def lines_of(server: Server, requests: list[bytes]) -> list[str]:
    """The lines of the log for these requests, one connection each. Lines end only at line feeds."""
    before = len(server.log())
    for request in requests:
        with Wire(server) as wire:
            wire.send(request).answer()
    return server.log()[before:].removesuffix("\n").split("\n")


def events(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log().splitlines()]


# Form ---------------------------------------------------------------------------------------------------------


def test_every_line_of_a_json_log_is_json() -> None:
    with running(log_level="debug", arguments=["--log-format=json"]) as server:
        lines_of(server, OUTSIDE)
        server.terminate()
        wrong = [line for line in events(server) if not {"event", "level", "timestamp"} <= line.keys()]
        assert (wrong, len(events(server)) > len(OUTSIDE)) == ([], True)


def test_a_request_is_logged_with_its_id_and_status() -> None:
    with running(log_level="debug", arguments=["--log-format=json"]) as server:
        server.put("a", "1", headers={"X-Request-Id": "mine"})
        logged = next(event for event in events(server) if event.get("request_id") == "mine")
    assert (logged["event"], logged["method"], logged["path"], logged["status"]) == ("request", "POST", "/kv/a", 201)


def test_a_generated_request_id_is_logged() -> None:
    with running(log_level="debug", arguments=["--log-format=json"]) as server:
        made = server.request("GET", "/nowhere").headers["X-Request-Id"]
        assert [event["status"] for event in events(server) if event.get("request_id") == made] == [404]


# What a log must not have -------------------------------------------------------------------------------------


def test_a_request_from_outside_makes_one_line(talkative: Server) -> None:
    lines = lines_of(talkative, OUTSIDE)
    assert [len(line.splitlines()) for line in lines] == [1] * len(OUTSIDE)


def test_a_log_has_only_printable_characters(talkative: Server) -> None:
    lines = lines_of(talkative, OUTSIDE)
    assert [line for line in lines if not line.isprintable()] == []


def test_a_log_has_no_value_no_header_and_no_query(talkative: Server) -> None:
    lines_of(talkative, OUTSIDE)
    assert SECRET not in talkative.log()


def test_a_long_path_is_cut(talkative: Server) -> None:
    assert max(len(line) for line in lines_of(talkative, OUTSIDE)) < 1_000


def test_a_log_that_is_not_a_terminal_has_no_colours() -> None:
    with running(log_level="debug") as server:
        server.put("a", "1")
        assert "\x1b" not in server.log()


# Levels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", {"request", "ready", "stopping", "stopped"}),
        ("info", {"ready", "stopping", "stopped"}),
        ("warning", set()),
        ("error", set()),
    ],
)
def test_a_log_has_only_events_of_its_level_or_above(level: str, shown: set[str]) -> None:
    with running(log_level=level, arguments=["--log-format=json"]) as server:
        server.put("a", "1")
        server.get("absent")
        server.terminate()
        assert {event["event"] for event in events(server)} == shown


def test_an_invalid_request_is_not_logged_as_a_warning() -> None:
    with running(log_level="warning") as server:
        lines_of(server, OUTSIDE)
        assert server.log() == ""


def test_a_connection_cut_at_the_end_is_a_warning() -> None:
    with (
        running(log_level="warning", environment={"LEASEHOLD_SHUTDOWN_TIMEOUT_SECONDS": "0.2"}) as server,
        Wire(server) as wire,
    ):
        wire.send(message("PUT", "/kv/a", body=b"12")[:-1])
        server.put("a", "1")
        server.terminate()
        assert "connections cut" in server.log()

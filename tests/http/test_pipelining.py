"""Requests that are sent before earlier ones are answered get their answers in order."""

import json
from pathlib import Path

import pytest
from running import Server, Wire, message


def test_hundreds_of_reads_in_one_packet_are_answered_in_order(any_server: Server, key: str) -> None:
    for number in range(10):
        any_server.put(f"{key}/{number}", str(number))
    with Wire(any_server) as wire:
        wire.send(*(message("GET", f"/kv/{key}/{number % 10}") for number in range(500)))
        answers = [wire.answer().value for _ in range(500)]
    assert answers == [number % 10 for number in range(500)]


def test_hundreds_of_writes_in_one_packet_are_done_in_order(any_server: Server, key: str) -> None:
    with Wire(any_server) as wire:
        wire.send(*(message("PUT", f"/kv/{key}", body=b"%d" % number) for number in range(300)))
        answers = [json.loads(wire.answer().body) for _ in range(300)]
    revisions = [answer["revision"] for answer in answers]
    assert ([answer["value"] for answer in answers], revisions) == (list(range(300)), sorted(set(revisions)))


def test_a_read_after_a_write_waits_for_it_and_sees_it(any_server: Server, key: str) -> None:
    with Wire(any_server) as wire:
        for number in range(50):
            wire.send(message("PUT", f"/kv/{key}", body=b"%d" % number), message("GET", f"/kv/{key}"))
        seen = [(wire.answer().status, wire.answer().value) for _ in range(50)]
    assert seen == [(201, 0)] + [(200, number) for number in range(1, 50)]


def test_answers_of_every_kind_keep_their_order(any_server: Server, key: str) -> None:
    with Wire(any_server) as wire:
        wire.send(
            message("PUT", f"/kv/{key}", body=b"[1]"),
            message("GET", f"/kv?prefix={key}"),
            message("PUT", f"/kv/{key}", body=b"["),
            message("GET", "/nowhere"),
            message("DELETE", f"/kv/{key}", "If-Match: *"),
            message("GET", f"/kv?prefix={key}&limit=1"),
            message("PATCH", f"/kv/{key}", body=b"{}"),
            message("GET", "/health/live"),
        )
        statuses = [wire.answer().status for _ in range(8)]
    assert statuses == [201, 200, 400, 404, 200, 200, 415, 200]


def test_large_bodies_and_large_answers_keep_their_order(any_server: Server, key: str) -> None:
    bodies = [b'"%b"' % (b"%d" % number * 200_000) for number in range(8)]
    with Wire(any_server) as wire:
        for number, body in enumerate(bodies):
            wire.send(message("PUT", f"/kv/{key}/{number}", "Prefer: return=minimal", body=body))
        wire.send(*(message("GET", f"/kv/{key}/{number}?raw") for number in range(8)))
        assert [wire.answer().status for _ in range(8)] == [201] * 8
        assert [wire.answer().body for _ in range(8)] == [body + b"\n" for body in bodies]


def test_lists_among_other_requests_keep_their_order(any_server: Server, key: str) -> None:
    with Wire(any_server) as wire:
        for number in range(20):
            wire.send(message("PUT", f"/kv/{key}/{number:02}", body=b"1"), message("GET", f"/kv?prefix={key}"))
        counts = []
        for _ in range(20):
            wire.answer()
            counts.append(len(json.loads(wire.answer().body)["entries"]))
    assert counts == list(range(1, 21))


def test_a_refused_request_is_answered_in_order_and_the_requests_after_it_are_not_done(
    any_server: Server, key: str
) -> None:
    with Wire(any_server) as wire:
        wire.send(
            *(message("PUT", f"/kv/{key}/{number}", body=b"1") for number in range(100)),
            b"BROKEN\r\n\r\n",
            message("PUT", f"/kv/{key}/after", body=b"1"),
        )
        statuses = [wire.answer().status for _ in range(101)]
        ended = wire.is_closed()
    assert (statuses, ended) == ([201] * 100 + [400], True)
    assert any_server.get(f"{key}/after").status_code == 404


def test_requests_that_arrive_in_odd_pieces_are_answered_in_order(any_server: Server, key: str) -> None:
    sent = b"".join(message("PUT", f"/kv/{key}", body=b"%d" % number) for number in range(100))
    with Wire(any_server) as wire:
        for start in range(0, len(sent), 77):
            wire.send(sent[start : start + 77])
        assert [wire.answer().value for _ in range(100)] == list(range(100))


def peak_bytes(server: Server) -> int:
    """The most memory that the server ever had."""
    status = Path(f"/proc/{server.pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory")
def test_answers_that_the_client_does_not_read_take_little_memory(any_server: Server, key: str) -> None:
    any_server.put(key, '"%s"' % ("x" * 1_000_000))
    before = peak_bytes(any_server)
    with Wire(any_server) as wire, Wire(any_server) as other:
        wire.send(message("GET", f"/kv/{key}") * 1_000)
        other.send(message("GET", "/health/live")).answer()
        assert peak_bytes(any_server) - before < 50_000_000


@pytest.mark.parametrize("last", ["", "Connection: close"])
def test_all_requests_of_one_packet_are_answered(any_server: Server, key: str, last: str) -> None:
    """More requests than the service has waiting at once, and then the last one, or half a close."""
    any_server.put(key, "1")
    with Wire(any_server) as wire:
        wire.send(message("GET", f"/kv/{key}") * 2_000, message("DELETE", f"/kv/{key}", *filter(None, [last])))
        if not last:
            wire.end_sending()
        statuses = [wire.answer().status for _ in range(2_001)]
        assert (statuses, wire.rest()) == ([200] * 2_001, b"")


def test_requests_after_a_close_in_one_packet_are_not_done(any_server: Server, key: str) -> None:
    any_server.put(key, "1")
    with Wire(any_server) as wire:
        wire.send(
            message("GET", f"/kv/{key}") * 80,
            message("GET", f"/kv/{key}", "Connection: close"),
            message("DELETE", f"/kv/{key}") * 10,
        )
        statuses = [wire.answer().status for _ in range(81)]
        assert (statuses, wire.rest()) == ([200] * 81, b"")
    assert any_server.get(key).status_code == 200

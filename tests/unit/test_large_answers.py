"""Answers with parts of large values, and large ones in MessagePack: made in steps, in turn, whatever happens."""

import asyncio
import gc
from itertools import pairwise
from unittest.mock import patch

import msgspec
import pytest
from connected_clients import Server, Transport, iterations, message, served

LARGE = b'{"n":1,"a":{"b":[%b1.5]}}' % (b"1.5," * 250_000)
PUT = message("PUT", "/kv/a", LARGE)
MESSAGEPACK = "application/vnd.msgpack"


def packed(request: bytes) -> bytes:
    """The request, with an Accept for MessagePack."""
    return request.replace(b"Host: a", b"Host: a\r\nAccept: %b" % MESSAGEPACK.encode())


def get(target: str, *fields: str) -> bytes:
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: a", *fields, "", "")).encode()


def get_packed(target: str) -> bytes:
    return packed(get(target))


ANSWERS = {
    "a part": get("/kv/a?path=/n"),
    "parts": get("/kv/a?path=/a&path=/a/b/0&path=/n&path="),
    "a part as MessagePack": get_packed("/kv/a?path=/a"),
    "a part alone": get("/kv/a?path=/a/b&raw"),
    "MessagePack": get_packed("/kv/a"),
    "MessagePack alone": get_packed("/kv/a?raw"),
    "a head": get_packed("/kv/a").replace(b"GET", b"HEAD"),
    "a transaction as MessagePack": packed(message("POST", "/txn", b'{"do":[{"op":"get","key":"a"}]}')),
    "a part that is absent": get("/kv/a?path=/absent"),
    "a condition": get("/kv/a?path=/n", 'If-None-Match: "1"'),
    "a condition that fails": get("/kv/a?path=/n", 'If-Match: "7"'),
}


async def put_large(server: Server) -> None:
    _, transport = server.send(PUT)
    await iterations(100)
    assert transport.statuses == [201]


def comparable(transport: Transport) -> bytes:
    """What was written, without what differs between two requests."""
    head, _, body = transport.written.partition(b"\r\n\r\n")
    different = (b"X-Request-Id", b"Date", b"Content-Length")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(different)]
    return b"\r\n".join([*lines, b"", body.partition(b"request_id")[0]])


@pytest.mark.parametrize("request_name", ANSWERS)
def test_an_answer_that_is_made_in_steps_is_the_same_as_one_that_is_made_at_once(request_name: str) -> None:
    answers: list[bytes] = []

    async def scenario(server: Server) -> None:
        await put_large(server)
        for size in (64, 10**9):
            with patch("leasehold.values.PIECE_BYTES", size), patch("leasehold.values.decoding.PIECE_BYTES", size):
                _, transport = server.send(ANSWERS[request_name])
                await iterations(100)
            assert server.shared.answers._current is None
            answers.append(comparable(transport))

    served(scenario)
    assert len(answers[0]) > 50
    assert answers[0] == answers[1]


async def beginning(server: Server) -> None:
    """Wait until an answer is being made."""
    for _ in range(1_000):
        if server.shared.answers._current is not None and not gc.isenabled():
            return
        await asyncio.sleep(0)
    raise AssertionError("no answer is made in steps")


@pytest.mark.parametrize("request_name", ["a part", "parts", "MessagePack", "a transaction as MessagePack"])
def test_other_clients_are_served_between_the_steps(request_name: str) -> None:
    async def scenario(server: Server) -> None:
        await put_large(server)
        _, first = server.send(ANSWERS[request_name])
        await beginning(server)
        _, second = server.send(get("/kv/none"))
        await iterations(1)
        assert (first.statuses, second.statuses) == ([], [404])
        await iterations(100)
        assert first.statuses == [200]
        assert gc.isenabled()

    served(scenario)


@pytest.mark.long
def test_one_answer_is_made_at_a_time_and_all_are_made() -> None:
    async def scenario(server: Server) -> None:
        await put_large(server)
        transports = [server.send(ANSWERS[name])[1] for name in ("a part", "MessagePack", "parts") for _ in range(2)]
        both = server.send(ANSWERS["a part as MessagePack"] * 2)[1]
        answered: list[int] = []
        for _ in range(1_000):
            answered.append(sum(len(transport.statuses) for transport in (*transports, both)))
            await asyncio.sleep(0)
        assert [transport.statuses for transport in transports] == [[200]] * 6
        assert both.statuses == [200, 200]
        assert {later - earlier for earlier, later in pairwise(answered)} == {0, 1}
        assert server.shared.answers._current is None

    served(scenario)


@pytest.mark.parametrize("request_name", ["a part", "MessagePack"])
def test_a_client_that_leaves_lets_the_next_answer_be_made(request_name: str) -> None:
    async def scenario(server: Server) -> None:
        await put_large(server)
        connection, first = server.send(ANSWERS[request_name])
        waiting, second = server.send(ANSWERS[request_name])
        await beginning(server)
        _, third = server.send(ANSWERS[request_name])
        for each in (connection, waiting):
            each.connection_lost(None)
        server.clients = [each for each in server.clients if each[0] not in (connection, waiting)]
        await iterations(100)
        assert (first.statuses, second.statuses, third.statuses) == ([], [], [200])
        assert gc.isenabled()

    served(scenario)


@pytest.mark.parametrize("request_name", ["a part", "MessagePack"])
def test_a_fault_while_an_answer_is_made_is_answered_and_the_next_one_is_made(request_name: str) -> None:
    async def scenario(server: Server) -> None:
        await put_large(server)
        with patch("leasehold.values.decoding.pieces", side_effect=MemoryError):
            _, first = server.send(ANSWERS[request_name])
            await iterations(100)
        _, second = server.send(ANSWERS[request_name])
        await iterations(100)
        assert (first.statuses, second.statuses) == ([500], [200])
        assert gc.isenabled()

    served(scenario)


def test_a_fault_in_the_answer_to_a_change_says_that_the_change_was_stored() -> None:
    async def scenario(server: Server) -> None:
        await put_large(server)
        with patch("leasehold.values.decoding.pieces", side_effect=MemoryError):
            request = message("POST", "/txn", b'{"do":[{"op":"put","key":"b","value":1},{"op":"get","key":"a"}]}')
            _, transport = server.send(packed(request))
            await iterations(100)
        assert transport.statuses == [500]
        answer = msgspec.msgpack.decode(transport.written.partition(b"\r\n\r\n")[2])
        assert "the change was stored" in answer["message"]

    served(scenario)

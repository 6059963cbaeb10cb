"""The budget of the bodies in the write lane: how many are decoded at the same time, whatever becomes of them."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from itertools import chain
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from connected_clients import Server, held, iterations, message, served

from leasehold.errors import ServiceError, internal
from leasehold.limits import MIB
from leasehold.model import Operation
from leasehold.store.batch import Done

CLIENTS = 100


def put(size: int) -> bytes:
    return message("PUT", "/kv/a", b'"%b"' % (b"x" * size))


LISTS = b"[" + b",".join([b"[]"] * 2_000) + b"]"
TESTS = b'{"op":"patch","key":"a","patch":[{"op":"test","path":"","value":%b}]}' % LISTS
PACKED = "application/vnd.msgpack"
REQUESTS = {
    "a value of 20 KB": (put(20_000), 201, 200),
    "a value of 100 KB": (put(100_000), 201, 200),
    "many lists": (message("PUT", "/kv/a", LISTS), 201, 200),
    "many lists as MessagePack": (message("PUT", "/kv/a", b"\xdc\x13\x88" + b"\x90" * 5_000, PACKED), 201, 200),
    "bytes": (message("PUT", "/kv/a", b"x" * 20_000, "application/octet-stream"), 201, 200),
    "a patch that is refused by the rules": (
        message("PATCH", "/kv/none", LISTS, "application/merge-patch+json"), 404, 404,
    ),
    "a transaction": (message("POST", "/txn", b'{"do":[{"op":"put","key":"a","value":%b}]}' % LISTS), 200, 200),
    "a transaction that fails": (message("POST", "/txn", b'{"do":[%b]}' % TESTS), 404, 404),
    "a value that is no JSON": (message("PUT", "/kv/a", b"[" * 20_000), 400, 400),
    "a value by UUID": (message("POST", "/set", b'{"value":%b}' % LISTS), 201, 201),
    "a lock": (message("POST", "/locks/a", b'{"owner":%b}' % LISTS), 400, 400),
}  # fmt: skip


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_bodies_in_the_lane_stay_within_the_budget_and_every_client_is_answered(kind: str) -> None:
    request, first, others = REQUESTS[kind]
    budget = 500_000

    async def scenario(server: Server) -> None:
        for _ in range(CLIENTS):
            server.send(request)
        await iterations(2_000)
        answers = sorted(status for _, transport in server.clients for status in transport.statuses)
        assert answers == sorted([first] + [others] * (CLIENTS - 1))
        assert server.bodies.most_bytes <= budget
        if kind not in ("a value that is no JSON", "a lock"):  # they are never in the lane
            assert server.bodies.most_bodies >= 2

    served(scenario, budget=budget)


def test_a_body_larger_than_the_budget_is_accepted_alone() -> None:
    async def scenario(server: Server) -> None:
        for _ in range(5):
            server.send(put(20_000))
        await iterations(200)
        assert [transport.statuses for _, transport in server.clients] == [[201], *[[200]] * 4]
        assert server.bodies.most_bodies == 1

    served(scenario, budget=1_000)


def test_a_small_body_does_not_wait_for_the_large_ones() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            for _ in range(3):
                server.send(put(20_000))
            assert len(submitted) == 1
            server.send(put(1_000))
            assert len(submitted) == 2
            complete_all(submitted)
            await iterations()
            complete_all(submitted)
            await iterations()
            complete_all(submitted)

    served(scenario, budget=30_000)


def complete_all(submitted: list[tuple[Operation, Done]]) -> None:
    while submitted:
        submitted.pop()[1](internal("planned"))


def test_a_client_that_leaves_while_its_body_waits_does_not_hold_up_the_next_one() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            server.send(put(20_000))
            gone, _ = server.send(put(20_000))
            aborted, _ = server.send(put(100_000))
            _, last = server.send(put(20_000))
            await iterations()
            assert len(submitted) == 1
            gone.connection_lost(None)
            aborted.abort()
            assert len(server.bodies._waiting) == 1
            assert server.shared.bodies.total_bytes == 2 * 20_002
            complete_all(submitted)
            await iterations()
            assert len(submitted) == 1
            complete_all(submitted)
            await iterations()
            assert last.statuses == [500]
            server.clients.pop(1)

    served(scenario, budget=30_000)


def test_the_body_of_a_client_that_left_counts_until_its_change_is_completed() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            gone, _ = server.send(put(20_000))
            _, last = server.send(put(20_000))
            gone.connection_lost(None)
            await iterations()
            assert (len(submitted), server.bodies.total_bytes) == (1, 20_002)
            complete_all(submitted)
            await iterations()
            assert len(submitted) == 1
            complete_all(submitted)
            await iterations()
            assert last.statuses == [500]
            server.clients.pop(0)

    served(scenario, budget=30_000)


def failing_submit(_operation: Operation, _done: Done) -> None:
    raise MemoryError


def refusing_submit(_operation: Operation, done: Done) -> None:
    done(ServiceError("unavailable", "planned"))


def twice_completing_submit(operation: Operation, done: Done) -> None:
    del operation
    done(internal("planned"))
    done(internal("planned again"))


@pytest.mark.parametrize("submit", [failing_submit, refusing_submit, twice_completing_submit])
def test_the_budget_is_returned_after_an_error(
    submit: Callable[[Operation, Done], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: Server) -> None:
        monkeypatch.setattr(server.shared.store, "submit", submit)
        for _ in range(5):
            server.send(put(20_000))
        await iterations(200)
        assert all(transport.statuses in ([500], [503]) for _, transport in server.clients)

    served(scenario, budget=30_000)


def test_requests_behind_a_body_that_waits_are_answered_in_order() -> None:
    get = b"GET /kv/a HTTP/1.1\r\nHost: a\r\n\r\n"

    async def scenario(server: Server) -> None:
        for _ in range(10):
            server.send(put(20_000) + get + put(100_000) + put(100) + get)
        await iterations(1_000)
        assert {tuple(transport.statuses[1:]) for _, transport in server.clients} == {(200,) * 4}

    served(scenario, budget=30_000)


def test_a_client_that_does_not_read_does_not_hold_up_those_behind_it() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            server.send(put(20_000))
            slow, slow_transport = server.send(put(20_000))
            _, last = server.send(put(20_000))
            slow._sender.is_paused = True
            complete_all(submitted)
            await iterations()
            complete_all(submitted)
            await iterations()
            assert (last.statuses, slow_transport.statuses) == ([500], [])
            slow.resume_writing()
            await iterations()
            complete_all(submitted)
            await iterations()
            assert slow_transport.statuses == [500]

    served(scenario, budget=30_000)


def test_a_server_that_stops_closes_the_connections_whose_bodies_wait() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            for _ in range(5):
                server.send(put(20_000))
            await server.shared.drain(0)
            assert all(transport.is_aborted for _, transport in server.clients)
            complete_all(submitted)
            await iterations()
            assert submitted == []

    served(scenario, budget=30_000)


LARGE_STATE = message("POST", "/terraform/a", b'["\xc3\xa9%b"]' % (b"x" * 5 * MIB)).replace(
    b"Host: a", b"Host: a\r\nIdempotency-Key: k"
)
STRINGS = [f"\u4e00{number}" for number in range(60_000)]
LARGE_BODIES = {
    "JSON": (put(400_000), ["values.text._decode_json", "values.encode"]),
    "lists": (
        message("PUT", "/kv/a", b"[%b1]" % (b"[12345678]," * 30_000)),
        ["values.json_text.is_deeper", "values.text._decode_json", "values.encode"],
    ),
    "minus zeros": (
        message("PUT", "/kv/a", b"[" + b"-0," * 100_000 + b"0]"),
        [
            "values.text._decode_json",
            "values.json_text.with_float_zeros",
            "values.json_text.with_float_zeros",
            "values.text._decode_json",
            "values.encode",
        ],
    ),
    "MessagePack": (
        message("PUT", "/kv/a", msgspec.msgpack.encode(STRINGS), "application/msgpack"),
        ["values.text._unpacked", "values.text._text_of_unpacked", "values.text._check_kinds", "values.encode"],
    ),
    "a transaction": (
        message("POST", "/txn", b'{"do":[{"op":"put","key":"a","value":"%b"}]}' % (b"x" * 400_000)),
        ["values.text._decode_json", "http.endpoints.transactions.members_of"],
    ),
    "a JSON patch": (
        message("PATCH", "/kv/a", b'[{"op":"test","path":"","value":"%b"}]' % (b"x" * 400_000)).replace(
            b"application/json", b"application/json-patch+json"
        ),
        ["values.text._decode_json", "values.patches._parse_step"],
    ),
    "a state": (
        LARGE_STATE,
        [
            "http.routing.idempotency._digest_of_head",
            "values.kept_text._skip",
            "values.kept_text._Utf8Decoder",
            "http.endpoints.terraform.save_state.Content",
        ],
    ),
}


@pytest.mark.parametrize(("request_", "steps"), LARGE_BODIES.values(), ids=LARGE_BODIES.keys())
def test_a_large_body_is_read_in_steps_of_which_each_has_an_iteration_of_its_own(
    request_: bytes, steps: list[str]
) -> None:
    """However many clients send one."""
    turn, turns = 0, dict[str, list[int]]()
    clients = 3

    def noting(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            turns.setdefault(step, []).append(turn)
            return function(*arguments, **options)

        return noted

    async def scenario(server: Server) -> None:
        nonlocal turn
        with ExitStack() as patches:
            for step in set(steps):
                module, _, name = f"leasehold.{step}".rpartition(".")
                function = getattr(import_module(module), name)
                patches.enter_context(patch(f"{module}.{name}", noting(step, function)))
            for _ in range(clients):
                server.send(request_)
            while turn < 500:
                turn += 1
                await asyncio.sleep(0)
        assert {tuple(transport.statuses) for _, transport in server.clients} <= {(200,), (201,), (404,)}

    served(scenario)
    done = list(chain.from_iterable(turns.values()))
    assert len(done) == clients * len(steps)
    assert len(set(done)) == len(done)


def test_a_key_of_a_large_body_is_that_of_its_whole_content() -> None:
    async def scenario(server: Server) -> None:
        other = LARGE_STATE.replace(b'x"]', b'y"]')
        answers = []
        for sent in (LARGE_STATE, LARGE_STATE, other):
            _, transport = server.send(sent)
            await iterations(100)
            answers.append((transport.statuses, b"Idempotent-Replayed: true" in transport.written))
        assert answers == [([201], False), ([201], True), ([422], False)]

    served(scenario)


REFUSED_BODIES = {
    "the first step": message("PUT", "/kv/a", b"[" * 400_000),
    "a later step": message("PUT", "/kv/a", msgspec.msgpack.encode([*STRINGS, b""]), "application/msgpack"),
    "the operation": message("PUT", "/kv/a?ttl=-1", b'"%b"' % (b"x" * 400_000)),
    "a fault": message("POST", "/txn", b'{"do":[{"op":"put","key":"a","value":"%b"}]}' % (b"x" * 400_000)),
}


@pytest.mark.parametrize("kind", REFUSED_BODIES)
def test_a_large_body_that_is_refused_in_a_step_leaves_the_lane(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise MemoryError

    async def scenario(server: Server) -> None:
        monkeypatch.setattr("leasehold.http.endpoints.transactions.members_of", failing)
        connection, transport = server.send(REFUSED_BODIES[kind])
        await iterations(100)
        assert server.bodies.total_bytes == 0
        connection.data_received(put(100))
        await iterations()
        assert transport.statuses == [500 if kind == "a fault" else 400, 201]

    served(scenario)


def test_the_body_of_a_client_that_leaves_while_it_is_read_leaves_the_lane() -> None:
    async def scenario(server: Server) -> None:
        connection, _ = server.send(put(400_000))
        await iterations(1)
        assert server.bodies.total_bytes > 0
        connection.connection_lost(None)
        server.clients.clear()
        await iterations()
        assert server.bodies.total_bytes == 0
        assert server.shared.store.space.revision == 0

    served(scenario)


def test_a_store_with_many_large_bodies_keeps_all_of_them() -> None:
    """The budget changes when a change is decided, and not whether."""

    async def scenario(server: Server) -> None:
        for number in range(CLIENTS):
            server.send(message("PUT", f"/kv/{number}", b'"%b"' % (b"%d" % number * 10_000)))
        await iterations(2_000)
        for number in range(CLIENTS):
            _, transport = server.send(b"GET /kv/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            await iterations(3)
            entry = msgspec.json.decode(transport.written.partition(b"\r\n\r\n")[2])
            assert entry["value"] == str(number) * 10_000

    served(scenario, budget=30_000)

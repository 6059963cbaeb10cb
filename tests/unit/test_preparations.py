"""Changes of large values at a server: prepared in steps, in turn, and whatever happens meanwhile."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import msgspec
import pytest
from connected_clients import Server, Transport, held, iterations, message, served

from leasehold.http.wire.connection import Connection
from leasehold.limits import MIB
from leasehold.model import MergePatch, Put

LARGE = b'{"n":1,"a":[%b1.5]}' % (b"1.5," * 100_000)
PUT = message("PUT", "/kv/a", LARGE)
CHANGE = message("PUT", "/kv/a?path=/n", b"2")
MERGE = "application/merge-patch+json"


def served_with_large(scenario: Callable[[Server], Awaitable[None]]) -> None:
    """Run a scenario at a server that has the large value."""

    async def whole(server: Server) -> None:
        _, transport = server.send(PUT)
        await iterations(100)
        assert transport.statuses == [201]
        await scenario(server)

    served(whole)


def leave(server: Server, connection: Connection) -> None:
    """A client closes its connection."""
    connection.connection_lost(None)
    server.clients = [each for each in server.clients if each[0] is not connection]


def value_of(server: Server) -> dict[str, object] | None:
    entry = server.shared.store.space.peek
    assert entry is not None
    found = entry("a")
    if found is None:
        return None
    assert isinstance(found.value, bytes)
    value: dict[str, object] = msgspec.json.decode(found.value)
    del value["a"]
    return value


async def beginning(server: Server) -> None:
    """Wait until a change is being prepared."""
    for _ in range(1_000):
        if server.shared.preparations._current is not None and not gc.isenabled():
            return
        await asyncio.sleep(0)
    raise AssertionError("nothing is prepared")


def test_a_change_of_a_large_value_is_prepared_when_it_is_submitted() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            server.send(CHANGE)
            await iterations(100)
            [(operation, _)] = submitted
            assert isinstance(operation, Put)
            assert operation.prepared is not None
            assert operation.prepared.after == LARGE.replace(b'"n":1', b'"n":2')

    served_with_large(scenario)


@pytest.mark.parametrize("key", [None, "k"], ids=["without a key", "with a key"])
def test_many_clients_that_change_one_value_all_change_it(key: str | None) -> None:
    """One after the other: nothing is prepared for a value that another client is about to replace."""

    async def scenario(server: Server) -> None:
        decoded_bytes = 0
        decode = msgspec.json.Decoder().decode

        def counting(text: bytes) -> object:
            nonlocal decoded_bytes
            decoded_bytes += len(text) if len(text) > MIB // 8 else 0
            return decode(text)

        transports = []
        with patch("leasehold.values.text._decode_json", counting):
            for number in range(20):
                request = message("PATCH", "/kv/a", b'{"%d":1}' % number, MERGE)
                if key is not None:
                    request = request.replace(b"Host: a", b"Host: a\r\nIdempotency-Key: k%d" % number)
                transports.append(server.send(request)[1])
            await iterations(2_000)
        assert [transport.statuses for transport in transports] == [[200]] * 20
        assert value_of(server) == {"n": 1, **{str(number): 1 for number in range(20)}}
        assert 20 <= decoded_bytes / len(LARGE) < 21

    served_with_large(scenario)


async def written_meanwhile(server: Server, request: bytes) -> tuple[Transport, Transport]:
    """Begin a change, and send another request before it is submitted."""
    _, first = server.send(CHANGE)
    await beginning(server)
    _, second = server.send(request)
    await iterations(200)
    return first, second


def test_a_change_is_made_to_the_value_that_was_written_during_its_preparation() -> None:
    async def scenario(server: Server) -> None:
        other = message("PUT", "/kv/a", b'{"n":7,"b":8,"a":0}')
        first, second = await written_meanwhile(server, other)
        assert (first.statuses, second.statuses) == ([200], [200])
        assert value_of(server) == {"n": 2, "b": 8}

    served_with_large(scenario)


def test_a_change_of_an_entry_that_was_deleted_during_its_preparation_is_made_without_it() -> None:
    async def scenario(server: Server) -> None:
        first, second = await written_meanwhile(server, b"DELETE /kv/a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (first.statuses, second.statuses) == ([201], [200])
        with pytest.raises(KeyError):  # it has no member `a`
            value_of(server)

    served_with_large(scenario)


def test_a_patch_of_an_entry_that_was_deleted_during_its_preparation_is_refused() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(message("PATCH", "/kv/a", b'{"n":2}', MERGE))
        await beginning(server)
        _, second = server.send(b"DELETE /kv/a HTTP/1.1\r\nHost: a\r\n\r\n")
        await iterations(200)
        assert (first.statuses, second.statuses) == ([404], [200])

    served_with_large(scenario)


def test_a_value_that_is_written_in_the_same_batch_before_the_change_counts() -> None:
    """What was prepared is for the value before, so the lane makes the change itself."""

    async def scenario(server: Server) -> None:
        store = server.shared.store
        with held(store) as submitted:
            _, first = server.send(CHANGE)
            await iterations(100)
            [(change, done)] = submitted
        store.submit(Put("a", b'{"n":7,"b":8,"a":0}'), lambda _: None)
        store.submit(change, done)
        await iterations()
        assert first.statuses == [200]
        assert value_of(server) == {"n": 2, "b": 8}

    served_with_large(scenario)


def test_a_client_that_leaves_during_the_preparation_changes_nothing_and_the_next_one_goes_on() -> None:
    async def scenario(server: Server) -> None:
        connection, first = server.send(CHANGE)
        await beginning(server)
        _, second = server.send(message("PUT", "/kv/a?path=/m", b"3"))
        leave(server, connection)
        await iterations(200)
        assert gc.isenabled()
        assert (first.statuses, second.statuses) == ([], [200])
        assert value_of(server) == {"n": 1, "m": 3}

    served_with_large(scenario)


def test_a_client_that_leaves_while_it_waits_for_its_turn_changes_nothing() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(CHANGE)
        await beginning(server)
        connection, _ = server.send(message("PUT", "/kv/a?path=/m", b"3"))
        leave(server, connection)
        _, third = server.send(message("PUT", "/kv/a?path=/o", b"4"))
        await iterations(200)
        assert (first.statuses, third.statuses) == ([200], [200])
        assert value_of(server) == {"n": 2, "o": 4}

    served_with_large(scenario)


def test_a_client_that_leaves_after_the_preparation_lets_the_next_one_go_on() -> None:
    async def scenario(server: Server) -> None:
        with held(server.shared.store) as submitted:
            connection, _ = server.send(CHANGE)
            await iterations(100)
            _, second = server.send(message("PUT", "/kv/a?path=/m", b"3"))
            await iterations(100)
            [(change, done)] = submitted
            leave(server, connection)
        server.shared.store.submit(change, done)
        await iterations(200)
        assert second.statuses == [200]
        assert value_of(server) == {"n": 2, "m": 3}

    served_with_large(scenario)


def test_a_server_that_stops_during_a_preparation_refuses_the_change() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(CHANGE)
        await beginning(server)
        _, second = server.send(message("PUT", "/kv/a?path=/m", b"3"))
        server.shared.store._lane.refuse_all()
        await iterations(200)
        assert gc.isenabled()
        assert (first.statuses, second.statuses) == ([503], [503])
        assert value_of(server) == {"n": 1}

    served_with_large(scenario)


def test_a_server_that_stops_finishes_the_changes_that_it_has_begun() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(CHANGE)
        _, second = server.send(message("PUT", "/kv/a?path=/m", b"3"))
        await beginning(server)
        await server.shared.drain(10)
        assert (first.statuses, second.statuses) == ([200], [200])
        assert value_of(server) == {"n": 2, "m": 3}

    served_with_large(scenario)


def test_a_fault_during_a_preparation_is_answered_and_the_next_change_goes_on() -> None:
    async def scenario(server: Server) -> None:
        with patch("leasehold.values.set_at", side_effect=MemoryError):
            _, first = server.send(CHANGE)
            _, second = server.send(message("PATCH", "/kv/a", b'{"m":3}', MERGE))
            await iterations(200)
        assert gc.isenabled()
        assert (first.statuses, second.statuses) == ([500], [200])
        assert value_of(server) == {"n": 1, "m": 3}

    served_with_large(scenario)


def test_a_refused_change_lets_the_next_one_go_on() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(message("POST", "/kv/a?path=/a/9999999", b"2"))
        _, second = server.send(message("PATCH", "/kv/a", b'{"m":3}', MERGE))
        await iterations(200)
        assert (first.statuses, second.statuses) == ([404], [200])
        assert value_of(server) == {"n": 1, "m": 3}

    served_with_large(scenario)


def test_other_clients_are_served_between_the_steps() -> None:
    async def scenario(server: Server) -> None:
        _, first = server.send(CHANGE)
        await beginning(server)
        _, second = server.send(b"GET /kv/none HTTP/1.1\r\nHost: a\r\n\r\n")
        await iterations(1)
        assert (first.statuses, second.statuses) == ([], [404])
        await iterations(100)
        assert first.statuses == [200]

    served_with_large(scenario)


def test_a_small_value_is_changed_in_the_lane() -> None:
    async def scenario(server: Server) -> None:
        server.send(message("PUT", "/kv/a", b"1"))
        await iterations()
        with held(server.shared.store) as submitted:
            server.send(message("PATCH", "/kv/a", b"{}", MERGE))
            await iterations()
            [(operation, _)] = submitted
            assert operation == MergePatch("a", {})

    served(scenario)

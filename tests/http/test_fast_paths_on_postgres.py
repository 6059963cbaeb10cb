"""The fast paths do exactly what the general path does also with a store on PostgreSQL."""

import random
from collections.abc import Iterator

import pytest
from compared_paths import INCARNATION, EngineOf, Scene, Seen, Step, compared, message, put, send
from databases import Database, shared_server_url
from harness import depth
from harness.corpora import all_cases

from leasehold.engines.base import Clock
from leasehold.engines.postgres.engine import PostgresEngine

GET = message("GET", "/kv/k")
KNOWN: list[Step] = [put("/kv/k"), send(GET), send(GET)]
"""Now the connection has a header block that the fast paths know."""


def new_databases() -> EngineOf:
    """An engine with an empty database at each call. There are two: one for each of the services that are compared.

    All tests use the same ones, because to empty tables takes less than to make them.
    """
    databases = [Database(shared_server_url(), name).create().empty() for name in ("paths_fast", "paths_general")]

    def engine_of(clock: Clock) -> PostgresEngine:
        return PostgresEngine(databases.pop().url, clock=clock, make_incarnation=lambda: INCARNATION)

    return engine_of


def compared_on_postgres(steps: list[Step]) -> Seen:
    return compared(steps, engine_of=new_databases())


def test_reads_and_writes_take_the_fast_paths() -> None:
    result = compared_on_postgres([*KNOWN, send(GET), put("/kv/k", b'{"a":2}'), send(GET)])
    assert (result.quick, result.quick_writes) == (2, 1)


@pytest.mark.parametrize(
    "value", [b"1", b"-0.0", b"1e300", b"18446744073709551615", b'"%b"' % (b"x" * 20_000), '"ä\u2028🦊"'.encode()]
)
def test_values_of_every_kind(value: bytes) -> None:
    assert compared_on_postgres([*KNOWN, put("/kv/k", value), send(GET), put("/kv/k", value), send(GET)]).quick == 2


def test_entries_that_are_missing_or_expire_are_answered_by_the_general_path() -> None:
    absent, expiring = send(message("GET", "/kv/absent")), send(message("GET", "/kv/e"))
    steps = [*KNOWN, absent, put("/kv/e?ttl=5"), expiring, lambda scene: scene.wait(6), expiring, send(GET)]
    assert compared_on_postgres(steps).quick == 1


def test_reads_of_many_connections_share_queries_and_get_their_own_entries() -> None:
    keys = [f"k{number}" for number in range(40)]

    def all_at_once(scene: Scene) -> None:
        for connection, key in zip(scene.connections[-len(keys) :], keys, strict=True):
            connection.data_received(message("GET", f"/kv/{key}"))

    steps = [*KNOWN, *(put(f"/kv/{key}", b'"%b"' % key.encode()) for key in keys)]
    for _ in keys:
        steps += [Scene.connect, send(message("GET", "/kv/k0"))]
    assert compared_on_postgres([*steps, all_at_once, all_at_once]).quick == 2 * len(keys)


@pytest.mark.parametrize("event", ["lose", "eof", "abort", "stop"])
def test_events_while_reads_are_in_flight(event: str) -> None:
    def begin(scene: Scene) -> None:
        scene.send(GET)
        scene.send(message("PUT", "/kv/k", body=b"2") + GET)
        if event == "lose":
            scene.transports[-1].lose()
        elif event == "eof":
            assert scene.connection.eof_received() is True
        elif event == "abort":
            scene.connection.abort()
        else:
            scene.stop()

    compared_on_postgres([*KNOWN, begin, Scene.connect, send(GET), send(GET)])


@pytest.mark.long
def test_cases_of_the_corpus_that_read_or_write_an_entry() -> None:
    cases = [send(case.sent) for case in all_cases() if b" /kv/" in case.sent[:12]]
    get = send(GET.replace(b"Host: a", b"Host: localhost"))
    steps = [step for case in cases for step in (Scene.connect, get, case, case, case, get)]
    assert compared_on_postgres([*KNOWN, *steps]).quick > len(cases) // 2


KEYS = ["k", "k", "a/b", "e%20f", "k?raw", "k?path=/a", "%6b", "absent"]
EVENTS: list[Step] = [Scene.connect, Scene.read_slowly, *[Scene.read_on] * 3]


def any_request(rng: random.Random) -> bytes:
    target, draw = f"/kv/{rng.choice(KEYS)}", rng.random()
    fields = rng.choice([(), (), (), (), ("Accept: application/msgpack",), ("If-None-Match: *",)])
    if draw < 0.7:
        return message("GET", target, *fields)
    if draw < 0.75:
        return message("DELETE", target.partition("?")[0], *fields)
    return message(
        rng.choice(["PUT", "POST"]), target.partition("?")[0], *fields, body=b'{"a":[%d]}' % rng.randrange(100)
    )


def any_steps(rng: random.Random) -> Iterator[Step]:
    yield from KNOWN
    for _ in range(60):
        requests = [any_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 12]))]
        draw = rng.random()
        if draw < 0.7:
            yield from map(send, requests)
        elif draw < 0.85:
            yield send(*requests)
        else:
            yield rng.choice(EVENTS)


@pytest.mark.parametrize("seed", range(depth(4)))
def test_random_requests(seed: int) -> None:
    result = compared_on_postgres(list(any_steps(random.Random(seed))))
    assert result.quick
    assert result.quick_writes

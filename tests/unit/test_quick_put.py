"""The fast path of POST and PUT does exactly what the general path does."""

import random
from collections.abc import Iterator
from itertools import count
from unittest.mock import DEFAULT, patch

import pytest
from compared_paths import CONNECTION_FIELDS, ENDINGS, SECRET, Scene, Step, message, put, seen, send, written_quickly
from harness import depth
from harness.corpora import all_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.access.token_minting import mint_token
from leasehold.http.requests import Request
from leasehold.http.wire.connection import Connection
from leasehold.limits import Limits

VALUE = b'{"a":1}'
PUT = message("PUT", "/kv/k", body=VALUE)
POST = message("POST", "/kv/k", body=VALUE)
GET = message("GET", "/kv/k")
KNOWN: list[Step] = [send(PUT)]
"""Now there is an entry, and the header block of PUT and POST is known."""


def test_a_write_with_a_known_header_block_takes_the_fast_path() -> None:
    assert written_quickly([send(PUT)]) == 0
    assert written_quickly([*KNOWN, send(PUT), send(POST), send(GET)]) == 2


def test_the_block_may_be_known_from_another_connection() -> None:
    assert written_quickly([*KNOWN, Scene.connect, send(PUT), send(PUT)]) == 1


def test_each_length_of_a_body_has_its_own_block() -> None:
    bodies = [b"1", b'"ab"', b'"%b"' % (b"x" * 100), b'"%b"' % (b"x" * 3_000), b"1", b'"ab"']
    steps = [send(message("POST", "/kv/k", body=body)) for body in bodies]
    assert written_quickly([*KNOWN, *steps, *steps]) == 8


def test_blocks_of_the_same_length_are_told_apart() -> None:
    fields = ["Field-A: xy", "Field-B: xy", "Cookie: xyz", "If-Lease: x", "Prefer: xyz"]
    writes = [send(message("PUT", "/kv/k", field, body=b"1")) for field in fields]
    longer = [send(message("PUT", "/kv/k", field + "y", body=VALUE)) for field in fields]
    assert written_quickly([*KNOWN, *writes, *longer, *writes, *longer, *reversed(writes)]) == 9


@pytest.mark.parametrize("key", ["key", "a/b-c_d:e", "k" * 512, "a'(),;=@!$&*+", "{a}", "^`|~"])
def test_keys_as_they_stand_in_the_path_take_it(key: str) -> None:
    steps = [put(f"/kv/{key}", VALUE), put(f"/kv/{key}", VALUE), send(message("GET", f"/kv/{key}"))]
    assert written_quickly([*KNOWN, *steps]) == 1


@pytest.mark.parametrize(
    "target",
    [
        *("a%20b", "a b", "a?path=/a", "a?", "a?ttl=1", "a#b", "%61", "\xc3\xa4"),
        *("", "/", "a//b", ".", "a/../b", "a\x7f", 'a"b', "a\\b"),
    ],
)
def test_targets_that_are_not_a_key_by_itself_take_the_general_path(target: str) -> None:
    asked = f"PUT /kv/{target} HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n".encode("latin-1") + VALUE
    assert written_quickly([*KNOWN, send(asked), Scene.connect, send(PUT), send(asked)]) <= 2


@pytest.mark.parametrize(
    "body",
    [
        b'{ "a" : 1 }',
        b'"\\u00e4\\u2028"',
        '"ä🦊"'.encode(),
        b"[" * 100 + b"]" * 100,
        b"-0",
        b"1e15",
        b'[1,"-0",2.50]',
        b"18446744073709551615",
        b'{"a":1,"a":2}',
    ],
)
def test_values_are_stored_and_answered_in_compact_form(body: bytes) -> None:
    write = message("POST", "/kv/k", body=body)
    assert written_quickly([*KNOWN, send(write), send(write), send(GET)]) == 1


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"{}}", b"nul", b'"\xff"', b'"\\u0000"', b"18446744073709551616", b"\xef\xbb\xbf1"),
        *(b"1e999", b"NaN", b"alice", b"[" * 129 + b"]" * 129, b'"a\nb"'),
    ],
)
def test_an_invalid_value_is_refused_by_the_general_path(body: bytes) -> None:
    valid = message("POST", "/kv/k", body=b" " * max(len(body) - 1, 0) + b"1")
    invalid = message("POST", "/kv/k", body=body)
    assert written_quickly([*KNOWN, send(valid), send(valid), send(invalid), send(GET)]) <= 2


def test_only_what_the_fast_path_knows_to_answer() -> None:
    fields = ["If-Match: *", "If-None-Match: *", "If-Lease: x", "Prefer: return=minimal", "Content-Range: bytes 0-1/2"]
    fields += ["Accept: application/msgpack", "Content-Type: text/plain", "Content-Type: application/msgpack"]
    fields += ["Content-Encoding: gzip", "Content-Type: application/json; charset=latin-1", "Connection: close"]
    fields += ["Expect: 100-continue", "X-Request-Id: mine", "Idempotency-Key: k"]
    others = [message("PUT", "/kv/k", field, body=VALUE) for field in fields]
    others += [message(method, "/kv/k", body=VALUE) for method in ("PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "put")]
    others += [message("POST", target, body=VALUE) for target in ("/kv", "/set", "/locks/k", "/kvx/k", "/x/kv/k")]
    assert written_quickly([*KNOWN, *(send(each) for each in others for _ in range(3))]) == 0


@pytest.mark.parametrize(
    "field",
    [
        "Content-Type: application/json",
        "content-type: Application/JSON;charset=utf-8",
        "Accept: application/json",
        "A: b",
    ],
)
def test_media_types_of_json_take_it(field: str) -> None:
    write = message("PUT", "/kv/k", field, body=VALUE)
    assert written_quickly([*KNOWN, send(write), send(write)]) == 1


# Outcomes -------------------------------------------------------------------------------------------------------


def test_a_new_entry_is_answered_with_its_location() -> None:
    assert written_quickly([*KNOWN, put("/kv/new/key", VALUE), put("/kv/new/key", VALUE)]) == 1


def test_an_entry_that_is_deleted_before_it_in_the_same_batch_is_created() -> None:
    def both(scene: Scene) -> None:
        scene.send(message("DELETE", "/kv/k"))
        scene.connect()
        scene.send(POST)
        scene.send(GET)

    assert written_quickly([*KNOWN, Scene.connect, send(GET), both, send(PUT)]) == 1


def test_an_entry_that_expires_is_replaced_by_one_that_does_not() -> None:
    expiring = message("PUT", "/kv/e?ttl=5", body=VALUE)
    steps = [send(expiring), put("/kv/e", VALUE), send(expiring), lambda scene: scene.wait(6), put("/kv/e", VALUE)]
    assert written_quickly([*KNOWN, *steps, send(message("GET", "/kv/e"))]) == 1


def test_a_refusal_of_the_lane_is_answered() -> None:
    def refuse(scene: Scene) -> None:
        scene.store._lane.refuse_all()

    assert written_quickly([*KNOWN, refuse, send(PUT), send(GET)]) == 0


def test_a_failure_of_the_engine_is_answered() -> None:
    def close(scene: Scene) -> None:
        scene.space._closed = True

    assert written_quickly([*KNOWN, close, send(PUT), send(GET)]) == 0


def test_a_value_that_grows_over_the_limit_is_refused() -> None:
    body = b"[" + b",".join([b"1e15"] * 30) + b"]"
    write = message("PUT", "/kv/k", body=body)
    assert written_quickly([*KNOWN, send(write), send(write)], limits=Limits(max_body_bytes=len(body))) == 0


def test_revisions_of_every_length() -> None:
    def advance(scene: Scene) -> None:
        scene.space._state.revision = scene.space.revision * 10 + 8

    assert written_quickly([*KNOWN, *(step for _ in range(17) for step in (advance, send(PUT), send(POST)))]) == 34


def test_a_new_incarnation_and_a_new_date_are_in_the_next_answer() -> None:
    def sweep(scene: Scene) -> None:
        scene.shared.common_lines = b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"

    steps = [send(PUT), lambda scene: scene.restore("ffffff"), send(PUT), sweep, send(PUT)]
    assert written_quickly([*KNOWN, *steps]) == 3


# Callers --------------------------------------------------------------------------------------------------------


def bearer(*permissions: str, prefixes: list[str] | None = None, seconds: float = 1_000, secret: bytes = SECRET) -> str:
    text = mint_token(secret, "ann", permissions, prefixes=prefixes, now=1_000_000.0, lifetime_seconds=seconds)
    return f"Authorization: Bearer {text}"


BOTH = bearer("read", "write")


@pytest.mark.parametrize(
    ("field", "quick"),
    [
        (BOTH, 2),
        (bearer("read", "write", "admin"), 2),
        (bearer("read", "write", prefixes=["a", "k"]), 2),
        (bearer("read", "write", prefixes=["kk"]), 0),
        (bearer("read", "write", prefixes=[]), 0),
        (bearer("write"), 0),
        (bearer("read"), 0),
        (bearer(), 0),
        (bearer("read", "write", seconds=-1), 0),
        (bearer("read", "write", secret=b"x" * 32), 0),
        ("Authorization: Bearer", 0),
        ("X: y", 0),
    ],
)
def test_what_a_token_allows(field: str, quick: int) -> None:
    steps = [put("/kv/k", VALUE, BOTH), *[send(message("PUT", "/kv/k", field, body=VALUE))] * 3]
    assert written_quickly(steps, tokens=True) - (field == BOTH) == quick


def test_a_token_ends_with_its_last_second() -> None:
    write = send(message("PUT", "/kv/k", bearer("read", "write", seconds=10), body=VALUE))
    seconds: list[Step] = [step for _ in range(12) for step in (write, lambda scene: scene.wait(1))]
    assert written_quickly([write, *seconds], tokens=True) == 10


def test_a_token_that_ends_before_the_commit_was_valid_in_time() -> None:
    def both(scene: Scene) -> None:
        scene.send(message("PUT", "/kv/k", bearer("read", "write", seconds=10), body=VALUE))
        scene.wait(11)

    write = send(message("PUT", "/kv/k", bearer("read", "write", seconds=10), body=VALUE))
    assert written_quickly([write, write, both], tokens=True) == 2


@pytest.mark.parametrize(
    ("fields", "quick"),
    [
        (("Origin: http://page.example",), 1),
        (("Origin: http://other.example",), 0),
        (("Sec-Fetch-Site: cross-site",), 0),
        (("Sec-Fetch-Site: none",), 1),
    ],
)
def test_pages_of_other_origins(fields: tuple[str, ...], quick: int) -> None:
    write = send(message("PUT", "/kv/k", *fields, body=VALUE))
    assert written_quickly([*KNOWN, write, write]) == quick


def test_another_host_is_refused_each_time() -> None:
    write = send(PUT.replace(b"Host: a", b"Host: evil.example"))
    assert written_quickly([*KNOWN, *[write] * 4]) == 0


# Connections ----------------------------------------------------------------------------------------------------


def test_a_client_that_reads_slowly_is_served_when_it_reads_on() -> None:
    steps = [*KNOWN, Scene.read_slowly, *[send(PUT)] * 3, Scene.read_on, send(PUT)]
    assert written_quickly(steps) == 1


@pytest.mark.parametrize(("fields", "quick"), CONNECTION_FIELDS)
def test_only_a_request_to_keep_the_connection_takes_it(fields: tuple[str, ...], quick: bool) -> None:  # noqa: FBT001
    write = message("POST", "/kv/k", *fields, body=VALUE)
    assert written_quickly([*KNOWN, *[send(write)] * 4]) == (3 if quick else 0)


def test_a_request_of_http_1_0_with_a_known_block_takes_the_general_path() -> None:
    write = message("POST", "/kv/k", "Connection: keep-alive", body=VALUE)
    old = write.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert written_quickly([*KNOWN, send(write), send(write), send(old), send(old), send(write)]) == 2


def test_requests_are_answered_in_their_order() -> None:
    def behind(scene: Scene) -> None:
        for data in (POST, GET, POST, POST + GET, PUT[:-2], PUT[-2:], GET):
            scene.send(data)

    steps = [send(PUT, GET), send(PUT, PUT), behind, send(PUT), send(PUT, GET[:20]), send(GET[20:]), send(PUT)]
    assert written_quickly([*KNOWN, *steps]) == 3


@pytest.mark.parametrize("split", range(1, len(PUT), 3))
def test_a_request_in_pieces_takes_the_general_path(split: int) -> None:
    assert written_quickly([*KNOWN, send(PUT[:split]), send(PUT[split:]), send(PUT)]) == 1


def test_many_requests_in_one_read_take_the_general_path() -> None:
    assert written_quickly([*KNOWN, send(PUT, PUT), send(PUT * 3), send(PUT)]) == 1


@pytest.mark.parametrize("event", ENDINGS)
def test_events_while_a_write_is_in_flight(event: str) -> None:
    def begin(scene: Scene) -> None:
        scene.send(PUT)
        assert (scene.connection._begun is None) == (scene.shared.quick_put is None)
        scene.end(event)

    written_quickly([*KNOWN, begin, send(GET), Scene.connect, send(GET)])


def test_an_answer_renews_the_time_that_a_client_may_be_idle() -> None:
    def late(scene: Scene) -> None:
        scene.shared.tick += 60.0

    def sweep(scene: Scene) -> None:
        late(scene)
        scene.connection.sweep()

    limits = Limits(idle_timeout_seconds=90.0)
    assert written_quickly([*KNOWN, late, send(PUT), sweep, late, send(PUT), sweep, sweep], limits=limits) == 2


def test_a_shorter_limit_for_lines_is_kept() -> None:
    limits = Limits(max_request_line_bytes=100)
    assert written_quickly([*KNOWN, send(PUT), put("/kv/" + "k" * 90, VALUE)], limits=limits) == 0


@pytest.mark.parametrize("function", ["quick_put.Put", "quick_put.BegunPut", "quick_answer.time_bytes"])
def test_a_fault_on_the_fast_path_is_logged_and_the_general_path_answers(function: str) -> None:
    with patch(f"leasehold.http.wire.{function}", side_effect=MemoryError):
        quick = seen([*KNOWN, send(PUT)], fast_paths=True)
    general = seen([*KNOWN, send(PUT)], fast_paths=False)
    assert quick.written[0].count(b"HTTP/1.1 20") == 2
    assert quick.requests == general.requests
    assert {event["event"] for event in quick.log if event["log_level"] == "error"} == {
        "the fast path of a write failed"
    }


def test_a_fault_after_the_answer_ends_the_connection() -> None:
    real, calls = Connection._continue, count(1)

    def fails_once(connection: Connection) -> None:
        if next(calls) == 2:
            raise MemoryError
        real(connection)

    with patch.object(Connection, "_continue", fails_once):
        quick = seen([*KNOWN, send(PUT), send(GET)], fast_paths=True)
    assert [written.count(b"HTTP/1.1 20") for written in quick.written] == [2, 1]
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["a connection was broken off"]


def test_a_request_that_cannot_be_made_again_is_answered_at_the_second_attempt() -> None:
    """The lane calls a completion that raises once more."""
    effects = [MemoryError, DEFAULT]
    with patch("leasehold.http.wire.quick_answer.Request", wraps=Request, side_effect=effects):
        quick = seen([*KNOWN, put("/kv/new", VALUE), send(GET)], fast_paths=True)
    assert [line for line in quick.written[0].splitlines() if line.startswith(b"HTTP/")] == [
        b"HTTP/1.1 201 Created",
        b"HTTP/1.1 500 Internal Server Error",
        b"HTTP/1.1 200 OK",
    ]


# Any requests ---------------------------------------------------------------------------------------------------


def test_every_case_of_the_corpus() -> None:
    """Each case is sent three times on a connection whose writes take the fast path. The last time, its own block is
    known, too."""
    write = send(PUT.replace(b"Host: a", b"Host: localhost"))
    cases = [send(case.sent) for case in all_cases()]
    steps = [step for case in cases for step in (Scene.connect, write, write, case, case, case, write)]
    assert written_quickly([*KNOWN, write, *steps]) > len(cases)


KEYS = ["k", "k", "k", "a/b", "a/b", "e%20f", "ä", "k?path=/a", "k?ttl=2", "%6b", "", 'q"', "k#"]
BODIES = [b"1", b"2", b'{"a":1}', b'{"a":[2]}', b'{"a":3}', b" 4", b"{", b"-0", b'"' + b"x" * 5_000 + b'"']
FIELDS = [(BOTH,), (bearer("write"),), (bearer("read", "write", prefixes=["a"]),), ()]
FIELDS += [(bearer("read", "write", seconds=3),), (BOTH, "Origin: http://page.example"), (BOTH, "If-Match: *")]
FIELDS += [(BOTH, 'Idempotency-Key: "a"'), (BOTH, "Idempotency-Key: b")]
FIELDS += [(BOTH, "Content-Type: application/msgpack"), (BOTH, "Prefer: return=minimal")]
FIELDS += [(BOTH, "Connection: keep-alive"), (BOTH, "Connection: keep-alive"), (BOTH, "Connection: close")]
EVENTS: list[Step] = [Scene.connect, Scene.read_slowly, *[Scene.read_on] * 6, lambda scene: scene.wait(1)]


def any_request(rng: random.Random) -> bytes:
    target, fields = f"/kv/{rng.choice(KEYS)}", rng.choice(FIELDS) if rng.random() < 0.2 else (BOTH,)
    if rng.random() < 0.2:
        return message(rng.choice(["GET", "GET", "DELETE"]), target.partition("?")[0], *fields)
    return message(rng.choice(["PUT", "POST"]), target, *fields, body=rng.choice(BODIES))


def together(data: list[bytes]) -> Step:
    """Requests of several connections, in one batch."""

    def step(scene: Scene) -> None:
        for each in data:
            scene.send(each)
            scene.connect()

    return step


def any_steps(rng: random.Random) -> Iterator[Step]:
    yield from (put("/kv/k", body, BOTH) for body in BODIES)
    for _ in range(40):
        event = rng.random()
        requests = [any_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 12]))]
        if event < 0.65:
            yield from map(send, requests)
        elif event < 0.75:
            yield together(requests)
        elif event < 0.8:
            yield send(*requests)
        elif event < 0.85:
            data = b"".join(requests)
            split = rng.randrange(1, len(data))
            yield from (send(data[:split]), send(data[split:]))
        else:
            yield rng.choice(EVENTS)
    yield Scene.stop
    yield send(any_request(rng))


@settings(max_examples=depth(200), deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_any_requests_and_events(seed: int, tokens: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    written_quickly(list(any_steps(random.Random(seed))), tokens=tokens)


def test_random_requests_take_the_fast_path_often() -> None:
    assert (
        sum(seen(list(any_steps(random.Random(seed))), fast_paths=True, tokens=True).quick_writes for seed in range(20))
        > 100
    )

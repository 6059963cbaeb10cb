"""The fast path of a GET does exactly what the general path does."""

import random
from collections.abc import Iterator
from itertools import count
from typing import Any
from unittest.mock import Mock, patch

import compared_paths
import pytest
from compared_paths import (
    CONNECTION_FIELDS,
    ENDINGS,
    SECRET,
    DistantSpace,
    Scene,
    Step,
    answered_quickly,
    compared,
    distant,
    message,
    put,
    seen,
    send,
)
from harness import depth
from harness.corpora import all_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from leasehold.access.token_keys import VerificationKey
from leasehold.access.token_minting import mint_token
from leasehold.access.token_verification import Verifier
from leasehold.errors import unavailable
from leasehold.http.wire.connection import Connection
from leasehold.limits import Limits
from leasehold.model import ENTRY
from leasehold.values import UNREADABLE


@pytest.fixture(scope="module", params=compared_paths.ENGINES, autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test runs with entries in memory, and with an engine that reads them from elsewhere."""
    with patch.object(compared_paths, "usual_engine", compared_paths.ENGINES[request.param]):
        yield


GET = message("GET", "/kv/k")
KNOWN: list[Step] = [put("/kv/k"), send(GET), send(GET)]
"""Now the connection has a header block that the fast path knows."""


def test_the_third_get_of_a_connection_takes_the_fast_path() -> None:
    assert answered_quickly(KNOWN) == 0
    assert answered_quickly([*KNOWN, send(GET), send(GET)]) == 2


def test_each_connection_must_have_sent_the_block_itself() -> None:
    steps = [*KNOWN, Scene.connect, send(GET), send(GET)]
    assert answered_quickly(steps) == 1


@pytest.mark.parametrize("key", ["k", "a/b-c_d:e", "k" * 512, "a'(),;=@!$&*+", "{a}", "^`|~"])
def test_keys_as_they_stand_in_the_path_take_it(key: str) -> None:
    assert answered_quickly([*KNOWN, put(f"/kv/{key}"), send(message("GET", f"/kv/{key}"))]) == 1


@pytest.mark.parametrize(
    ("stored", "target"),
    [
        ("a%2520b", "a%20b"),
        ("a%20b", "a b"),
        ("a%3Fraw", "a?raw"),
        ("a%23b", "a#b"),
        ("a%25b", "a%b"),
        ("%C3%A4", "\xc3\xa4"),
        ("a", "%61"),
        ("a", "a?raw"),
        ("a", "a?"),
        ("a", "a/../a"),
        ("a", "/a"),
        ('a"b', 'a"b'),
        ("a\\b", "a\\b"),
        ("a", "a\x7f"),
        ("absent", "k%00"),
    ],
)
def test_targets_that_are_not_the_key_itself_take_the_general_path(stored: str, target: str) -> None:
    asked = f"GET /kv/{target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1")
    assert answered_quickly([*KNOWN, put(f"/kv/{stored}"), send(asked)]) == 0


@pytest.mark.parametrize("line", [b"k", b"/kv/k", b"GET k", b"GET /k", b"GET /kv/", b"GET /kv/GET /kv/k", b"PUT /kv/k"])
def test_other_lines_before_a_known_block_take_the_general_path(line: bytes) -> None:
    assert answered_quickly([*KNOWN, send(GET.replace(b"GET /kv/k", line)), send(GET)]) <= 1
    quick = seen([*KNOWN, send(GET.replace(b"GET /kv/k", line))], fast_paths=True)
    assert quick.quick == 0


@pytest.mark.parametrize(
    "value",
    [b"1", b'"text"', b"[" * 100 + b"]" * 100, b'"%b"' % (b"x" * 100_000), '"ä\u2028🦊"'.encode()],
    ids=lambda value: value[:9],
)
def test_values_of_every_kind(value: bytes) -> None:
    assert answered_quickly([*KNOWN, put("/kv/k", value), send(GET), put("/kv/k", b"2"), send(GET)]) == 2


def test_revisions_of_every_length() -> None:
    def advance(scene: Scene) -> None:
        scene.space._state.revision = scene.space.revision * 10 + 8

    steps = [step for _ in range(17) for step in (advance, put("/kv/k"), send(GET), put("/kv/k"), send(GET))]
    assert answered_quickly([*KNOWN, *steps]) == 34


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_a_client_that_asks_for_json_takes_it(accept: str) -> None:
    asked = message("GET", "/kv/k", f"Accept: {accept}")
    assert answered_quickly([put("/kv/k"), *(send(asked) for _ in range(5))]) == 3


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_bytes_are_left_to_the_general_path(accept: str) -> None:
    asked = message("GET", "/kv/k", f"Accept: {accept}")
    stored = send(message("PUT", "/kv/k", "Content-Type: image/png", body=b"\x89PNG"))
    assert answered_quickly([stored, *(send(asked) for _ in range(5))]) == 0


def test_only_what_the_fast_path_knows_to_answer() -> None:
    others = [
        message("GET", "/kv/absent"),
        message("HEAD", "/kv/k"),
        message("DELETE", "/kv/absent"),
        message("GET", "/kv"),
        message("GET", "/locks/k"),
        message("GET", "/health/live"),
        message("OPTIONS", "/kv/k"),
        *(
            message("GET", "/kv/k", field)
            for field in ("If-None-Match: *", "If-Match: *", "Accept: application/msgpack")
        ),
        message("GET", "/kv/k", body=b"1"),
        message("GET", "/kv/k", "Connection: close"),
    ]
    assert answered_quickly([*KNOWN, *(send(each) for each in others for _ in range(3))]) == 0


def test_a_block_that_announces_a_body_is_not_known() -> None:
    with_body = message("GET", "/kv/k", body=b"1")
    steps = [put("/kv/k"), *[send(with_body)] * 3, send(with_body[:-1]), send(b"1")]
    assert answered_quickly(steps) == 0


def test_an_entry_that_expires_takes_the_general_path() -> None:
    steps = [*KNOWN, put("/kv/e?ttl=5"), send(message("GET", "/kv/e")), lambda scene: scene.wait(6), send(GET)]
    assert answered_quickly([*steps, send(message("GET", "/kv/e"))]) == 1


def test_a_deleted_entry_is_not_found_from_then_on() -> None:
    assert answered_quickly([*KNOWN, send(GET), send(message("DELETE", "/kv/k")), send(GET), *KNOWN]) == 3


def test_an_entry_that_cannot_be_read_is_answered_with_an_error() -> None:
    def damage(scene: Scene) -> None:
        by_name = scene.space._state.table(ENTRY).by_name
        by_name["k"] = replace(by_name["k"], value=UNREADABLE)

    assert answered_quickly([*KNOWN, damage, send(GET)]) == 0


def test_a_rebuilt_state_is_read_from_then_on() -> None:
    def rebuild(scene: Scene) -> None:
        scene.space._use(scene.space._state.rebuilt({}, scene.space.revision))

    assert answered_quickly([*KNOWN, rebuild, put("/kv/k", b"2"), send(GET)]) == 1


def test_a_new_incarnation_is_in_the_next_etag() -> None:
    assert answered_quickly([*KNOWN, send(GET), lambda scene: scene.restore("ffffff"), send(GET)]) == 2


def test_the_date_changes_with_each_sweep() -> None:
    def sweep(scene: Scene) -> None:
        scene.shared.common_lines = b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"

    assert answered_quickly([*KNOWN, send(GET), sweep, send(GET)]) == 2


# Callers --------------------------------------------------------------------------------------------------------


def bearer(*permissions: str, prefixes: list[str] | None = None, seconds: float = 1_000, secret: bytes = SECRET) -> str:
    text = mint_token(secret, "ann", permissions, prefixes=prefixes, now=1_000_000.0, lifetime_seconds=seconds)
    return f"Authorization: Bearer {text}"


BOTH = bearer("read", "write")


def known_to(*fields: str) -> tuple[list[Step], Step]:
    """A GET with these fields, and the steps after which a connection knows them."""
    get = send(message("GET", "/kv/k", *fields))
    return [put("/kv/k", b"1", BOTH), get, get], get


@pytest.mark.parametrize(
    ("field", "quick"),
    [
        (BOTH, 1),
        (bearer("read"), 1),
        (bearer("read", prefixes=["a", "k"]), 1),
        (bearer("read", prefixes=["kk"]), 0),
        (bearer("read", prefixes=[]), 0),
        (bearer("write"), 0),
        (bearer(), 0),
        (bearer("read", seconds=-1), 0),
        (bearer("read", secret=b"x" * 32), 0),
        ("Authorization: Bearer", 0),
        ("X: y", 0),
    ],
)
def test_what_a_token_allows(field: str, quick: int) -> None:
    known, get = known_to(field)
    assert answered_quickly([*known, get], tokens=True) == quick


def test_a_token_ends_with_its_last_second() -> None:
    known, get = known_to(bearer("read", seconds=10))
    seconds: list[Step] = [step for _ in range(12) for step in (get, lambda scene: scene.wait(1))]
    assert answered_quickly([*known, *seconds], tokens=True) == 10


def test_a_token_that_was_revoked_is_refused() -> None:
    """As far as this path is concerned: whoever replaces the keys must replace the verifier."""

    def revoke(scene: Scene) -> None:
        scene.shared.admission.verifier = Verifier([VerificationKey("HS256", b"x" * 32)], now=lambda: 1_000_000.0)

    known, get = known_to(BOTH)
    assert answered_quickly([*known, get, revoke, get, get], tokens=True) == 1


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
    known, get = known_to(*fields)
    assert answered_quickly([*known, get]) == quick


def test_another_host_is_refused_each_time() -> None:
    get = send(GET.replace(b"Host: a", b"Host: evil.example"))
    assert answered_quickly([put("/kv/k"), *[get] * 4]) == 0


# Connections ----------------------------------------------------------------------------------------------------


def test_a_client_that_reads_slowly_is_answered_when_it_reads_on() -> None:
    steps = [*KNOWN, Scene.read_slowly, *[send(GET)] * 3, Scene.read_on, send(GET)]
    assert answered_quickly(steps) == 1


@pytest.mark.parametrize(("fields", "quick"), CONNECTION_FIELDS)
def test_only_a_request_to_keep_the_connection_is_known(fields: tuple[str, ...], quick: bool) -> None:  # noqa: FBT001
    get = message("GET", "/kv/k", *fields)
    assert answered_quickly([put("/kv/k"), *[send(get)] * 5]) == (3 if quick else 0)


def test_a_request_of_http_1_0_with_a_known_block_takes_the_general_path() -> None:
    get = message("GET", "/kv/k", "Connection: keep-alive")
    old = get.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert answered_quickly([put("/kv/k"), *[send(get)] * 3, send(old), send(old), send(get)]) == 2


def test_requests_are_answered_in_their_order() -> None:
    write = message("PUT", "/kv/k", body=b"3")
    steps = [send(GET, GET), send(write, GET), send(*[GET] * 50), send(write, GET[:20]), send(GET[20:], GET), send(GET)]
    assert answered_quickly([*KNOWN, *steps]) == 1


def test_a_get_behind_a_write_waits_for_it() -> None:
    def both(scene: Scene) -> None:
        scene.send(message("PUT", "/kv/k", body=b"3"))
        scene.send(GET)

    assert answered_quickly([*KNOWN, both, send(GET)]) == 1


@pytest.mark.parametrize("split", range(1, len(GET)))
def test_a_request_in_pieces_takes_the_general_path(split: int) -> None:
    assert answered_quickly([*KNOWN, send(GET[:split]), send(GET[split:]), send(GET)]) == 1


def test_a_service_that_stops_ends_the_connection_with_its_next_answer() -> None:
    assert answered_quickly([*KNOWN, send(GET), Scene.stop, send(GET), send(GET)]) == 1


def test_an_answer_renews_the_time_that_a_client_may_be_idle() -> None:
    def late(scene: Scene) -> None:
        scene.shared.tick += 60.0

    def sweep(scene: Scene) -> None:
        late(scene)
        scene.connection.sweep()

    limits = Limits(idle_timeout_seconds=90.0)
    assert answered_quickly([*KNOWN, late, send(GET), sweep, late, send(GET), sweep, sweep], limits=limits) == 2


def test_a_shorter_limit_for_lines_is_kept() -> None:
    limits = Limits(max_request_line_bytes=100)
    assert answered_quickly([*KNOWN, send(GET), send(message("GET", "/kv/" + "k" * 90))], limits=limits) == 0


def test_a_fault_on_the_fast_path_is_logged_and_the_general_path_answers() -> None:
    with patch("leasehold.http.wire.quick_answer.time_bytes", side_effect=MemoryError):
        quick = seen([*KNOWN, send(GET)], fast_paths=True)
    general = seen([*KNOWN, send(GET)], fast_paths=False)
    assert (quick.written[0].count(b" 200 OK"), quick.requests) == (3, general.requests)
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["the fast path of a GET failed"]


def test_a_fault_on_a_ready_connection_is_logged_once() -> None:
    texts = Mock(side_effect=[b"1970-01-01T00:00:00.000000Z", MemoryError()])
    with (
        patch("leasehold.http.wire.quick_answer.time_bytes", texts),
        patch("leasehold.http.wire.waiting_gets.time_bytes", texts),
    ):
        quick = seen([*KNOWN, send(GET), send(GET)], fast_paths=True)
    assert (quick.written[0].count(b" 200 OK"), quick.quick) == (4, 1)
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["the fast path of a GET failed"]


# Reads in flight ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ENDINGS)
def test_events_while_a_read_is_in_flight(event: str) -> None:
    def begin(scene: Scene) -> None:
        scene.send(GET)
        assert (scene.connection._begun is None) == (scene.shared.quick_get is None)
        scene.end(event)

    answered_quickly([*KNOWN, begin, send(GET), Scene.connect, send(GET)], engine_of=distant)


def test_requests_behind_a_read_wait_for_it() -> None:
    def behind(scene: Scene) -> None:
        for data in (GET, message("PUT", "/kv/k", body=b"2"), GET, GET + GET, GET[:9], GET[9:]):
            scene.send(data)

    assert answered_quickly([*KNOWN, behind, send(GET)], engine_of=distant) == 2


def test_the_time_of_a_read_is_counted() -> None:
    def begin(scene: Scene) -> None:
        scene.send(GET)
        scene.passed += 0.003

    result = compared([*KNOWN, begin, send(GET)], engine_of=distant)
    counts, total = result.requests["GET /kv/{key} 200 1.1"]
    assert (result.quick, counts[:5], total) == (2, [3, 0, 0, 1, 0], pytest.approx(0.003))


def test_a_token_that_ends_before_the_read_does_was_valid_in_time() -> None:
    def begin(scene: Scene) -> None:
        get_of_ten_seconds(scene)
        scene.wait(11)

    known, get_of_ten_seconds = known_to(bearer("read", seconds=10))
    assert answered_quickly([*known, begin, get_of_ten_seconds], tokens=True, engine_of=distant) == 1


def test_a_read_that_fails_is_answered_with_its_error() -> None:
    def fail(scene: Scene) -> None:
        scene.space.fault_of_reads = unavailable("the database cannot be reached")

    assert answered_quickly([*KNOWN, fail, send(GET), send(GET)], engine_of=distant) == 0


def test_a_read_that_cannot_be_begun_is_begun_by_the_general_path() -> None:
    real, calls = DistantSpace.read, count(1)

    def fails_once(space: DistantSpace, *arguments: Any) -> None:
        if next(calls) == 3:  # the first one of the fast path
            raise MemoryError
        real(space, *arguments)

    with patch.object(DistantSpace, "read", fails_once):
        quick = seen([*KNOWN, send(GET), send(GET)], fast_paths=True, engine_of=distant)
    assert (quick.written[0].count(b" 200 OK"), quick.quick) == (4, 1)
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["the fast path of a GET failed"]


def test_a_fault_after_the_answer_to_a_read_ends_the_connection() -> None:
    real, calls = Connection._continue, count(1)

    def fails_once(connection: Connection) -> None:
        if next(calls) == 4:
            raise MemoryError
        real(connection)

    with patch.object(Connection, "_continue", fails_once):
        quick = seen([*KNOWN, send(GET), send(GET)], fast_paths=True, engine_of=distant)
    assert [written.count(b"HTTP/1.1 20") for written in quick.written] == [4, 1]
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["a connection was broken off"]


# Any requests ---------------------------------------------------------------------------------------------------


def test_every_case_of_the_corpus() -> None:
    """Each case is sent three times on a connection whose GETs take the fast path. The last time, its own fields are
    known, too."""
    get = send(GET.replace(b"Host: a", b"Host: localhost"))
    cases = [send(case.sent) for case in all_cases()]
    steps = [step for case in cases for step in (Scene.connect, get, get, case, case, case, get)]
    assert answered_quickly([*KNOWN, get, get, *steps]) > len(cases)


KEYS = [*["k"] * 20, *["a/b"] * 10, "e%20f", "ä", "k?raw", "k?path=/a", "%6b", "", 'q"', "k#"]
FIELDS = [(BOTH,), (bearer("read"),), (bearer("read", prefixes=["a"]),), (bearer("read", seconds=3),), ()]
FIELDS += [(BOTH, "Origin: http://page.example"), (BOTH, "Accept: application/msgpack"), (BOTH, "If-None-Match: *")]
FIELDS += [(BOTH, "Accept: application/json"), (BOTH, "Accept: */*")]
FIELDS += [(BOTH, "Connection: keep-alive"), (BOTH, "Connection: keep-alive"), (BOTH, "Connection: close")]
EVENTS: list[Step] = [Scene.connect, Scene.read_slowly, *[Scene.read_on] * 6, lambda scene: scene.wait(1)]


def any_request(rng: random.Random) -> bytes:
    target, fields = f"/kv/{rng.choice(KEYS)}", rng.choice(FIELDS) if rng.random() < 0.2 else (BOTH,)
    if rng.random() < 0.8:
        return message(rng.choice(["GET"] * 6 + ["HEAD"]), target, *fields)
    if rng.random() < 0.2:
        return message("DELETE", target, *fields)
    lifetime = rng.choice(["", "", "?ttl=2"])
    return message("PUT", target.partition("?")[0] + lifetime, *fields, body=b'{"a":[%d]}' % rng.randrange(100))


def any_steps(rng: random.Random) -> Iterator[Step]:
    yield from known_to(BOTH)[0]
    for _ in range(40):
        event = rng.random()
        requests = [any_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 12]))]
        if event < 0.75:
            yield from map(send, requests)
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
    answered_quickly(list(any_steps(random.Random(seed))), tokens=tokens)


def test_random_requests_take_the_fast_path_often() -> None:
    assert (
        sum(seen(list(any_steps(random.Random(seed))), fast_paths=True, tokens=True).quick for seed in range(20)) > 50
    )

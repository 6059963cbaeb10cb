"""GETs that one iteration of the event loop reads are answered as if each had been answered when it was read."""

import random
from unittest.mock import Mock, patch

import pytest
from compared_paths import SECRET, Scene, Step, answered_quickly, compared, message, put, seen, send
from harness import depth
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.access.token_minting import mint_token
from leasehold.http.wire.quick_requests import MAX_WAITING_BYTES

GET = message("GET", "/kv/k")
PUT = message("PUT", "/kv/k", body=b'{"a":2}')
LARGE = message("PUT", "/kv/large", body=b'"%b"' % (b"x" * 2 * MAX_WAITING_BYTES))
CONNECTIONS = 3


def ready(count: int = CONNECTIONS, get: bytes = GET) -> list[Step]:
    """Connections that are ready for a GET. Each has had its first one from memory."""
    first = [put("/kv/k"), send(get), send(get), send(get)]
    return first + [Scene.connect, send(get), send(get), send(get)] * (count - 1)


def read(*reads: tuple[int, bytes]) -> Step:
    """One iteration reads this from these connections, by their number."""

    def step(scene: Scene) -> None:
        for number, data in reads:
            transport = scene.transports[number]
            if transport.reads and not transport.is_closing():
                scene.connections[number].data_received(data)

    return step


def both(*steps: Step) -> Step:
    """Steps in the same iteration."""

    def step(scene: Scene) -> None:
        for each in steps:
            each(scene)

    return step


READY = ready()
"""At the end of these steps so many GETs have taken the fast path:"""
BEFORE = 2 * CONNECTIONS - 1


def test_they_are_answered_in_their_order() -> None:
    assert answered_quickly(READY) == BEFORE
    assert answered_quickly([*READY, read((2, GET), (0, GET), (1, GET)), read((1, GET), (1, GET))]) == BEFORE + 5


def test_one_that_the_general_path_must_answer_keeps_its_place() -> None:
    other = message("GET", "/kv/k?path=/a")
    reads = read((0, GET), (1, other), (2, GET), (1, GET), (0, GET))
    assert answered_quickly([*READY, reads, read((1, GET))]) == BEFORE + 4


def test_what_others_send_in_between_keeps_its_place() -> None:
    unready = [Scene.connect, send(message("GET", "/kv/other"))]
    reads = read((0, GET), (CONNECTIONS, message("GET", "/kv/k", "Accept: */*")), (1, GET))
    assert answered_quickly([*READY, *unready, reads]) == BEFORE + 2


def test_a_large_read_does_not_wait_and_keeps_its_place() -> None:
    compared([*ready(), read((0, GET), (1, LARGE), (1, GET), (2, GET)), read((1, GET))], same_ids=False)


@pytest.mark.parametrize("data", [GET, PUT, LARGE], ids=["GET", "PUT", "large PUT"])
@pytest.mark.parametrize("way", ["lose", "abort"])
def test_a_connection_that_ends_in_the_same_iteration(way: str, data: bytes) -> None:
    steps = [*ready(2), both(read((1, data)), lambda scene: scene.end(way))]
    compared([*steps, read((0, GET))], same_ids=data is GET)


def test_a_client_that_shuts_down_its_side_in_the_same_iteration_gets_its_answer() -> None:
    def shut_down(scene: Scene) -> None:
        assert scene.connection.eof_received() is True

    compared([*ready(2), both(read((1, PUT)), shut_down)])


@pytest.mark.parametrize("data", [GET, PUT], ids=["GET", "PUT"])
def test_a_service_that_stops_in_the_same_iteration_answers_and_closes(data: bytes) -> None:
    result = seen([*ready(1), both(send(data), lambda scene: scene.end("stop and drain"))], fast_paths=True)
    assert result.written[0].count(b"HTTP/1.1 200 OK") == 4
    assert result.written[0].count(b"Connection: close") == 1


def test_callers_with_different_permissions_in_one_iteration() -> None:
    def get(prefixes: list[str] | None = None, *, key: str = "k", seconds: float = 1_000) -> bytes:
        permissions = ("read", "write")
        token = mint_token(SECRET, "ann", permissions, prefixes=prefixes, now=1_000_000.0, lifetime_seconds=seconds)
        return message("GET", f"/kv/{key}", f"Authorization: Bearer {token}")

    everything, some, short = get(), get(["k"]), get(seconds=10)
    field = everything.decode().split("\r\n")[2]
    begin = [put("/kv/k", b"1", field), put("/kv/other", b"1", field)]
    for each in (everything, some, short):
        begin += [Scene.connect, send(each), send(each), send(each)]
    reads = [(1, everything), (2, some), (3, short), (2, get(["k"], key="other")), (1, everything), (2, some)]
    before = answered_quickly(begin, tokens=True)
    assert answered_quickly([*begin, read(*reads)], tokens=True) == before + 4
    assert answered_quickly([*begin, lambda scene: scene.wait(20), read(*reads)], tokens=True) == before + 3


def test_a_fault_affects_only_the_request_that_it_meets() -> None:
    text = b"1970-01-01T00:00:00.000000Z"
    texts = Mock(side_effect=[*[text] * BEFORE, text, MemoryError(), text])
    steps = [*READY, read((0, GET), (1, GET), (2, GET))]
    with (
        patch("leasehold.http.wire.quick_answer.time_bytes", texts),
        patch("leasehold.http.wire.waiting_gets.time_bytes", texts),
    ):
        quick = seen(steps, fast_paths=True)
    general = seen(steps, fast_paths=False)
    assert [each.count(b" 200 OK") for each in quick.written] == [4, 4, 4]
    assert quick.requests == general.requests
    assert [event["event"] for event in quick.log if event["log_level"] == "error"] == ["the fast path of a GET failed"]


def test_a_large_answer_is_sent_as_soon_as_much_is_unsent() -> None:
    large = b'"%b"' % (b"x" * 200_000)
    sent: list[int] = []

    def look(scene: Scene) -> None:
        scene.shared.waiting_gets.answer_all()
        sent.append(sum(map(len, (data for _, data in scene.shared.outbox.answers))))

    get = message("GET", "/kv/l")
    steps: list[Step] = [put("/kv/l", large)]
    for _ in range(CONNECTIONS):
        steps += [send(get), send(get), send(get), Scene.connect]
    reads = read(*((number, get) for number in range(CONNECTIONS)))
    seen([*steps, both(reads, look)], fast_paths=True)
    assert 0 < sent[0] < 2 * len(large)


READS = (
    GET,
    GET,
    GET * 2,
    PUT,
    message("GET", "/kv/absent"),
    message("GET", "/kv/k?path=/a"),
    message("DELETE", "/kv/k"),
)


@settings(max_examples=depth(200), deadline=None)
@given(st.integers(0, 2**32))
def test_any_reads_of_one_iteration(seed: int) -> None:
    rng = random.Random(seed)
    reads = [
        read(*((rng.randrange(CONNECTIONS), rng.choice(READS)) for _ in range(rng.randint(1, 6)))) for _ in range(12)
    ]
    compared([*READY, *reads], same_ids=False)

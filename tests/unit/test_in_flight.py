"""The memory budgets for clients' data, and which client is cut off when one is exceeded."""

from collections.abc import Callable
from unittest.mock import patch

import pytest

from leasehold.errors import ServiceError
from leasehold.http.requests import Headers, Request
from leasehold.http.routing.bodies import body_value
from leasehold.http.wire.in_flight import BodiesInFlight, BodiesInLane, UnsentAnswers, lane_bytes
from leasehold.limits import MAX_CONTAINERS, MAX_LANE_BODIES_BYTES


class Body:
    """A connection that receives a body."""

    def __init__(self, bodies: BodiesInFlight) -> None:
        self.bodies = bodies
        self.refusals: list[ServiceError] = []

    def refuse(self, refusal: ServiceError) -> None:
        self.bodies.forget(self)  # as Reception does
        self.refusals.append(refusal)


def test_bodies_within_the_budget_are_accepted() -> None:
    bodies = BodiesInFlight(100)
    first, second = Body(bodies), Body(bodies)
    for size in (10, 30, 50):
        bodies.note(first, size)
        bodies.note(second, size)
    assert (bodies.total_bytes, first.refusals, second.refusals) == (100, [], [])


def test_over_the_budget_the_oldest_incomplete_bodies_are_refused() -> None:
    bodies = BodiesInFlight(100)
    held = [Body(bodies) for _ in range(10)]
    for body in held:
        bodies.note(body, 10)
    swift = Body(bodies)
    bodies.note(swift, 25)
    assert [len(body.refusals) for body in held] == [1] * 3 + [0] * 7
    assert (bodies.total_bytes, swift.refusals) == (95, [])
    [refusal] = held[0].refusals
    assert (refusal.code, refusal.status, refusal.headers) == ("unavailable", 503, {"Retry-After": "5"})


def test_a_single_body_over_the_budget_is_refused() -> None:
    bodies = BodiesInFlight(100)
    body = Body(bodies)
    bodies.note(body, 101)
    assert (len(body.refusals), bodies.total_bytes) == (1, 0)


def test_a_complete_body_counts_until_its_request_is_answered() -> None:
    bodies = BodiesInFlight(100)
    body, other = Body(bodies), Body(bodies)
    bodies.note(body, 60)
    bodies.forget(body)
    bodies.take(60)
    bodies.note(other, 50)
    assert len(other.refusals) == 1
    bodies.give_back(60)
    bodies.note(other, 50)
    assert (len(other.refusals), bodies.total_bytes) == (1, 50)


class Reader:
    """A connection whose client reads slowly."""

    def __init__(self, answers: UnsentAnswers, last_progress: float) -> None:
        self.answers = answers
        self.last_progress = last_progress
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True
        self.answers.forget(self)  # as Connection does


def test_over_the_budget_the_client_that_has_not_read_for_longest_is_closed() -> None:
    answers = UnsentAnswers(100)
    readers = [Reader(answers, last_progress) for last_progress in (3.0, 1.0, 2.0, 9.0)]
    for reader in readers:
        answers.note(reader, 30)
    assert [reader.is_cut for reader in readers] == [False, True, False, False]
    assert answers.total_bytes == 90


def test_of_equally_old_clients_the_one_with_the_most_unread_bytes_is_closed() -> None:
    answers = UnsentAnswers(100)
    slow, greedy, last = (Reader(answers, 1.0) for _ in range(3))
    for reader, size in ((slow, 20), (greedy, 70), (last, 20)):
        answers.note(reader, size)
    assert [reader.is_cut for reader in (slow, greedy, last)] == [False, True, False]


def test_a_client_that_has_read_everything_is_not_closed() -> None:
    answers = UnsentAnswers(100)
    first, second = Reader(answers, 1.0), Reader(answers, 1.0)
    answers.note(first, 80)
    answers.forget(first)
    answers.note(second, 80)
    assert (first.is_cut, second.is_cut, answers.total_bytes) == (False, False, 80)


class Large:
    """A connection with a complete body, whose change is in the lane from `begin_large` on."""

    def __init__(self, bodies: BodiesInLane, size: int, begun: list["Large"], *, is_paused: bool = False) -> None:
        self.bodies = bodies
        self.size = size
        self.begun = begun
        self.is_paused = is_paused

    def begin_large(self) -> None:
        if not self.is_paused and self.bodies.admit(self, self.size):
            self.bodies.take(self, self.size)
            self.begun.append(self)


class Iterations:
    """Calls what was enqueued, one in an iteration."""

    def __init__(self) -> None:
        self.enqueued: list[Callable[[], None]] = []

    def run(self) -> None:
        while self.enqueued:
            self.enqueued.pop(0)()


def test_bodies_over_the_budget_of_the_lane_begin_in_their_order_when_others_have_left() -> None:
    iterations, begun = Iterations(), list[Large]()
    bodies = BodiesInLane(iterations.enqueued.append, 100)
    senders = [Large(bodies, size, begun) for size in (60, 40, 70, 10, 30)]
    for sender in senders:
        sender.begin_large()
    iterations.run()
    assert (begun, bodies.total_bytes) == (senders[:2], 100)  # the small ones do not overtake the one of 70
    bodies.give_back(senders[1])
    iterations.run()
    assert (begun, bodies.total_bytes) == (senders[:2], 60)
    bodies.give_back(senders[0])
    iterations.run()
    assert (begun, bodies.total_bytes) == (senders[:4], 80)
    bodies.give_back(senders[2])
    bodies.give_back(senders[2])  # has no effect
    iterations.run()
    assert (begun, bodies.total_bytes) == (senders, 40)


def test_a_body_larger_than_the_budget_of_the_lane_begins_when_there_is_no_other() -> None:
    iterations, begun = Iterations(), list[Large]()
    bodies = BodiesInLane(iterations.enqueued.append, 100)
    senders = [Large(bodies, size, begun) for size in (300, 200, 10)]
    for sender in senders:
        sender.begin_large()
        assert begun == senders[:1]
    for count, sender in enumerate(senders, start=1):
        iterations.run()
        assert begun == senders[:count]
        bodies.give_back(sender)
    assert (bodies.total_bytes, bodies.has_room(1_000)) == (0, True)


def test_a_sender_that_leaves_or_cannot_begin_does_not_hold_up_those_behind_it() -> None:
    iterations, begun = Iterations(), list[Large]()
    bodies = BodiesInLane(iterations.enqueued.append, 100)
    first, gone, slow, last = (Large(bodies, 90, begun) for _ in range(4))
    for sender in (first, gone, slow, last):
        sender.begin_large()
    slow.is_paused = True
    bodies.leave(gone)
    bodies.give_back(first)
    iterations.run()
    assert begun == [first, last]
    slow.is_paused = False
    slow.begin_large()
    bodies.give_back(last)
    iterations.run()
    assert begun == [first, last, slow]


def test_a_smaller_body_begins_when_the_larger_one_before_it_has_left() -> None:
    iterations, begun = Iterations(), list[Large]()
    bodies = BodiesInLane(iterations.enqueued.append, 100)
    first, gone, last = (Large(bodies, size, begun) for size in (60, 90, 40))
    for sender in (first, gone, last):
        sender.begin_large()
    bodies.leave(gone)
    iterations.run()
    assert begun == [first, last]


def test_a_body_that_fails_to_begin_does_not_hold_up_those_behind_it() -> None:
    class Failing(Large):
        def begin_large(self) -> None:
            raise MemoryError

    iterations, begun = Iterations(), list[Large]()
    bodies = BodiesInLane(iterations.enqueued.append, 100)
    first, failing, last = Large(bodies, 90, begun), Failing(bodies, 90, begun), Large(bodies, 90, begun)
    first.begin_large()
    assert not bodies.admit(failing, 90)
    last.begin_large()
    bodies.give_back(first)
    with pytest.raises(MemoryError):
        iterations.run()
    iterations.run()
    assert begun == [first, last]


JSON, PACKED = b"application/json", b"application/x-msgpack"


@pytest.mark.parametrize(
    ("media", "body", "expected"),
    [
        (JSON, b"[" + b",".join([b"[]"] * 2_000) + b"]", 2_001 * 41),
        (JSON, b'"%b"' % ("中" * 2_000).encode(), 6_002),
        (JSON, b"[" * 100_000, MAX_CONTAINERS * 41),
        (PACKED, b"\xdd" + b"\x90" * 2_000, 2_001 * 41),
        (PACKED, b"\xc0[{" * 2_000, 6_000),
        (PACKED, b"\x80" * 100_000, MAX_CONTAINERS * 41),
    ],
)  # fmt: skip
def test_a_body_with_many_lists_and_objects_takes_more_of_the_budget_of_the_lane(
    media: bytes, body: bytes, expected: int
) -> None:
    headers = Headers()
    headers[b"content-type"] = media
    assert lane_bytes(Request("POST", b"/", headers, body=body)) == expected
    assert expected <= MAX_LANE_BODIES_BYTES


def test_the_brackets_of_a_json_body_are_counted_once() -> None:
    request = Request("PUT", b"/kv/k", Headers(), body=b"[" * 4_000 + b"]" * 4_000)
    lane_bytes(request)
    with (
        patch("leasehold.values.json_text.brackets_at_most", side_effect=AssertionError),
        pytest.raises(ServiceError, match="nested"),
    ):
        body_value(request)


def test_the_brackets_of_a_body_that_fills_the_lane_anyway_are_not_counted() -> None:
    request = Request("POST", b"/terraform/a", Headers(), body=b"[" * MAX_LANE_BODIES_BYTES)
    with patch("leasehold.http.wire.in_flight.brackets_at_most", side_effect=AssertionError):
        assert lane_bytes(request) == MAX_LANE_BODIES_BYTES


def test_what_looks_like_brackets_in_messagepack_is_not_counted_as_json() -> None:
    """The reader and the budget look at the type in different ways."""
    headers = Headers()
    headers[b"content-type"] = b"application/json; a=msgpack"
    request = Request("PUT", b"/kv/k", headers, body=b"[" * 4_000 + b"]" * 4_000)
    lane_bytes(request)
    assert request.brackets is None
    with pytest.raises(ServiceError, match="nested"):
        body_value(request)

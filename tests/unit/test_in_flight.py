"""The memory budgets for clients' data, and which client is cut off when one is exceeded."""

from leasehold.errors import ServiceError
from leasehold.http.wire.in_flight import BodiesInFlight, UnsentAnswers


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

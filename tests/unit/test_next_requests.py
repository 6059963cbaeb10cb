"""Whether a lane waits until the clients of its last batch have sent their next requests."""

from leasehold.store.next_requests import LEAST_OPERATIONS, LEAST_PAUSE, MOST_PAUSE, NextRequests


def batches_without_wait(requests: NextRequests) -> int:
    return next(count for count in range(MOST_PAUSE + 1) if requests.are_awaited(LEAST_OPERATIONS))


def test_clients_are_awaited_until_they_do_not_come() -> None:
    requests = NextRequests()
    for _ in range(3):
        assert requests.are_awaited(LEAST_OPERATIONS)
        requests.have_come()
    requests.have_not_come()
    assert not requests.are_awaited(LEAST_OPERATIONS)


def test_few_clients_are_not_awaited() -> None:
    assert not NextRequests().are_awaited(LEAST_OPERATIONS - 1)


def test_the_pause_is_doubled_by_each_wait_in_vain_up_to_the_longest() -> None:
    requests = NextRequests()
    pauses = []
    for _ in range(9):
        requests.have_not_come()
        pauses.append(batches_without_wait(requests))
    assert pauses == [8, 16, 32, 64, 128, 256, 512, 512, 512]
    assert (pauses[0], pauses[-1]) == (LEAST_PAUSE, MOST_PAUSE)


def test_the_pause_is_short_again_once_the_clients_have_come() -> None:
    requests = NextRequests()
    for _ in range(3):
        requests.have_not_come()
        batches_without_wait(requests)
    requests.have_come()
    requests.have_not_come()
    assert batches_without_wait(requests) == LEAST_PAUSE

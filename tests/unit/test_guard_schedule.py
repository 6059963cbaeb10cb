"""When the guard of a command sends which signal."""

import signal
from collections.abc import Sequence

import pytest

from leasehold.process.guard_schedule import Schedule, Stage

END = (signal.SIGTERM, signal.SIGCONT)
KILL = (signal.SIGKILL,)


def signals_over_time(schedule: Schedule, times: Sequence[float]) -> list[tuple[float, Sequence[signal.Signals]]]:
    """The times at which signals are sent, if the guard looks at these times."""
    sent = []
    for now in times:
        schedule, signals = schedule.due(now)
        if signals:
            sent.append((now, signals))
    return sent


@pytest.mark.parametrize(
    ("ttl", "grace", "terminate_at", "kill_at"),
    [
        (30, None, 94, 99),
        (600, None, 94, 99),
        (10, None, 97, 99),
        (1, None, 99.7, 99.9),
        (30, 10, 89, 99),
        (30, 0, 99, 99),
        (30, 20, 84, 99),  # half of the ttl
    ],
)
def test_the_command_is_killed_before_the_deadline_and_told_to_end_before_that(
    ttl: float, grace: float | None, terminate_at: float, kill_at: float
) -> None:
    schedule = Schedule.of_lease(100.0, ttl, grace)
    assert (schedule.terminate_at, schedule.kill_at) == pytest.approx((terminate_at, kill_at))
    assert schedule.deadline == pytest.approx(100)


def test_each_signal_is_sent_once() -> None:
    schedule = Schedule.of_lease(100.0, 30)
    assert signals_over_time(schedule, [93.9, 94, 95, 98.9, 99, 100, 200]) == [(94, END), (99, KILL)]


def test_a_guard_that_looks_late_kills_at_once() -> None:
    assert signals_over_time(Schedule.of_lease(100.0, 30), [10, 5000, 5001]) == [(5000, KILL)]


def test_a_renewal_moves_everything() -> None:
    schedule = Schedule.of_lease(100.0, 30).renewed(110.0)
    assert signals_over_time(schedule, [99, 103.9, 104, 108.9, 109]) == [(104, END), (109, KILL)]


def test_a_renewal_never_shortens_the_time() -> None:
    schedule = Schedule.of_lease(100.0, 30)
    assert schedule.renewed(90.0) is schedule


def test_a_renewal_after_the_command_was_told_to_end_changes_nothing() -> None:
    schedule, _ = Schedule.of_lease(100.0, 30).due(94)
    assert signals_over_time(schedule.renewed(110.0), [98, 99]) == [(99, KILL)]


def test_a_lease_that_is_over_leaves_no_grace() -> None:
    schedule = Schedule.of_lease(100.0, 30).lost(50)
    assert schedule.is_lost
    assert signals_over_time(schedule.renewed(200.0), [50, 51]) == [(50, KILL)]


@pytest.mark.parametrize(("at", "sent"), [(50, [(50, END), (55, KILL)]), (96, [(96, END), (99, KILL)])])
def test_what_is_left_of_a_command_has_the_grace_but_not_beyond_the_lease(
    at: float, sent: list[tuple[float, Sequence[signal.Signals]]]
) -> None:
    schedule = Schedule.of_lease(100.0, 30).ending(at)
    times = sorted({at, at + 1, at + 4.9, 55.0, 98.9, 99.0, 120.0})
    assert signals_over_time(schedule.renewed(200.0), [time for time in times if time >= at]) == sent


def test_a_command_whose_parent_was_killed_has_the_grace() -> None:
    schedule = Schedule.of_lease(100.0, 30).abandoned(50)
    assert signals_over_time(schedule, [50, 54.9, 55]) == [(50, END), (55, KILL)]


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_command_under_two_locks_has_no_grace_when_its_parent_was_killed(*, is_ending: bool) -> None:
    schedule = Schedule.of_lease(100.0, 30, is_nested=True)
    schedule = (schedule.ending(50) if is_ending else schedule).abandoned(51)
    assert signals_over_time(schedule.abandoned(52), [52, 53]) == [(52, KILL)]
    assert not schedule.is_lost


def test_the_end_of_the_lease_is_told_apart_from_the_end_of_the_command() -> None:
    schedule = Schedule.of_lease(100.0, 30)
    by_lease, _ = schedule.due(94)
    by_command, _ = schedule.ending(94).due(94)
    assert (by_lease.is_lost, by_command.is_lost) == (True, False)
    assert by_lease.ending(95) == by_lease


def test_the_guard_knows_when_to_look_again() -> None:
    schedule = Schedule.of_lease(100.0, 30)
    looks = []
    for now in (0.0, 94.0, 99.0):
        schedule, _ = schedule.due(now)
        looks.append((schedule.stage, schedule.next_at()))
    assert looks == [(Stage.RUNS, 94.0), (Stage.TOLD_TO_END, 99.0), (Stage.KILLED, None)]

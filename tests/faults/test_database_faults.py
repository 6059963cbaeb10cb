"""The service with 16 clients while its database fails at random moments; and the harness detects wrong answers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databases import PostgresServer
from harness.ledger import Ledger
from harness.postgres_faults import survive_database_faults


@pytest.fixture(scope="module")
def database_server() -> Iterator[PostgresServer]:
    """A server for faults, with durable settings. Each test leaves it running."""
    with PostgresServer(fsync=True) as server:
        yield server


FAULTS = 10


def test_connections_cut_at_any_byte_cause_no_errors_for_callers(database_server: PostgresServer) -> None:
    finding = survive_database_faults(database_server, 20, ["cut"] * FAULTS, workers=2)
    assert finding.violations == []
    assert finding.figures["cuts"] >= finding.figures["faults with writes under way"] == FAULTS
    assert finding.figures["cuts of a commit"] >= finding.figures["cuts in COMMIT"] >= 2
    assert finding.figures["answers 503"] == 0


def test_killed_sessions_cause_no_errors_for_callers(database_server: PostgresServer) -> None:
    finding = survive_database_faults(database_server, 20, ["backends"] * FAULTS)
    assert finding.violations == []
    assert finding.figures["kills of backends"] == finding.figures["faults with writes under way"] == FAULTS
    assert finding.figures["kills in a commit"] > 0
    assert finding.figures["answers 503"] == 0


def test_nothing_is_lost_or_done_twice_when_the_postmaster_is_killed(database_server: PostgresServer) -> None:
    finding = survive_database_faults(database_server, 20, ["postmaster"] * FAULTS)
    assert finding.violations == []
    assert finding.figures["postmaster kills"] == finding.figures["faults with writes under way"] == FAULTS


def test_a_frozen_database_only_delays_callers(database_server: PostgresServer) -> None:
    finding = survive_database_faults(database_server, 2, ["freeze"] * 2, workers=2)
    assert finding.violations == []
    assert finding.figures["answers 503"] == 0


def test_callers_are_told_of_unknown_outcomes_when_the_network_is_away_for_long(
    database_server: PostgresServer,
) -> None:
    finding = survive_database_faults(database_server, 2, ["no network"])
    assert finding.violations == []
    assert finding.figures["unknown outcomes"] > 0
    assert finding.figures["answers 503"] > finding.figures["unknown outcomes"]


def test_a_retry_after_an_unknown_commit_is_detected(database_server: PostgresServer) -> None:
    finding = survive_database_faults(database_server, 20, ["cut"] * 5, bug="retry unknown commits")
    assert [violation for violation in finding.violations if violation.startswith("twice")]


# The harness detects wrong answers ----------------------------------------------------------------------------


def told() -> Ledger:
    """A ledger of a few clients with known writes."""
    ledger = Ledger(done=[0])
    ledger.append("list", "first", "done", 1)
    ledger.append("list", "doubtful", "unknown", None)
    ledger.append("list", "second", "done", 3)
    ledger.append("list", "refused", "not done", None)
    for outcome in ("done", "done", "unknown", "not done"):
        ledger.count("counter", outcome)
    ledger.create("there", "value", "done")
    ledger.create("deleted", "value", "done")
    ledger.delete("deleted", "done")
    ledger.create("doubtful", "value", "unknown")
    ledger.create("refused", "value", "not done")
    return ledger


GOOD: dict[str, Any] = {"list": ["first", "second"], "counter": 2, "there": "value"}


@pytest.mark.parametrize("doubtful", [{}, {"list": ["first", "doubtful", "second"], "counter": 3, "doubtful": "value"}])
def test_a_write_with_an_unknown_outcome_may_be_stored_or_not(doubtful: dict[str, Any]) -> None:
    assert told().differences(GOOD | doubtful) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"list": ["first"]}, "lost: second of list, which was acknowledged"),
        ({"list": ["first", "second", "second"]}, "twice: second of list, whose outcome was reported as done"),
        (
            {"list": ["first", "doubtful", "doubtful", "second"]},
            "twice: doubtful of list, whose outcome was reported as unknown",
        ),
        ({"list": ["first", "refused", "second"]}, "refused of list is stored although it was reported as not stored"),
        ({"list": ["first", "second", "other"]}, "other of list, which no client wrote"),
        ({"list": ["second", "first"]}, "list is not in the order of the revisions"),
        ({"counter": 1}, "counter is 1; 2 increments were acknowledged, 1 are in doubt"),
        ({"counter": 4}, "counter is 4; 2 increments were acknowledged, 1 are in doubt"),
        ({"there": "other"}, "there is other, which can only be one of ['value']"),
        ({"deleted": "value"}, "deleted is value, which can only be one of ['None']"),
        ({"refused": "value"}, "refused is value, which can only be one of ['None']"),
        ({"unheard": 1}, "unheard, which no client knows"),
    ],
)
def test_a_difference_is_detected(change: dict[str, Any], difference: str) -> None:
    assert told().differences(GOOD | change) == [difference]


def give_a_revision_twice(ledger: Ledger) -> None:
    begun_at = [ledger.begin(), ledger.begin()]
    for known in begun_at:
        ledger.end(0, "done", known, 5)


def go_back(ledger: Ledger) -> None:
    ledger.end(0, "done", ledger.begin(), 5)
    ledger.end(0, "done", ledger.begin(), 4)


def give_an_old_token(ledger: Ledger) -> None:
    ledger.hold("lock", "a", 5, ledger.last_token("lock"), now=0.0, until=10.0)
    ledger.let_go("lock", "a")
    ledger.hold("lock", "b", 4, ledger.last_token("lock"), now=1.0, until=11.0)


def have_two_holders(ledger: Ledger) -> None:
    ledger.hold("lock", "a", 5, 0, now=0.0, until=10.0)
    ledger.hold("lock", "b", 6, 0, now=9.0, until=19.0)


@pytest.mark.parametrize(
    ("act", "violation"),
    [
        (give_a_revision_twice, "two changes got the revision 5"),
        (go_back, "revision 4 was given although 5 was known before"),
        (give_an_old_token, "lock has the token 4 after 5"),
        (have_two_holders, "lock was given while another lease on it was alive"),
    ],
)
def test_an_impossible_answer_is_detected(act: Callable[[Ledger], None], violation: str) -> None:
    ledger = Ledger(done=[0])
    act(ledger)
    assert ledger.violations == [violation]

"""How long a client may take, by the state of its connection."""

import pytest

from leasehold.http.wire.deadlines import DEADLINES, LINGER_SECONDS, SWEEP_SECONDS, missed
from leasehold.http.wire.states import Receiving
from leasehold.limits import Limits

LIMITS = Limits(header_timeout_seconds=10.0, body_timeout_seconds=20.0, idle_timeout_seconds=30.0)
SECONDS = {
    Receiving.NEW: 10.0,
    Receiving.IDLE: 30.0,
    Receiving.HEAD: 10.0,
    Receiving.EXPECTING: 20.0,
    Receiving.BODY: 20.0,
    Receiving.DISCARDING: 20.0,
    Receiving.ENDED: LINGER_SECONDS,
    Receiving.CLIENT_CLOSED: LINGER_SECONDS,
}


@pytest.mark.parametrize("state", Receiving, ids=str)
def test_a_deadline_ends_one_sweep_late_and_never_early(state: Receiving) -> None:
    last = 1_000.0 + SECONDS[state] + SWEEP_SECONDS
    assert missed(state, LIMITS, since=1_000.0, tick=last) is None
    assert missed(state, LIMITS, since=1_000.0, tick=last + 0.001) is DEADLINES[state]


def test_only_a_client_that_has_begun_a_request_gets_a_response() -> None:
    responds = {state for state, deadline in DEADLINES.items() if deadline.message is not None}
    assert responds == {Receiving.HEAD, Receiving.EXPECTING, Receiving.BODY, Receiving.DISCARDING}

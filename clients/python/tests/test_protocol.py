"""The pure functions that both clients share."""

import base64
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_client import EntryDeleted, EntryPut, Reset
from leasehold_client.protocol.lease_term import LeaseTerm
from leasehold_client.protocol.messages import Response, number
from leasehold_client.protocol.refusals import retry_after
from leasehold_client.protocol.retrying import Disconnected, backoff, pause_before_retry
from leasehold_client.protocol.tokens import expiry_of, seconds_of_use
from leasehold_client.protocol.watching import End, Interest, Progress, Received, WatchState

CUT = Disconnected("cut")


def jwt(claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", json.dumps(claims).encode(), b"s")
    )


# Retries ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 100), st.floats(0, 1))
def test_the_pauses_double_up_to_five_seconds(attempts: int, jitter: float) -> None:
    longest = min(0.05 * 2.0 ** (attempts - 1), 5.0)
    assert longest / 2 <= backoff(attempts, jitter) <= longest


def test_a_pause_that_would_last_too_long_is_not_made() -> None:
    assert pause_before_retry(CUT, attempts=1, remaining=0.05, jitter=1.0) == 0.05
    assert pause_before_retry(CUT, attempts=1, remaining=0.049, jitter=1.0) is None
    asked = Response(503, {"retry-after": "3"})
    assert pause_before_retry(asked, attempts=1, remaining=3.0, jitter=0.0) == 3.0
    assert pause_before_retry(asked, attempts=1, remaining=2.9, jitter=0.0) is None
    assert pause_before_retry(asked, attempts=20, remaining=9.0, jitter=1.0) == 5.0


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_the_header_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(Response(503, {"retry-after": text})) == seconds


# Tokens, leases, numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (jwt({"exp": 1.5}), 1.5),
        (jwt({}), None),
        (jwt([1]), None),
        (jwt({"exp": "1"}), None),
        ("opaque", None),
        ("a.b.c", None),
    ],
)
def test_the_expiry_of_a_token(token: str, expiry: float | None) -> None:
    assert expiry_of(token) == expiry


def test_a_token_is_used_until_shortly_before_it_expires() -> None:
    assert seconds_of_use(jwt({"exp": 1_100}), 100.0) == 970.0
    assert seconds_of_use(jwt({"exp": 110}), 100.0) == 8.0
    assert seconds_of_use(jwt({"exp": 90}), 100.0) == 0.0
    assert seconds_of_use("opaque", 100.0) is None


def test_a_renewal_never_shortens_a_lease() -> None:
    term = LeaseTerm(100.0, 30.0)
    assert term.renewed(110.0, 30.0).deadline == 140.0
    assert term.renewed(110.0, 10.0) == term


@pytest.mark.parametrize(("value", "text"), [(30, "30"), (0.1, "0.1"), (1e-6, "0.000001"), (31_536_000.0, "31536000")])
def test_a_number_in_a_parameter_has_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


# The events of a watch ----------------------------------------------------------------------------------------


def line(event: str, id_: int | None = None, **data: object) -> bytes:
    members = {"event": event, "data": data} | ({} if id_ is None else {"id": id_})
    return json.dumps(members).encode() + b"\n"


def put(key: str, revision: int, id_: int | None = None) -> bytes:
    return line("put", id_, key=key, value=1, revision=revision)


def received(state: WatchState, *lines: bytes) -> list[Received]:
    return [event for event, _ in state.receive(b"".join(lines))]


@given(st.lists(st.integers(0, 400), max_size=6))
def test_events_are_the_same_however_the_response_is_cut_into_pieces(cuts: list[int]) -> None:
    text = put("ä", 1) + line("ready", 2, revision=2) + line("delete", 3, key="ä", revision=3) + line("progress", 4)
    whole = received(WatchState(Interest(snapshot=True), None), text)
    assert len(whole) == 4
    state = WatchState(Interest(snapshot=True), None)
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[first:last] for first, last in itertools.pairwise(places)]
    assert [event for piece in pieces for event, _ in state.receive(piece)] == whole


def test_the_next_request_resumes_at_the_last_cursor() -> None:
    state = WatchState(Interest(["a b/"], snapshot=True, locks=True, values=False), None)
    assert state.request().target == "/watch?prefix=a%20b/&snapshot&locks&values=false&heartbeat=15"
    received(state, line("ready", 7, revision=7), put("a", 8), put("b", 9, 9), put("c", 10))
    assert "&since=9&" in state.request().target


def test_what_a_snapshot_that_was_cut_off_has_reported_is_forgotten() -> None:
    state = WatchState(Interest(snapshot=True), None)
    assert state.connected() == []
    received(state, put("a", 1))
    assert state.connected() == [Reset()]
    received(state, put("a", 1), line("ready", 1, revision=1), put("b", 2, 2), put("c", 3)[:20])
    assert state.connected() == []
    # The rest of the line that was cut off is not mixed with the next response.
    [ready, deleted] = received(state, line("ready", 2, revision=2), line("delete", 3, key="a", revision=3))
    assert (ready, deleted) == (Progress(2), EntryDeleted("a", 3, 3))


def test_a_reset_of_the_service_begins_a_new_snapshot() -> None:
    state = WatchState(Interest(snapshot=True), 5)
    [reset, first] = received(state, line("reset", revision=9), put("a", 8))
    assert reset == Reset()
    assert isinstance(first, EntryPut)
    assert "since" not in state.request().target
    assert state.connected() == [Reset()]


def test_unknown_events_change_nothing_and_an_end_is_told() -> None:
    state = WatchState(Interest(), None)
    assert received(state, line("invented later", 6)) == [Progress(6)]
    assert received(state, line("end", error="unavailable", message="stops")) == [End("unavailable", "stops")]

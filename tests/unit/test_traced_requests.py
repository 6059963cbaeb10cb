"""A request with a `traceparent` takes the fast paths, and is answered as if it were parsed."""

import random
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from compared_paths import Seen, Step, compared, message, send

from leasehold.http.wire.trace_field import without_trace
from leasehold.limits import Limits
from leasehold.trace_context import parse_traceparent

VALUE = b'{"a":1}'
_numbers = count(1)


def field(*, flags: str = "00", name: str = "traceparent") -> str:
    """The field of a new trace."""
    return f"{name}: 00-{next(_numbers):032x}-00f067aa0ba902b7-{flags}"


def traced(steps: Sequence[Step], **options: Any) -> Seen:
    """What the service does. Fails if it does anything else when it parses each request that has the field."""
    return compared(steps, same_ids=False, **options)


def get(*fields: str, target: str = "/kv/k") -> Step:
    return send(message("GET", target, *fields))


def put(*fields: str, target: str = "/kv/k", body: bytes = VALUE) -> Step:
    return send(message("PUT", target, *fields, body=body))


# The field ------------------------------------------------------------------------------------------------------

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_field_is_taken_out_wherever_it_is(name: str, place: int) -> None:
    fields = ["Accept: */*", "User-Agent: me"]
    plain = message("PUT", "/kv/k", *fields, body=VALUE)
    fields.insert(place, f"{name}: {TRACE}")
    found = without_trace(message("PUT", "/kv/k", *fields, body=VALUE))
    assert found == (plain, parse_traceparent(TRACE.encode()))


@pytest.mark.parametrize(
    "data",
    [
        message("GET", "/kv/k"),
        message("GET", "/kv/k", "traceparent: "),
        message("GET", "/kv/k", f"traceparent:{TRACE}"),
        message("GET", "/kv/k", f"traceparent:  {TRACE}"),
        message("GET", "/kv/k", f"traceparent: {TRACE} "),
        message("GET", "/kv/k", f"TRACEPARENT: {TRACE}"),
        message("GET", "/kv/k", f"x-traceparent: {TRACE}"),
        message("GET", "/kv/k", f"traceparent: {TRACE.upper()}"),
        message("GET", "/kv/k", f"traceparent: 01{TRACE[2:]}-more"),
        message("GET", "/kv/k", f"traceparent: 00{TRACE[2:]}-more"),
        message("GET", "/kv/k", f"traceparent: {TRACE[:-4]}\r\n01"),
        message("GET", "/kv/k", f"traceparent: {TRACE}")[:-4],
        message("PUT", "/kv/k", body=f'"a\r\ntraceparent: {TRACE}\r\n"'.encode()),
        f"\r\ntraceparent: {TRACE}".encode(),
        b"",
    ],
)
def test_any_other_form_is_left_to_the_parser(data: bytes) -> None:
    assert without_trace(data) is None


# The fast paths -------------------------------------------------------------------------------------------------


def test_traced_reads_take_the_fast_path_from_the_third_on() -> None:
    steps = [put(), *(get(field()) for _ in range(5))]
    assert traced(steps, logs=False).quick == 3


def test_traced_writes_take_the_fast_path_from_the_second_on() -> None:
    assert traced([put(field()) for _ in range(5)], logs=False).quick_writes == 4


def test_requests_with_and_without_a_trace_share_what_is_known() -> None:
    steps = [put(), *(each for _ in range(3) for each in (get(), get(field()), put(field()), put()))]
    done = traced(steps, logs=False)
    assert (done.quick, done.quick_writes) == (4, 6)


def test_a_service_that_logs_each_request_names_the_trace() -> None:
    steps = [put(), *(each for _ in range(4) for each in (get(field()), put(field())))]
    done = traced(steps)
    assert (done.quick, done.quick_writes) == (0, 0)
    assert [("trace_id" in line) for line in done.log] == [False] + 8 * [True]


def test_only_sampled_requests_have_a_span_and_the_others_take_the_fast_path() -> None:
    steps = [put(), *(get(field(flags=flags)) for flags in ("00", "01") * 6)]
    done = traced(steps, logs=False, spans=True)
    assert (len(done.spans), done.quick) == (6, 5)
    assert {status for *_, status, _ in done.spans} == {200}
    assert traced(steps, logs=False).quick == 10


def test_an_error_has_the_trace_of_its_own_request() -> None:
    steps = [
        put(field()),
        put(field()),
        *(get(field(), target="/kv/absent") for _ in range(4)),
        *(put(field(), body=b"{]1234}") for _ in range(3)),
        *(put(field(), target=target) for target in ("/kv/a//b", "/kv/k?ttl=x", "/nowhere")),
        put(field(), body=b"7654321"),
    ]
    done = traced(steps, logs=False)
    (written,) = done.written
    assert written.count(b'"trace_id"') == 10


def test_an_entry_that_was_deleted_is_created_with_a_trace() -> None:
    remove = send(message("DELETE", "/kv/k"))
    assert traced([put(field()), put(field()), remove, put(field()), get(field())], logs=False).quick_writes == 1


@pytest.mark.parametrize(
    "fields",
    [
        ["traceparent: nonsense"],
        [f"traceparent: {TRACE}", f"traceparent: {TRACE}"],
        [f"traceparent: {TRACE}", f"TraceParent: {TRACE}"],
        [f"Traceparent: {TRACE}", f"traceparent: {TRACE}"],
        [f"traceparent: {TRACE}", "tracestate: vendor=1"],
        [f"traceparent: {TRACE}", 'If-Match: "1"'],
        [f"traceparent: {TRACE}", "X-Request-Id: mine"],
        [f"traceparent:{TRACE}"],
    ],
)
def test_other_fields_beside_it_have_their_effect(fields: list[str]) -> None:
    steps = [put(), put(), *(step for _ in range(4) for step in (get(*fields), put(*fields), get(field()), get()))]
    traced(steps, logs=False, spans=True)
    traced(steps)


def test_a_trace_in_a_body_is_not_one_of_the_request() -> None:
    body = b'"' + TRACE.encode() + b'"'
    steps = [put(body=body), put(body=body), send(message("PUT", "/kv/k", body=b"[1,\r\ntraceparent: 2]"))]
    traced([*steps, *steps], logs=False, spans=True)


@pytest.mark.parametrize("fields", [2, 3, 4])
@pytest.mark.parametrize("more_bytes", [0, 30, 60, 90])
def test_the_limits_of_header_fields_are_kept(fields: int, more_bytes: int) -> None:
    limits = Limits(max_header_fields=fields, max_header_bytes=120)
    long = f"A: {'x' * more_bytes}"
    steps = [put()]
    for _ in range(4):
        steps += [get(), get(field()), get(long), get(long, field()), get(field(), long)]
    traced(steps, logs=False, limits=limits)


def test_random_requests() -> None:
    rng = random.Random(7)
    names = ("traceparent", "Traceparent", "TRACEPARENT")
    steps: list[Step] = [put()]
    for _ in range(400):
        fields = ["Accept: */*"] * rng.randrange(2)
        if rng.random() < 0.7:
            fields.insert(rng.randrange(len(fields) + 1), field(flags=rng.choice(["00", "01"]), name=rng.choice(names)))
        if rng.random() < 0.1:
            fields.append(field())
        target = rng.choice(["/kv/k", "/kv/k", "/kv/k", "/kv/l", "/kv/absent", "/kv"])
        steps.append(rng.choice([get, put])(*fields, target=target))
    done = traced(steps, logs=False, spans=True)
    assert (done.quick > 40, done.quick_writes > 40, len(done.spans) > 40) == (True, True, True)

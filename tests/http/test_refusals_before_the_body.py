"""A request that its head decides is refused before its body arrives, so that the body takes no memory."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from running import Server, Wire, message, running

from leasehold.limits import MAX_BODIES_BYTES

MIB = 1024 * 1024
UNAUTHENTICATED = (401, "unauthenticated")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for tokens."""
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_bytes(b"a secret of this server for its tests\n")
    secret.chmod(0o600)
    with running(environment={"LEASEHOLD_AUTH_SECRET_FILE": str(secret)}) as started:
        yield started


REFUSED = {
    "no token": (("PUT", "/kv/a"), (), UNAUTHENTICATED),
    "a bad token": (("POST", "/set"), ("Authorization: Bearer x.y.z",), UNAUTHENTICATED),
    "a foreign page": (("PUT", "/kv/a"), ("Origin: https://example.com",), (403, "forbidden")),
    "no such route": (("PUT", "/nothing"), (), (404, "no_such_route")),
    "a state without a token": (("POST", "/terraform/a"), (), UNAUTHENTICATED),
    "a state with a bad password": (("POST", "/terraform/a"), ("Authorization: Basic YTpi",), UNAUTHENTICATED),
    "another method": (("PUT", "/health"), (), (405, "method_not_allowed")),
    "an unknown parameter": (("PUT", "/kv/a?tll=1"), (), (400, "invalid_argument")),
}
MISTYPED = {
    "a value": ("PUT", "/kv/a", "text/html"),
    "a patch": ("PATCH", "/kv/a", "application/json"),
    "a lock": ("POST", "/locks/a", "text/plain"),
    "a state": ("POST", "/terraform/a", "text/plain"),
    "a charset": ("POST", "/set", "application/json; charset=latin-1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_request_with_a_large_body_is_refused_before_the_body_and_the_connection_ends(
    guarded: Server, kind: str
) -> None:
    target, fields, expected = REFUSED[kind]
    with Wire(guarded) as wire:
        answer = wire.send(message(*target, *fields, f"Content-Length: {MIB}"), b'"half').answer()
        assert (answer.refusal, wire.is_closed()) == (expected, True)


@pytest.mark.parametrize("kind", MISTYPED)
def test_a_body_of_an_unsupported_type_is_refused_before_it_arrives(server: Server, kind: str) -> None:
    method, target, sent = MISTYPED[kind]
    with Wire(server) as wire:
        answer = wire.send(message(method, target, f"Content-Type: {sent}", f"Content-Length: {MIB}")).answer()
        assert (answer.refusal, wire.is_closed()) == ((415, "unsupported_media_type"), True)


def test_a_chunked_body_is_refused_before_it_arrives(guarded: Server) -> None:
    with Wire(guarded) as wire:
        answer = wire.send(message("PUT", "/kv/a", "Transfer-Encoding: chunked")).answer()
        assert (answer.refusal, wire.is_closed()) == (UNAUTHENTICATED, True)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_client_that_waits_for_100_continue_gets_the_refusal_instead(guarded: Server, kind: str) -> None:
    target, fields, expected = REFUSED[kind]
    with Wire(guarded) as wire:
        answer = wire.send(message(*target, *fields, "Expect: 100-continue", "Content-Length: 10")).answer()
        assert (answer.refusal, wire.is_closed()) == (expected, True)


def test_a_client_that_continues_to_send_its_body_can_read_the_error(guarded: Server) -> None:
    with Wire(guarded) as wire:
        wire.send(message("PUT", "/kv/a", f"Content-Length: {MIB}"))
        for _ in range(4):
            wire.send(b"a" * (MIB // 4))
        assert (wire.answer().refusal, wire.is_closed()) == (UNAUTHENTICATED, True)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_short_body_is_skipped_and_the_connection_stays(guarded: Server, kind: str) -> None:
    target, fields, expected = REFUSED[kind]
    with Wire(guarded) as wire:
        wire.send(message(*target, *fields, "Content-Length: 30000"), b"a" * 10_000)
        wire.send(b"a" * 20_000, message("GET", "/health/live"))
        assert wire.answer().refusal == expected
        assert wire.answer().status == 200


def test_refusals_at_the_head_are_answered_in_order(guarded: Server) -> None:
    with Wire(guarded) as wire:
        wire.send(message("GET", "/health/live"), message("PUT", "/kv/a", f"Content-Length: {MIB}"))
        assert [wire.answer().status, wire.answer().status] == [200, 401]


def test_a_request_refused_at_the_head_changes_nothing_after_its_body_has_arrived(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Content-Type: text/html", "Content-Length: 20000"), b"1")
        assert wire.send(b" " * 19_999).answer().status == 415
    assert server.get(key).status_code == 404


def test_refusals_at_the_head_are_counted_under_their_route(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", "Content-Type: text/html", f"Content-Length: {MIB}")).answer()
    lines = server.request("GET", "/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("http_server_request_duration_seconds_count")]
    labels = ('http_request_method="PUT"', 'http_route="/kv/{key}"', 'http_response_status_code="415"')
    assert [line for line in counts if all(label in line for label in labels)] != []


# Memory -------------------------------------------------------------------------------------------------------

CLIENTS = 400


def grown_bytes(server: Server, stack: ExitStack) -> int:
    """How much larger the server is while CLIENTS hold back the last byte of a body of 1 MiB each."""
    before = resident_bytes(server)
    head = message("PUT", "/kv/a", f"Content-Length: {MIB}")
    body = b"1" * (MIB - 1)
    for _ in range(CLIENTS):
        wire = stack.enter_context(Wire(server))
        with suppress(ConnectionError):  # it may have been refused by now
            wire.send(head, body)
    with Wire(server) as wire:  # behind all that was sent before
        wire.send(message("GET", "/health/live")).answer()
    return resident_bytes(server) - before


def resident_bytes(server: Server) -> int:
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell the memory of a process")
def test_unfinished_bodies_of_clients_without_a_token_take_no_memory(guarded: Server) -> None:
    with ExitStack() as stack:
        assert grown_bytes(guarded, stack) < CLIENTS * MIB // 15  # so 1,500 take less than 100 MB


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell the memory of a process")
def test_unfinished_bodies_take_no_more_than_their_budget() -> None:
    with running() as own, ExitStack() as stack:
        assert grown_bytes(own, stack) < MAX_BODIES_BYTES * 3 // 2

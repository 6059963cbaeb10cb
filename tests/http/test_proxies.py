"""The configurations of docs/proxies.md work with real proxies: keys, streams, conditions, and lost answers."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from contract import messagepack_sequence
from fronting import HOST, KINDS, PAGE, Front, block_of, fronted
from programs import needs
from proxy import Proxy, proxy_on_a_thread
from running import Ended, Server, Wire, refusal, running, until
from watching import watchers

pytestmark = needs("nginx", "haproxy", "apache2", "varnishd", "lighttpd", "openssl")

MIB = 2**20
BODY = ("Content-Type: application/json",)
SMALL_BUFFER = (socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)


@pytest.fixture(scope="module")
def origin() -> Iterator[Server]:
    with running(environment={"LEASEHOLD_ALLOWED_HOSTS": HOST}) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def front(request: pytest.FixtureRequest, origin: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Each proxy as the page configures it."""
    with fronted(request.param, origin.address[1], tmp_path_factory.mktemp("proxy")) as running_front:
        yield running_front


# Keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a%2Fb",
        "a/b",
        "a%252Fb",
        "a%20b",
        "a+b",
        "a%3Fb%23",
        "a;b=c",
        "%C3%A4",
        "a%25",
        "@:!$&'()*,",
        ".a",
        "...",
        "a%5Cb",
    ],
)
def test_a_key_arrives_as_it_was_sent(front: Front, origin: Server, key: str, name: str) -> None:
    written = front.ask("PUT", f"/kv/{key}/{name}", *BODY, body=b'"through the proxy"')
    assert written.status == 201, written.body
    direct = origin.get(f"{key}/{name}").json()
    assert (direct["value"], direct["key"]) == ("through the proxy", json.loads(written.body)["key"])
    assert len(origin.request("GET", f"/kv?prefix={key}").json()["entries"]) == 1
    assert front.ask("GET", f"/kv/{key}/{name}").value == "through the proxy"


@pytest.mark.parametrize(
    "name", ["a//b", "/a", "a/../b", "a/%2e%2e/b", "%2e%2e/b", "a/./b", "a/%2e/b", "a/..", "a%2F..%2Fb"]
)
def test_an_invalid_key_is_still_invalid_behind_the_proxy(front: Front, origin: Server, key: str, name: str) -> None:
    answer = front.ask("PUT", f"/kv/{key}/{name}", *BODY, body=b"1")
    assert answer.status in (400, 403, 404), answer.body
    assert origin.request("GET", f"/kv?prefix={key}").json()["entries"] == []
    assert origin.get("b").status_code == 404


# Conditions, caches, pages ------------------------------------------------------------------------------------


def test_conditional_requests_work_for_small_and_large_values(front: Front, origin: Server, key: str) -> None:
    for number, value in enumerate(["small", "x" * 500_000]):
        path = f"/kv/{key}/{number}"
        etag = front.client.put(path, content=json.dumps(value)).headers["ETag"]
        read = front.client.get(path)
        assert (read.json()["value"], read.headers["ETag"]) == (value, etag)
        assert origin.request("GET", path).headers["ETag"] == etag
        assert front.client.get(path, headers={"If-None-Match": etag}).status_code == 304
        assert front.client.put(path, content="1", headers={"If-Match": etag}).status_code == 200
        assert refusal(front.client.put(path, content="2", headers={"If-Match": etag})) == (412, "precondition_failed")
        assert refusal(front.client.put(path, content="2", headers={"If-None-Match": "*"}))[0] == 412
        assert origin.value(f"{key}/{number}") == 1


def test_a_read_after_a_write_through_the_proxy_sees_the_write(front: Front, key: str) -> None:
    for number in range(20):
        assert front.client.put(f"/kv/{key}", content=str(number)).status_code in (200, 201)
        assert [front.client.get(f"/kv/{key}").json()["value"] for _ in range(2)] == [number, number]
        assert front.client.get(f"/kv/{key}?raw").json() == number
    assert front.client.delete(f"/kv/{key}").status_code == 200
    assert front.client.get(f"/kv/{key}").status_code == 404
    front.client.put(f"/kv/{key}", content="1")
    assert front.client.get(f"/kv/{key}").status_code == 200


def test_pages_of_the_same_origin_are_admitted_and_others_are_refused(front: Front, key: str) -> None:
    own = front.ask("PUT", f"/kv/{key}", *BODY, f"Origin: https://{HOST}", "Sec-Fetch-Site: same-origin", body=b"1")
    foreign = front.ask("PUT", f"/kv/{key}", *BODY, "Origin: https://evil.example", body=b"2")
    assert (own.status, foreign.refusal) == (201, (403, "forbidden"))


def test_many_requests_of_one_connection_are_answered(front: Front, key: str) -> None:
    with front.wire() as wire:
        for number in range(30):
            request = f"PUT /kv/{key} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{10 + number}"
            assert wire.send(request.encode()).answer().value == 10 + number


# Large bodies and streams -------------------------------------------------------------------------------------


def test_a_body_of_1_mib_is_accepted_and_a_larger_one_is_too_large(front: Front, origin: Server, key: str) -> None:
    largest = json.dumps("x" * (MIB - 2)).encode()
    assert front.client.put(f"/kv/{key}", content=largest).status_code == 201
    assert front.client.put(f"/kv/{key}", content=iter([largest[: MIB // 2], largest[MIB // 2 :]])).status_code == 200
    assert front.client.get(f"/kv/{key}").json()["value"] == "x" * (MIB - 2)
    refused = front.client.put(f"/kv/{key}", content=json.dumps("x" * (MIB - 1)))
    assert refused.status_code in (413, 503), refused.text  # Varnish gives up when it cannot send all of it
    assert len(origin.value(key)) == MIB - 2


@pytest.fixture(scope="module")
def eight_megabytes(origin: Server) -> str:
    """A prefix of 8 entries of 1 MB each."""
    for number in range(8):
        origin.put(f"large/{number}", json.dumps(f"{number}" * 1_000_000))
    return "large/"


@pytest.mark.parametrize("path", ["/kv", "/stream"])
def test_a_stream_of_8_mb_is_complete_at_the_pace_of_its_reader(
    front: Front, origin: Server, eight_megabytes: str, path: str
) -> None:
    target = f"{path}?prefix={eight_megabytes}"
    with front.wire() as slow:
        slow.socket.setsockopt(*SMALL_BUFFER)
        slow.send(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        # It does not read, while others are answered.
        assert [front.client.get("/health/live").status_code for _ in range(20)] == [200] * 20
        body = slow.answer().body
    direct = origin.request("GET", target).content
    assert len(body) > 8_000_000
    if path == "/kv":
        assert json.loads(body)["entries"] == json.loads(direct)["entries"]
    else:
        assert messagepack_sequence(body) == messagepack_sequence(direct)


def test_a_streamed_part_is_complete(front: Front, key: str) -> None:
    uuid = front.client.post("/set", json={"value": {"a": key * 10_000}}).json()["key"]
    assert msgspec.msgpack.decode(front.client.get(f"/stream/{uuid}?path=/a").content) == key * 10_000


def test_a_watch_passes_each_event_at_once(front: Front, origin: Server, key: str) -> None:
    with front.wire() as wire:
        fields = f"Host: {HOST}\r\nAccept: application/x-ndjson"
        wire.send(f"GET /watch?prefix={key}&heartbeat=1 HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        assert wire.head().status == 200
        events = lines(wire)
        assert next(events)["event"] == "ready"
        revision = 0
        for number in range(3):
            revision = origin.put(key, str(number)).json()["revision"]
            event = next(event for event in events if event["event"] != "progress")
            assert (event["id"], event["data"]["value"]) == (revision, number)
        assert next(event for event in events if event["event"] == "progress")["id"] >= revision
    until(lambda: watchers(origin) == 0)


def lines(wire: Wire) -> Iterator[Any]:
    """JSON, line by line. A proxy may divide the chunks of a response in another way."""
    text = b""
    while (chunk := wire.chunk()) != b"":
        *whole, text = (text + chunk).split(b"\n")
        yield from map(json.loads, whole)


# Lost responses -----------------------------------------------------------------------------------------------


@contextmanager
def lossy(
    name: str, origin: Server, folder: Path, *, changed: Callable[[str], str] = lambda block: block
) -> Iterator[tuple[Front, Proxy]]:
    """A proxy whose connections to the service can be cut."""
    with (
        proxy_on_a_thread(origin.address[1]) as network,
        fronted(name, network.port, folder, changed=changed) as front,
    ):
        yield front, network


def lose_answer(_data: bytes) -> int:
    """Cut a connection when its answer comes: what was asked is done, and nobody hears of it."""
    return 0


def not_sent(line: str) -> Callable[[str], str]:
    """The block without a line."""

    def changed(block: str) -> str:
        assert line in block
        return "\n".join(each for each in block.splitlines() if line not in each)

    return changed


@pytest.fixture(scope="module")
def counted() -> Iterator[Server]:
    """A server whose revision grows by the writes of these tests only. On `origin`, leases of other tests expire."""
    with running(environment={"LEASEHOLD_ALLOWED_HOSTS": HOST}) as server:
        yield server


WRITES: dict[str, tuple[str, str, str, bytes | None]] = {
    "replace": ("PUT", "", "", b'"new"'),
    "create": ("PUT", "/new", "If-None-Match: *", b'"new"'),
    "write a part": ("PUT", "?path=/n", "", b"2"),
    "append": ("POST", "?path=/list/-", "", b"3"),
    "append by PUT": ("PUT", "?path=/list/-", "", b"3"),
    "delete": ("DELETE", "", "", None),
    "delete an element": ("DELETE", "?path=/list/0", "", None),
    "delete an element of this revision": ("DELETE", "?path=/list/0", "If-Match: {etag}", None),
    "patch": ("PATCH", "", "Content-Type: application/json-patch+json", b'[{"op":"remove","path":"/list/0"}]'),
}
BEFORE = {"n": 1, "list": [0, 1, 2]}
AFTER: dict[str, object] = {
    "replace": "new",
    "create": BEFORE,
    "write a part": {"n": 2, "list": [0, 1, 2]},
    "append": {"n": 1, "list": [0, 1, 2, 3]},
    "append by PUT": BEFORE,
    "delete": None,
    "delete an element": BEFORE,
    "delete an element of this revision": {"n": 1, "list": [1, 2]},
    "patch": {"n": 1, "list": [1, 2]},
}


def lose_the_answer(front: Front, network: Proxy, origin: Server, key: str, kind: str) -> tuple[int, object]:
    """Do a write whose answer is lost. How many changes it made, and the value then."""
    etag = origin.put(key, json.dumps(BEFORE)).headers["ETag"]
    before = origin.revision()
    method, rest, field, body = WRITES[kind]
    with front.wire() as wire:
        # The proxy has a connection to the service that it has used: those are what requests are sent again on.
        wire.send(f"GET /kv/{key} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()).answer()
        network.to_client = lose_answer
        fields = f"\r\n{field.format(etag=etag)}" if field else ""
        length = "" if body is None else f"\r\nContent-Length: {len(body)}"
        request = f"{method} /kv/{key}{rest} HTTP/1.1\r\nHost: {HOST}{fields}{length}\r\n\r\n".encode()
        try:
            answer = wire.send(request + (body or b"")).answer(to=method)
            assert answer.status >= 500, answer
        except (Ended, OSError):
            pass
        finally:
            network.to_client = None
    read = origin.get(key)
    return origin.revision() - before, read.json()["value"] if read.status_code == 200 else None


@pytest.mark.parametrize("name", KINDS)
def test_a_write_whose_answer_is_lost_is_done_once(counted: Server, key: str, tmp_path: Path, name: str) -> None:
    with lossy(name, counted, tmp_path) as (front, network):
        done = {
            kind: lose_the_answer(front, network, counted, f"{key}/{number}", kind)
            for number, kind in enumerate(WRITES)
        }
    refused = ("append by PUT", "delete an element")
    assert done == {kind: (0 if kind in refused else 1, AFTER[kind]) for kind in WRITES}


def test_a_proxy_that_repeats_a_request_changes_nothing_more(counted: Server, key: str, tmp_path: Path) -> None:
    """nginx without the line that forbids it: `PUT` writes the same twice; nothing is appended or removed twice."""
    again = 0
    with lossy("nginx", counted, tmp_path, changed=not_sent("proxy_next_upstream")) as (front, network):
        for number, kind in enumerate(WRITES):
            changes, value = lose_the_answer(front, network, counted, f"{key}/{number}", kind)
            again += changes > 1
            assert value == AFTER[kind]
    assert again > 0, "nothing was sent again, so that this proves nothing"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("path", ["/kv", "/stream"])
def test_a_stream_that_was_cut_off_is_recognised_by_the_client(
    origin: Server, eight_megabytes: str, tmp_path: Path, name: str, path: str
) -> None:
    passed = 0

    def cut_in_the_middle(data: bytes) -> int | None:
        nonlocal passed
        passed += len(data)
        return 0 if passed > 2_000_000 else None

    with lossy(name, origin, tmp_path) as (front, network):
        network.to_client = cut_in_the_middle
        with suppress(httpx.RemoteProtocolError):
            cut = front.client.get(f"{path}?prefix={eight_megabytes}")
            assert cut.status_code >= 500, "it looks complete"  # the proxy had not begun its own answer yet
        network.to_client = None
        passed = 0
        assert front.client.get("/health/live").status_code == 200


def test_a_stream_through_a_proxy_with_http_1_0_is_refused_with_the_line_of_configuration(
    origin: Server, tmp_path: Path
) -> None:
    with fronted("nginx", origin.address[1], tmp_path, changed=not_sent("proxy_http_version")) as front:
        refused = front.client.get("/stream")
        assert (refusal(refused), "proxy_http_version 1.1" in refused.json()["message"]) == (
            (426, "upgrade_required"),
            True,
        )
        assert front.client.get("/health").status_code == 200


# Waiting for a lock -------------------------------------------------------------------------------------------


def without_tls(block: str) -> str:
    """HAProxy hears of a client of TLS that leaves in any case; of another one only with `option abortonclose`."""
    assert " ssl crt " in block
    return block.replace(" ssl crt /etc/ssl/db.example.com.pem", "")


@pytest.mark.parametrize(
    ("name", "changed"),
    [("nginx", str), ("haproxy", str), ("haproxy", without_tls)],
    ids=["nginx", "haproxy", "clear text"],
)
def test_a_client_that_disconnects_while_it_waits_for_a_lock_leaves_the_queue(
    origin: Server, key: str, tmp_path: Path, name: str, changed: Callable[[str], str]
) -> None:
    with fronted(name, origin.address[1], tmp_path, changed=changed) as front:
        origin.lease(key, ttl=600)
        with front.wire() as wire:
            body = b'{"wait": 60}'
            head = f"POST /locks/{key} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
            wire.send(head.encode() + body)
            until(lambda: origin.waiters(key) == 1)
        until(lambda: origin.waiters(key) == 0)


def test_a_client_that_waits_behind_a_proxy_gets_the_lock(front: Front, origin: Server, key: str) -> None:
    held = origin.lease(key, ttl=600)
    got: list[int] = []
    waiting = threading.Thread(
        target=lambda: got.append(front.client.post(f"/locks/{key}", json={"wait": 60}).status_code)
    )
    waiting.start()
    until(lambda: origin.waiters(key) == 1)
    origin.release(key, held["lease_id"])
    waiting.join()
    assert got == [201]


# The documentation page ---------------------------------------------------------------------------------------


def test_the_page_lists_the_proxies_that_are_not_tested() -> None:
    text = PAGE.read_text("utf-8")
    assert all(block_of(kind) for kind in KINDS.values())
    assert "Not tested here." in text.partition("\n## Caddy\n")[2].partition("\n## ")[0]

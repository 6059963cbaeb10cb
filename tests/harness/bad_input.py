"""Whatever is sent, every answer follows the contract, nothing leaks, nothing is damaged, and all engines answer alike.

The corpora and mutations of good requests (by a seed) are sent to a server of each engine, one after the other, each on
its own connection.
"""

import json
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from contract import INTERNALS, error_members, messagepack_sequence
from databases import STORES
from running import Answer, Server, message, running

from harness import Finding
from harness.corpora import SECRET, UUID, all_cases, bad_tokens, token

LAST: Final = message("GET", "/health/live", "Connection: close")
"""Sent after every case. It ends the connection, unless the server took it as a part of the case."""
PATIENCE_SECONDS: Final = 0.3
"""If no answer came by then, the server waits for more data and is told that none will come."""
ANSWER_SECONDS: Final = 20.0

KEPT: Final[Mapping[str, Any]] = {
    "kept-7d7f0c1e/null": None,
    "kept-7d7f0c1e/number": -1.5e-300,
    "kept-7d7f0c1e/large": 2**64 - 1,
    "kept-7d7f0c1e/text": "\u2028 🦊 \\u0000 \"'",
    "kept-7d7f0c1e/nested": {"a": [{"": [[]]}, {}, "x" * 10_000], "b": None},
}
"""Entries that must not change. Their names are too long for a mutation to produce."""
VARYING: Final = frozenset(
    {"revision", "request_id", "created_at", "updated_at", "saved_at", "expires_at", "acquired_at", "token", "lease_id"}
)
"""Members that may differ between engines."""
VARYING_TEXT: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A UUID that a server generated."""
NOT_IMPLEMENTED: Final = 501
"""The status for an unknown method, which is the fault of the caller."""
UNCOMPARED_HEADERS: Final = frozenset({"date", "x-request-id", "etag", "location", "content-length"})
LOCKED: Final = 423
UNCOMPARED_ROUTES: Final = re.compile(rb"/(health|metrics|openapi)")


# One request --------------------------------------------------------------------------------------------------


class Malformed(Exception):  # noqa: N818 - describes the server's answer
    """The received bytes are not HTTP."""


def exchange(address: tuple[str, int], sent: bytes) -> bytes:
    """Everything that the server sends in reply to `sent`, until it ends the connection."""
    received = bytearray()
    with socket.create_connection(address) as wire:
        with suppress(ConnectionError):  # refused before everything was sent; the answer can still be read
            wire.sendall(sent + LAST)
        wire.settimeout(PATIENCE_SECONDS)
        while True:
            try:
                part = wire.recv(1024 * 1024)
            except TimeoutError:
                if wire.gettimeout() == ANSWER_SECONDS:
                    raise Malformed("the connection was not ended") from None
                wire.settimeout(ANSWER_SECONDS)
                wire.shutdown(socket.SHUT_WR)
                continue
            except ConnectionResetError:
                return bytes(received)
            if not part:
                return bytes(received)
            received += part


_HEAD: Final = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [A-Za-z -]+\r\n((?:[A-Za-z-]+: [ -~]*\r\n)*)\r\n")


def answers(received: bytes, sent: bytes) -> Iterator[Answer]:
    """The responses in the received bytes. Raises Malformed."""
    position = 0
    while position < len(received):
        match = _HEAD.match(received, position)
        if match is None:
            raise Malformed(f"no head of a response: {received[position : position + 100]!r}")
        status, position = int(match[1]), match.end()
        pairs = [line.split(": ", 1) for line in match[2].decode("ascii").splitlines()]
        headers = {name.lower(): content for name, content in pairs}
        if len(headers) < len(pairs):
            raise Malformed(f"a header came twice: {match[2]!r}")
        is_bodyless = status < 200 or status in (204, 304)
        if not is_bodyless and b"HEAD" in sent and received[position : position + 9] in (b"", b"HTTP/1.1 "):
            is_bodyless = True
        body = b""
        if is_bodyless:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            body, position = _chunks(received, position)
        elif "content-length" in headers:
            end = position + int(headers["content-length"])
            if end > len(received):
                raise Malformed("the body is shorter than its Content-Length")
            body, position = received[position:end], end
        elif headers.get("connection") == "close":
            body, position = received[position:], len(received)
        else:
            raise Malformed("no length, and the connection stays open")
        yield Answer(status, headers, body)


def _chunks(received: bytes, position: int) -> tuple[bytes, int]:
    parts = []
    while True:
        match = re.compile(rb"([0-9a-f]+)\r\n").match(received, position)
        if match is None:
            raise Malformed(f"no chunk: {received[position : position + 50]!r}")
        end = match.end() + int(match[1], 16)
        if received[end : end + 2] != b"\r\n":
            raise Malformed("a chunk does not end")
        parts.append(received[match.end() : end])
        position = end + 2
        if match[1] == b"0":
            return b"".join(parts), position


def decoded(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "")
    if not answer.body:
        return None
    if kind == "application/vnd.msgpack":
        return messagepack_sequence(answer.body)
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in answer.body.splitlines()]
    return json.loads(answer.body) if kind == "application/json" else answer.body.decode()


def fault(answer: Answer) -> str | None:
    """How an answer violates the contract."""
    try:
        body = decoded(answer)
        if answer.status >= 500 and answer.status != NOT_IMPLEMENTED:
            return f"was answered {answer.status}: {answer.body[:200]!r}"
        if answer.status >= 400 and body is not None:
            [body] = body if isinstance(body, list) else [body]
            if error_members(answer.status, body)["request_id"] != answer.headers["x-request-id"]:
                return "has two request ids"
            if INTERNALS.search(repr(answer.headers)):
                return f"leaks {answer.headers}"
    except (AssertionError, ValueError, KeyError, msgspec.DecodeError) as error:
        return f"was answered {answer.status} against the contract: {error!r} {answer.body[:200]!r}"
    return None


def comparable(answer: Answer, sent: bytes) -> Any:
    """The parts of an answer that must be equal on every engine."""
    headers = {name: text for name, text in answer.headers.items() if name not in UNCOMPARED_HEADERS}
    if answer.status == LOCKED and "retry-after" in headers:
        headers["retry-after"] = "…"  # the remaining seconds differ between engines
    if UNCOMPARED_ROUTES.search(sent) and answer.status == 200:
        return answer.status, headers
    return answer.status, headers, json.dumps(_masked(decoded(answer)), sort_keys=True)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "…" if name in VARYING else _masked(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_masked(part) for part in value]
    return VARYING_TEXT.sub("…", value) if isinstance(value, str) and UUID not in value else value


# All engines --------------------------------------------------------------------------------------------------


@dataclass
class Engines:
    """A server of each engine. All of them get the same requests."""

    servers: Mapping[str, Server]
    finding: Finding

    def send(self, name: str, sent: bytes, *, expected: str = "") -> None:
        """Send a case to all servers, and record what is wrong with the answers."""
        seen: dict[str, Any] = {}
        for engine, server in self.servers.items():
            self.finding.figures["inputs"] += 1
            try:
                received = list(answers(exchange(server.address, sent), sent))
            except (Malformed, OSError) as error:
                self._note(engine, name, sent, f"broke off: {error!r}")
                continue
            for answer in received:
                self.finding.figures[f"answers {answer.status // 100}xx"] += 1
            for wrong in filter(None, map(fault, received)):
                self._note(engine, name, sent, wrong)
            final = [answer for answer in received if answer.status >= 200]
            first = _outcome(final[0]) if final else "nothing"
            if not first.startswith(expected):
                self._note(engine, name, sent, f"was answered {first}, not {expected}")
            seen[engine] = [comparable(answer, sent) for answer in received if fault(answer) is None]
        if any(other != next(iter(seen.values())) for other in seen.values()):
            self._note("the engines", name, sent, f"differ: {seen}"[:2000])

    def _note(self, engine: str, name: str, sent: bytes, wrong: str) -> None:
        self.finding.violations.append(f"{engine}: {name} {wrong}; sent {sent[:500]!r}")

    def keep(self) -> None:
        for server in self.servers.values():
            for key, value in KEPT.items():
                server.put(key, json.dumps(value))

    def check(self) -> None:
        """Check that all servers run and that the protected entries are unchanged."""
        for engine, server in self.servers.items():
            for key, value in KEPT.items():
                if json.dumps(server.value(key)) != json.dumps(value):
                    self.finding.violations.append(f"{engine}: {key} is {server.value(key)!r}")
            if "Traceback" in server.log():
                self.finding.violations.append(f"{engine}: the log has a fault: {server.log()[-2000:]}")


def _outcome(answer: Answer) -> str:
    try:
        return f"{answer.status} {decoded(answer)['error']}"
    except (ValueError, TypeError, KeyError):
        return str(answer.status)


def send_bad_input(folder: Path, seed: int, *, mutations: int, corpora: bool) -> Finding:
    """Send the corpora, if requested, and this many mutations to a server of each engine."""
    finding = Finding()
    with ExitStack() as stack:
        servers = {}
        for name, store in STORES.items():
            own = folder / name
            own.mkdir()
            own.chmod(0o755)
            servers[name] = stack.enter_context(running(store(own)))
        engines = Engines(servers, finding)
        engines.keep()
        if corpora:
            for case in all_cases():
                engines.send(case.name, case.sent, expected=case.expected)
        mutate = Mutator(random.Random(seed))
        for number in range(mutations):
            if number % 50 == 0:
                for request in PREPARATIONS:
                    engines.send("a preparation", request)
            engines.send(f"mutation {number} of {seed}", mutate())
        engines.check()
    finding.figures["mutations"] = mutations
    return finding


# Mutations ------------------------------------------------------------------------------------------------------

PREPARATIONS: Final = (
    message("PUT", "/kv/m/a", body=b'{"a":[1,{"b":null}],"text":"t"}'),
    message("PUT", "/kv/m/b", body=b'"b"'),
    message("POST", "/set", body=b'{"key":"%b","value":{"a":[]}}' % UUID.encode()),
    message("POST", "/locks/m/l", body=b'{"wait":0,"ttl":86400}'),
)
PATCH: Final = b'[{"op":"add","path":"/a/-","value":2},{"op":"move","from":"/text","path":"/moved"}]'
TRANSACTION: Final = (
    b'{"if":[{"key":"m/a","exists":true},{"key":"m/a","path":"/a/0","value":1},{"key":"m/b","revision":null}],'
    b'"do":[{"op":"put","key":"m/a","path":"/n","value":2,"ttl":86400},{"op":"merge","key":"m/b","value":{"x":null}},'
    b'{"op":"patch","key":"m/e","patch":[{"op":"add","path":"/-","value":1}]},{"op":"get","key":"m/a"}]}'
)
PACKED_TRANSACTION: Final = msgspec.msgpack.encode(
    {"if": [{"lease": "0" * 32}, {"key": "m/d", "revision": 7}], "do": [{"op": "delete", "key": "m/d"}]}
)
CHUNKED: Final = message("PUT", "/kv/m/c", "Transfer-Encoding: chunked") + b"3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
REQUESTS: Final = (
    message("GET", "/kv/m/a"),
    message("GET", "/kv/m/a?path=/a/0&path=/text", "Accept: application/vnd.msgpack;q=0.5, */*;q=0.1"),
    message("GET", "/kv/m/b?raw", 'If-None-Match: "1-raw"'),
    message("HEAD", "/kv/m/a"),
    message("GET", "/kv?prefix=m/&after=m/a&limit=10&values=true"),
    message("GET", "/kv?prefix=m/a", "Accept: application/vnd.msgpack"),
    message("PUT", "/kv/m/a", "If-Match: *", "Prefer: return=minimal", body=b'{"a":[1,{"b":null}],"n":-1.5e3}'),
    message("POST", "/kv/m/d?ttl=86400", "X-Request-Id: abc", body=b'{"text":"\\u00e9\\ud83c\\udf89","t":true}'),
    message("PUT", "/kv/m/a?path=/a/0", "Content-Type: application/json; charset=utf-8", body=b"[1,2,[3]]"),
    message(
        "PUT", "/kv/m/e", "Content-Type: application/vnd.msgpack", body=msgspec.msgpack.encode({"a": [1, "x", 2.5]})
    ),
    message("PATCH", "/kv/m/a", "Content-Type: application/merge-patch+json", body=b'{"a":null,"x":{"y":1}}'),
    message("PATCH", "/kv/m/a", "Content-Type: application/json-patch+json", body=PATCH),
    message("DELETE", "/kv/m/a?path=/a/0", 'If-Match: "1", "2"'),
    message("DELETE", "/kv/m/a?path=/a"),
    message("DELETE", "/kv/m/b", 'If-Match: "1", "2"'),
    message("POST", "/set", body=b'{"key":"%b","value":1,"path":["a","-"],"ttl":86400}' % UUID.encode()),
    message("POST", "/txn?current", body=TRANSACTION),
    message("POST", "/txn", "Content-Type: application/vnd.msgpack", body=PACKED_TRANSACTION),
    message("GET", "/kv?key=m/a&key=m/b&key=m/absent&values=false"),
    message("DELETE", "/kv?prefix=m/d"),
    message("GET", f"/get/{UUID}?path=/a"),
    message("GET", f"/stream/{UUID}"),
    message("GET", "/stream?prefix=m/", "Accept: application/x-ndjson"),
    message("POST", "/locks/m/l", body=b'{"ttl":86400,"wait":0,"owner":{"host":"a"}}'),
    message("PUT", "/locks/m/l", body=b'{"lease_id":"0123456789abcdef0123456789abcdef","ttl":86400}'),
    message("DELETE", "/locks/m/l?lease_id=0123456789abcdef0123456789abcdef"),
    message("GET", "/locks?prefix=m/l&limit=10"),
    message("POST", "/lock", body=b'{"lock_id":"%b","wait":0,"ttl":86400}' % UUID.encode()),
    message("DELETE", f"/unlock?lock_id={UUID}&token=7"),
    message("DELETE", "/locks/m/l?force"),
    message("PUT", "/kv/m/f", "If-Lease: 0123456789abcdef0123456789abcdef", body=b"1"),
    message("PUT", "/kv/m/g", "Authorization: Bearer a.b.c", "Origin: http://localhost", body=b"1"),
    message("LOCK", "/terraform/m/t?ttl=86400", body=b'{"ID":"a","Who":"b","Created":"2026-01-31T12:00:00Z"}'),
    message("POST", "/terraform/m/t/lock", body=b'{"ID":"b"}'),
    message("POST", "/terraform/m/t?ID=a", body=b'{"serial":123456789012345678901234567890}'),
    message("PUT", "/terraform/m/t", "Authorization: Basic YTpi", body=b"[]\n"),
    message("GET", "/terraform/m/t"),
    message("GET", "/terraform/m/t?version=7"),
    message("GET", "/terraform/m/t/versions"),
    message("UNLOCK", "/terraform/m/t", body=b'{"ID":"a"}'),
    message("DELETE", "/terraform/m/t/lock"),
    message("DELETE", "/terraform/m/t?ID=a"),
    CHUNKED,
    CHUNKED + message("GET", "/kv/m/c"),
    message("PUT", "/kv/m/h", "Expect: 100-continue", body=b"1"),
    message("GET", "/health"),
    message("GET", "/metrics"),
)
"""Good requests of every route. Mutations start from these."""
PIECES: Final = (
    *(bytes([byte]) for byte in b"\0\r\n \t\x7f\xff%/?&=#:;,\"\\{}[]-+.019eE*'<>_"),
    *(b"\r\n", b"\r\n\r\n", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(b"%00", b"%2e%2e", b"%ff", b"//", b"/..", b"\\u0000", b"\\ud800", b"W/", b"0x"),
    *(b"1e309", b"18446744073709551616", b"-0", b"NaN", b"null", b"true"),
    *(b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"Connection: close\r\n"),
    *(b"HTTP/1.0", b"GET", b"HEAD", b"DELETE"),
)


class Mutator:
    """Changes a good request, mostly into a bad one."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            self._flip,
            self._set,
            self._insert,
            self._insert,
            self._remove,
            self._double,
            self._cut,
            self._swap,
            self._take,
        )

    def __call__(self) -> bytes:
        text = bytearray(self._rng.choice(REQUESTS))
        for _ in range(self._rng.choice((1, 1, 1, 2, 3, 8))):
            if text:
                self._rng.choice(self._ways)(text)
        return bytes(text)

    def _span(self, text: bytearray) -> slice:
        begin = self._rng.randrange(len(text))
        return slice(begin, begin + self._rng.choice((1, 1, 2, 4, 16, 64)))

    def _flip(self, text: bytearray) -> None:
        text[self._rng.randrange(len(text))] ^= 1 << self._rng.randrange(8)

    def _set(self, text: bytearray) -> None:
        text[self._rng.randrange(len(text))] = self._rng.randrange(256)

    def _insert(self, text: bytearray) -> None:
        place = self._rng.randrange(len(text) + 1)
        text[place:place] = self._rng.choice(PIECES) * self._rng.choice((1, 1, 1, 2, 200))

    def _remove(self, text: bytearray) -> None:
        del text[self._span(text)]

    def _double(self, text: bytearray) -> None:
        span = self._span(text)
        text[span.stop : span.stop] = text[span] * self._rng.choice((1, 1, 2, 50))

    def _cut(self, text: bytearray) -> None:
        del text[self._rng.randrange(len(text)) :]

    def _swap(self, text: bytearray) -> None:
        one, other = self._span(text), self._span(text)
        text[one], text[other] = text[other], text[one]

    def _take(self, text: bytearray) -> None:
        """A piece of another request, from a random place."""
        other = self._rng.choice(REQUESTS)
        begin = self._rng.randrange(len(other))
        text[self._span(text)] = other[begin : begin + self._rng.randrange(1, 40)]


# Tokens ---------------------------------------------------------------------------------------------------------

ROUTES: Final = (
    ("GET", "/kv/a"),
    ("PUT", "/kv/a"),
    ("GET", "/stream"),
    ("POST", "/locks/a"),
    ("LOCK", "/terraform/a"),
    ("GET", "/health"),
)


def send_bad_tokens(folder: Path, public_pem: bytes) -> Finding:
    """Send bad tokens to a server with a secret and to one with the public key `public_pem`. Each must get the same
    401."""
    finding = Finding()
    (folder / "secret").write_bytes(SECRET)
    (folder / "public.pem").write_bytes(public_pem)
    settings = (
        ("secret", {"LEASEHOLD_AUTH_SECRET_FILE": str(folder / "secret")}),
        ("public key", {"LEASEHOLD_AUTH_PUBLIC_KEY_FILE": str(folder / "public.pem")}),
    )
    for kind, environment in settings:
        with running(environment=environment) as server:
            if kind == "secret":
                good = server.get("absent", headers={"Authorization": f"Bearer {token()}"}).status_code
                if good != 404:
                    finding.violations.append(f"a good token was answered {good}")
            for name, text in bad_tokens(public_pem):
                for method, target in ROUTES:
                    finding.figures["tokens"] += 1
                    sent = message(method, target, f"Authorization: Bearer {text}", body=b"1")
                    [answer, *_] = answers(exchange(server.address, sent), sent)
                    wrong = fault(answer)
                    if wrong is None and _outcome(answer) != "401 unauthenticated":
                        wrong = f"was answered {_outcome(answer)}"
                    if wrong is not None:
                        finding.violations.append(f"{kind}: {name} {wrong}; {method} {target}")
            log = server.log()
            if "Traceback" in log or any(text in log for _, text in bad_tokens(public_pem) if len(text) > 20):
                finding.violations.append(f"{kind}: the log has a fault or a token: {log[-2000:]}")
    return finding

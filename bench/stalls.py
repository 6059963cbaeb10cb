"""The longest stall of the event loop, caused by the worst requests that are known.

To add one, add it to `worst_requests`. All are within the limits of the service, or are refused only after work has
been done.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from bench.catching_up import MARKS, catch_up, write_changes
from bench.processes import BenchError
from bench.service import Leasehold
from bench.workload import MIB, http_request
from leasehold.limits import MAX_CONTAINERS

_ANSWER_SECONDS: Final = 60.0
_TOLD: Final = re.compile(rb"longest turn: ([0-9.]+) ms, ([0-9.]+) ms")
_CONTAINERS: Final = MAX_CONTAINERS - 100
"""Lists and objects in one value; slightly fewer than the service allows."""
_PATCHES: Final = {"json": "application/json-patch+json", "merge": "application/merge-patch+json"}
_MESSAGEPACK: Final = "application/vnd.msgpack"


class Attack(msgspec.Struct, frozen=True):
    """Requests that one client sends at once. `value`: stored under the key `worst` before.

    `clients`: how many clients send them at the same moment.
    """

    name: str
    requests: tuple[tuple[str, str, Mapping[str, str], bytes | None], ...]
    value: bytes | None = None
    clients: int = 1


def _filled(item: bytes, count: int | None = None, *, size: int = MIB) -> bytes:
    count = (size - 2) // (len(item) + 1) if count is None else count
    return b"[" + b",".join([item] * count) + b"]"


def _packed(item: bytes, count: int | None = None) -> bytes:
    count = (MIB - 5) // len(item) if count is None else count
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def _with_strings(item: bytes, count: int | None = None) -> bytes:
    """The allowed number of lists, among them `count` times `item`, and strings whose bytes look like lists."""
    count = _CONTAINERS - 1 if count is None else count
    others, strings = _CONTAINERS - 1 - count, 100_000
    header = b"\xdd" + (count + others + strings).to_bytes(4, "big")
    return header + item * count + b"\x90" * others + b"\xa3\xe8\x80\x80" * strings


_NESTED: Final = _filled(b"[" * 126 + b"]" * 126, _CONTAINERS // 127)
_NESTED_AND_NUMBERS: Final = _NESTED[:-1] + b"," + _filled(b"1", size=MIB - len(_NESTED) - 10)[1:]
_OBJECTS: Final = _filled(b'{"a":' * 126 + b"1" + b"}" * 126, _CONTAINERS // 127)
_MEMBERS: Final = b"{" + b",".join(b'"%x":1' % number for number in range(109_000)) + b"}"
_BODIES: Final[Mapping[str, bytes]] = {
    "numbers": _filled(b"1"),
    "floats": _filled(b"1.5"),
    "floats that grow": _filled(b"1e15"),
    "minus zeros": _filled(b"-0"),
    "minus zeros in strings": _filled(b'"-0"')[:-4] + b"-0]",
    "strings": _filled(b'"a"'),
    "lists": _filled(b"[]", _CONTAINERS),
    "pairs": _filled(b"[1.25,-2.512345]", _CONTAINERS - 1),
    "too many lists": _filled(b"[]"),
    "nested lists": _NESTED,
    "nested lists and numbers": _NESTED_AND_NUMBERS,
    "nested objects": _OBJECTS,
    "members": _MEMBERS,
    "escaped zeros": b'["' + b"\\u0001" * 174_000 + b'"]',
    "large integers": _filled(b"12345678901234567890"),
    "brackets that never close": b"[" * MIB,
}
_PACKED_BODIES: Final[Mapping[str, bytes]] = {
    "empty maps": _packed(b"\x80"),
    "numbers": _packed(b"\x01"),
    "falses": _packed(b"\xc2"),
    "short strings": _packed(b"\xa3\xe4\xb8\x80"),
    "lists of one": _packed(b"\x91\x01"),
    "nested lists": _packed(b"\x91" * 126 + b"\x90", _CONTAINERS // 127),
    "large headers": _packed(b"\xdc\x00\x00"),
    "lists, and strings that look like lists": _with_strings(b"\x91\x01"),
    "lists of strings written long, and strings that look like lists": _with_strings(b"\x91\xdb\0\0\0\0"),
    "lists of long strings, and strings that look like lists": _with_strings(b"\x91\xda\x01\x00" + b"a" * 256, 2_000),
}


def worst_requests() -> Iterator[Attack]:
    """Each kind of request with the input that costs most."""
    json, packed = {"Content-Type": "application/json"}, {"Content-Type": _MESSAGEPACK}
    as_packed = {"Accept": _MESSAGEPACK}
    for name, body in _BODIES.items():
        yield Attack(f"PUT: {name}", (("PUT", "/kv/worst", json, body),))
        yield Attack(f"PUT answered as MessagePack: {name}", (("PUT", "/kv/worst", json | as_packed, body),))
    for name, body in _PACKED_BODIES.items():
        yield Attack(f"PUT of MessagePack: {name}", (("PUT", "/kv/worst", packed, body),))
    yield Attack("POST /set: numbers", (("POST", "/set", json, b'{"value":%b}' % _filled(b"1", size=MIB - 20)),))
    for name in ("numbers", "floats", "pairs", "nested lists and numbers", "nested objects", "members"):
        value = _BODIES[name]
        yield Attack(f"PUT of a part, 100 at once: {name}", (("PUT", "/kv/worst?path=/0", json, b"1"),) * 100, value)
        yield Attack(f"PUT of a part, 100 clients: {name}", (("PUT", "/kv/worst?path=/0", json, b"1"),), value, 100)
        yield Attack(f"GET of 100 parts: {name}", (("GET", f"/kv/worst?{'&'.join(['path='] * 100)}", {}, None),), value)
        yield Attack(f"GET of a part, 100 at once: {name}", (("GET", "/kv/worst?path=/0", {}, None),) * 100, value)
        yield Attack(f"GET as MessagePack, 20 at once: {name}", (("GET", "/kv/worst", as_packed, None),) * 20, value)
        yield Attack(f"GET /stream: {name}", (("GET", "/stream", {}, None),), value)
        yield Attack(f"GET /kv as MessagePack: {name}", (("GET", "/kv", as_packed, None),), value)
    yield from _patches()
    paths = "&".join(f"path=/{number}" for number in range(1_100))
    yield Attack("GET with 1,100 parameters", (("GET", f"/kv/worst?{paths}"[:8_000], {}, None),))
    owner = b'{"owner":%b}' % _filled(b"1", size=MIB - 20)
    yield Attack("POST of a lock: owner", (("POST", "/locks/worst", json, owner),))


def _patches() -> Iterator[Attack]:
    steps = {
        "moves in a long list": (_BODIES["numbers"], b'{"op":"move","from":"/0","path":"/-"}', 10_000),
        "insertions in a long list": (_BODIES["numbers"], b'{"op":"add","path":"/0","value":1}', 10_000),
        "removals in a long list": (_BODIES["numbers"], b'{"op":"remove","path":"/0"}', 10_000),
        "additions": (b"[]", b'{"op":"add","path":"/-","value":[1]}', 10_000),
        "long paths": (b"[" * 24 + b"]" * 24, b'{"op":"add","path":"%b","value":0}' % (b"/0" * 50), 7_900),
        "escaped paths": (b"{}", b'{"op":"move","from":"%b","path":"%b"}' % (b"/~0" * 15, b"/~1" * 15), 7_900),
    }
    headers = {"Content-Type": _PATCHES["json"]}
    for name, (value, step, count) in steps.items():
        yield Attack(f"JSON patch: {name}", (("PATCH", "/kv/worst", headers, _filled(step, count)),), value)
    for name in ("numbers", "lists", "nested lists", "nested objects", "members"):
        tested = b'[{"op":"test","path":"","value":%b}]'
        value = _BODIES[name] if len(_BODIES[name]) < MIB - 100 else _filled(b"1", size=MIB - 100)
        yield Attack(f"JSON patch: test of {name}", (("PATCH", "/kv/worst", headers, tested % value),), value)
    booleans = _filled(b"[true]", _CONTAINERS)
    tested = b'[{"op":"test","path":"","value":%b}]' % booleans
    yield Attack("JSON patch: test of booleans", (("PATCH", "/kv/worst", headers, tested),), booleans)
    members = b"{%b}" % b",".join(
        b'"%d":%b' % (each, b'{"a":' * 126 + b"1" + b"}" * 126) for each in range(_CONTAINERS // 127)
    )
    headers = {"Content-Type": _PATCHES["merge"]}
    for value in (b"{}", members):
        yield Attack("merge patch: nested members", (("PATCH", "/kv/worst", headers, members),), value)
    yield Attack("merge patch: members", (("PATCH", "/kv/worst", headers, _MEMBERS),), _MEMBERS)
    yield Attack("merge patch: nothing", (("PATCH", "/kv/worst", headers, b"{}"),), _BODIES["nested objects"])


PROCESSOR: Final = 1
"""A `ProbedLeasehold.clock`."""


class ProbedLeasehold(Leasehold):
    """The service with a probe in its event loop. `program`: the command `bench.probe`.

    It runs only while the stalls are measured: its event loop never waits, so it would take a core from other loads.
    """

    clock = 0
    """0: the elapsed time of the longest stall; 1: its processor time."""

    def stalls(self) -> Mapping[str, float]:
        """Stalls in milliseconds, by the name of the attack."""
        with self._started():
            return self._stalls()

    def _stalls(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for attack in worst_requests():
            self.succeed(self.put("worst", b"0" if attack.value is None else attack.value))
            self._longest_turn()
            self._send(attack)
            found[attack.name] = max(found.get(attack.name, 0.0), self._longest_turn())
        return found

    def catch_up_stalls(self) -> Mapping[str, float]:
        """Processor time, in milliseconds, of the longest stall while a watcher catches up, by media type."""
        found = {}
        with self._started():
            cursor = write_changes(self)
            for media in MARKS:
                self._longest_turn()
                catch_up(self, cursor, media)
                found[media] = self._longest_turn(PROCESSOR)
        return found

    @contextmanager
    def _started(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()

    def _send(self, attack: Attack) -> None:
        """Send all requests at once and wait for the last answer."""
        requests = [
            http_request(method, target, {**self.headers(), **fields}, body)
            for method, target, fields, body in attack.requests
        ]
        end = http_request("GET", "/health/live", {**self.headers(), "Connection": "close"})
        with ExitStack() as stack:
            address = ("127.0.0.1", self.port)
            connections = [
                stack.enter_context(socket.create_connection(address, timeout=_ANSWER_SECONDS))
                for _ in range(attack.clients)
            ]
            for connection in connections:
                connection.sendall(b"".join([*requests, end]))
            for connection in connections:
                received = b""
                while part := connection.recv(MIB):
                    received = received[-100:] + part
                if not received.rstrip().endswith(b"}"):
                    raise BenchError(f"{attack.name}: the connection ended with {received[-80:]!r}")

    def _longest_turn(self, clock: int | None = None) -> float:
        log = self.folder / "log"
        before = len(_TOLD.findall(log.read_bytes()))
        os.kill(self._process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            told = _TOLD.findall(log.read_bytes())
            if len(told) > before:
                return float(told[-1][self.clock if clock is None else clock])
            time.sleep(0.001)
        raise BenchError("the probe does not answer")

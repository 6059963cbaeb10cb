"""The worst requests that are known: each kind of request with the input that costs most.

To add one, add it to `worst_requests`. All are within the limits of the service, or are refused only after work has
been done.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from bench.workload import MIB
from leasehold.limits import MAX_CONTAINERS, MAX_STATE_BRACKETS, MAX_STATE_COMMAS, MAX_UNSENT_BYTES, Limits

_CONTAINERS: Final = MAX_CONTAINERS - 100
"""Lists and objects in one value; slightly fewer than the service allows."""
_PATCHES: Final = {"json": "application/json-patch+json", "merge": "application/merge-patch+json"}
_MESSAGEPACK: Final = "application/vnd.msgpack"


class Attack(msgspec.Struct, frozen=True):
    """Requests that one client sends at once. `value`: stored under the key `worst` before.

    `clients`: how many clients send them at the same moment. `entries`: other entries that are stored before, and
    deleted after. `form`: attacks with the same form differ only in their values; empty: there is no other one.
    """

    name: str
    requests: tuple[tuple[str, str, Mapping[str, str], bytes | None], ...]
    value: bytes | None = None
    clients: int = 1
    entries: Mapping[str, bytes] = {}
    form: str = ""


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
    "minus zeros in strings": _filled(b'"-0"')[:-5] + b"-0]",
    "strings": _filled(b'"a"'),
    "lists": _filled(b"[]", _CONTAINERS),
    "pairs": _filled(b"[1.25,-2.512345]", _CONTAINERS - 1),
    "too many lists": _filled(b"[]"),
    "nested lists": _NESTED,
    "nested lists and numbers": _NESTED_AND_NUMBERS,
    "nested objects": _OBJECTS,
    "members": _MEMBERS,
    "members and lists": _MEMBERS[:-1] + b',"g":' + _filled(b"[]", 130) + b"}",
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
        yield Attack(
            f"PUT of a part, 100 clients: {name}",
            (("PUT", "/kv/worst?path=/0", json, b"1"),),
            value,
            100,
            form="a part",
        )
        yield Attack(f"GET of 100 parts: {name}", (("GET", f"/kv/worst?{'&'.join(['path='] * 100)}", {}, None),), value)
        yield Attack(f"GET of a part, 100 at once: {name}", (("GET", "/kv/worst?path=/0", {}, None),) * 100, value)
        yield Attack(f"GET as MessagePack, 20 at once: {name}", (("GET", "/kv/worst", as_packed, None),) * 20, value)
        yield Attack(f"GET /stream: {name}", (("GET", "/stream", {}, None),), value)
        yield Attack(f"GET /kv as MessagePack: {name}", (("GET", "/kv", as_packed, None),), value)
    floats = b'{"a":{"b":%b}}' % _filled(b"1.5", size=MIB - 20)
    for name, target in {"a part": "path=/a/b", "parts of each other": "path=/a&path=/a/b&path=/a/b/0"}.items():
        yield Attack(f"GET of {name}: many floats", (("GET", f"/kv/worst?{target}", {}, None),), floats)
    yield from _patches()
    yield from _transactions()
    yield from _lists()
    paths = "&".join(f"path=/{number}" for number in range(1_100))
    yield Attack("GET with 1,100 parameters", (("GET", f"/kv/worst?{paths}"[:8_000], {}, None),))
    yield from _states(json)
    owner = b'{"owner":%b}' % _filled(b"1", size=MIB - 20)
    yield Attack("POST of a lock: owner", (("POST", "/locks/worst", json, owner),))


def _states(headers: Mapping[str, str]) -> Iterator[Attack]:
    """Saves of the largest state. The second save also keeps the first one as a version."""
    size = Limits().max_state_bytes
    nested = _filled(b"[" * 126 + b"]" * 126, (MAX_STATE_BRACKETS - 2) // 126)
    numbers = _filled(b"1", MAX_STATE_COMMAS - len(nested) // 253)[:-1]
    escapes = (size - len(numbers) - 10) // 2
    states = {
        "numbers": numbers + b"," + b"1" * (size - len(numbers) - 10) + b"]",
        "numbers and escapes": numbers + b',"' + b"\\n" * escapes + b'"]',
        "characters": b'"%b"' % ("\U0001f600".encode() * (size // 4 - 1)),
        "nested lists and numbers": nested[:-1] + b"," + numbers[1:] + b"," + b"1" * (2 * escapes - len(nested)) + b"]",
        "too many lists": _filled(b"[]", size=size),
        "too many numbers": _filled(b"1", size=size),
    }
    for name, state in states.items():
        yield Attack(f"POST of two states: {name}", (("POST", "/terraform/worst", headers, state),) * 2)
        twice = tuple(
            ("POST", "/terraform/worst", {**headers, "Idempotency-Key": f"{name} {number}"}, state) for number in (1, 2)
        )
        yield Attack(f"POST of two states with an Idempotency-Key: {name}", twice)
    save = ("POST", "/terraform/worst", headers, b'"%b"' % (b"a" * (size - 2)))
    reads: Mapping[str, tuple[str, Mapping[str, str]]] = {
        "GET of a state": ("/terraform/worst", {}),
        "GET of the bytes of a state": ("/kv/terraform/worst", {"Accept": "*/*"}),
        "GET of a state in base64": ("/kv/terraform/worst?base64", {"Accept": "application/json"}),
        "GET of a state as MessagePack": ("/kv/terraform/worst", {"Accept": _MESSAGEPACK}),
        "GET /kv of states in base64": ("/kv?base64&prefix=terraform/", {}),
        "GET /kv of states as MessagePack": ("/kv?prefix=terraform/", {"Accept": _MESSAGEPACK}),
        "GET /stream of states in base64": ("/stream?base64&prefix=terraform/", {}),
        "GET /backup of states": ("/backup", {}),
    }
    for name, (target, fields) in reads.items():
        yield Attack(f"{name}, after a POST", (save, ("GET", target, fields, None)))


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


# Several entries ----------------------------------------------------------------------------------------------

_SEVERAL: Final = 128
"""The most operations of a transaction, and keys of a read."""
_KINDS: Final = ("numbers", "floats", "pairs", "lists", "nested objects", "members")


def _several(kind: str, size: int) -> Mapping[str, bytes]:
    """Entries with as many values of one kind as there may be, which together have up to `size` bytes."""
    size = size // _SEVERAL - 64
    containers = _CONTAINERS // _SEVERAL - 4  # those of the operation that stores it are counted, too
    values = {
        "numbers": _filled(b"1", size=size),
        "floats": _filled(b"1.5", size=size),
        "pairs": _filled(b"[1.25,-2.512345]", min(containers - 1, size // 17)),
        "lists": _filled(b"[]", min(containers - 1, size // 3)),
        "nested objects": _filled(b'{"a":' * 100 + b"1" + b"}" * 100, min(containers // 101, size // 610)),
        "members": b"{" + b",".join(b'"%x":1' % number for number in range(size // 9)) + b"}",
    }
    return {f"several/{number}": values[kind] for number in range(_SEVERAL)}


def _transaction(*operations: bytes, checks: Sequence[bytes] = ()) -> bytes:
    return b'{"if":[%b],"do":[%b]}' % (b",".join(checks), b",".join(operations))


_GET_WORST: Final = b'{"op":"get","key":"worst"}'


def _most_clients(entries: Mapping[str, bytes], headers: Mapping[str, str]) -> int:
    """How many clients may be sent all entries at the same moment: up to 100.

    More unsent bytes than MAX_UNSENT_BYTES end connections. A quarter is left for the rest of the answers.
    """
    values = list(entries.values())
    if "Accept" in headers:
        values = [msgspec.msgpack.encode(msgspec.json.decode(value)) for value in values]
    return min(100, MAX_UNSENT_BYTES * 3 // 4 // sum(map(len, values)))


def _transactions() -> Iterator[Attack]:
    json = {"Content-Type": "application/json"}
    packed = json | {"Accept": _MESSAGEPACK}

    def attack(
        name: str, body: bytes, *, value: bytes | None = None, entries: Mapping[str, bytes] | None = None
    ) -> Attack:
        return Attack(f"POST /txn: {name}", (("POST", "/txn", json, body),), value, entries=entries or {})

    for kind in _KINDS:
        small, large = _several(kind, MIB - 32 * _SEVERAL), _several(kind, 2 * MIB)
        sent = [(key.encode(), value) for key, value in small.items()]
        puts = [b'{"op":"put","key":"%b","value":%b}' % each for each in sent]
        yield attack(f"128 puts of {kind}", _transaction(*puts))
        merges = [b'{"op":"merge","key":"%b","value":%b}' % each for each in sent]
        yield attack(f"128 merges of {kind}", _transaction(*merges), entries=small)
        checks = [b'{"key":"%b","value":%b}' % each for each in sent]
        yield attack(f"128 checks of {kind}", _transaction(_GET_WORST, checks=checks), entries=small)
        parts = [b'{"op":"put","key":"%b","path":"/0","value":1}' % key for key, _ in sent]
        yield attack(f"128 puts of parts of {kind}", _transaction(*parts), entries=small)
        tested = b'{"op":"patch","key":"%b","patch":[{"op":"test","path":"","value":%b}]}'
        tests = [tested % each for each in sent[:120]]
        yield attack(f"120 tests of {kind}", _transaction(*tests), entries=small)
        gets = _transaction(*(b'{"op":"get","key":"%b"}' % key for key, _ in sent))
        yield attack(f"128 gets of {kind}", gets, entries=large)
        yield Attack(f"POST /txn as MessagePack: 128 gets of {kind}", (("POST", "/txn", packed, gets),), entries=large)
        failing = [b'{"key":"%b","revision":null}' % key for key, _ in sent]
        shown = _transaction(_GET_WORST, checks=failing)
        yield Attack(
            f"POST /txn as MessagePack: failed checks of {kind}",
            (("POST", "/txn?current", packed, shown),),
            entries=large,
        )
        checks = [b'{"key":"worst","path":"/0","value":0}'] * _SEVERAL
        yield attack(f"128 checks of parts of {kind}", _transaction(_GET_WORST, checks=checks), value=_BODIES[kind])
        one = b'{"op":"put","key":"worst","value":%b}'
        body = _BODIES[kind] if len(_BODIES[kind]) < MIB - 100 else _filled(b"1", size=MIB - 100)
        yield attack(f"one put of {kind}", _transaction(one % body))
        for form, headers in (("", json), (" as MessagePack", packed)):
            asked = (("POST", "/txn", headers, gets),)
            clients = _most_clients(large, headers)
            name = f"POST /txn{form}, {clients} clients: 128 gets of {kind}"
            yield Attack(name, asked, None, clients, large, form=f"gets{form}")
        asked, clients = (("POST", "/txn?current", packed, shown),), _most_clients(large, packed)
        name = f"POST /txn as MessagePack, {clients} clients: failed checks of {kind}"
        yield Attack(name, asked, None, clients, large, form="failed checks")
        asked = (("POST", "/txn", json, _transaction(*tests)),)
        yield Attack(f"POST /txn, 100 clients: 120 tests of {kind}", asked, None, 100, small, form="tests")
    steps = _filled(b'{"op":"add","path":"/-","value":[1]}', 6_000 // _SEVERAL)
    patches = [b'{"op":"patch","key":"several/%d","patch":%b}' % (number, steps) for number in range(_SEVERAL)]
    lists = {f"several/{number}": b"[]" for number in range(_SEVERAL)}
    yield attack("128 patches", _transaction(*patches), entries=lists)
    increment = b'{"op":"increment","key":"several/%d","path":"%b","value":1}'
    increments = [increment % (number, b"/a" * 100) for number in range(_SEVERAL)]
    yield attack("128 increments at long paths", _transaction(*increments))
    increments = [increment % (number, b"/n") for number in range(_SEVERAL)]
    for kind in _KINDS:
        counters = {key: b'{"n":1,"a":%b}' % value for key, value in _several(kind, MIB - 32 * _SEVERAL).items()}
        yield attack(f"128 increments beside {kind}", _transaction(*increments), entries=counters)
    yield attack("too many operations", _transaction(*([b'{"op":"get","key":"a"}'] * 40_000)))


def _lists() -> Iterator[Attack]:
    as_packed = {"Accept": _MESSAGEPACK}
    forms: Mapping[str, Mapping[str, str]] = {"": {}, " as MessagePack": as_packed}
    keys = "&".join(f"key=several/{number}" for number in range(_SEVERAL))
    queries = {
        "a part": "path=/0",
        "a part that is absent": "path=/absent",
        "the count of those with a part": "path=/0&count",
        "100 parts": "&".join(f"path=/{number}" for number in range(100)),
        "the whole value as a part": "path=",
        "a part, reversed": "reverse&path=/0",
    }
    for kind in _KINDS:
        large, whole = _several(kind, 8 * MIB), {f"several/{number}": _BODIES[kind] for number in range(8)}
        for form, headers in forms.items():
            yield Attack(f"GET /kv?key={form}: 128 {kind}", (("GET", f"/kv?{keys}", headers, None),), entries=large)
            for name, query in queries.items():
                asked = (("GET", f"/kv?{query}", headers, None),)
                yield Attack(f"GET /kv{form}, {name}: {kind}", asked, entries=whole)
        same = "&".join(["key=worst"] * 8)
        asked = (("GET", f"/kv?{same}", as_packed, None),)
        yield Attack(f"GET /kv?key= as MessagePack, one 8 times: {kind}", asked, _BODIES[kind])
        asked = (("GET", f"/kv?{keys}", as_packed, None),)
        name = f"GET /kv?key= as MessagePack, 100 clients: 128 {kind}"
        yield Attack(name, asked, None, 100, large, form="several entries")
        asked = (("GET", "/kv?path=/0", {}, None),)
        yield Attack(f"GET /kv, a part, 100 clients: {kind}", asked, _BODIES[kind], 100, form="a list of parts")
        yield Attack(f"DELETE /kv?prefix= of {kind}", (("DELETE", "/kv?prefix=several/", {}, None),), entries=whole)
    queries = {
        "whole": "",
        "reversed": "reverse",
        "a reversed page": "reverse&limit=5000",
        "the count": "count",
        "without values": "values=false",
        "the whole value as a part": "path=",
        "a part that is absent": "path=/a",
    }
    small = {f"several/{number:05}": b"1" for number in range(5_000)}
    for name, query in queries.items():
        for form, headers in forms.items():
            for route in ("/kv", "/get"):
                asked = (("GET", f"{route}?{query}", headers, None),)
                yield Attack(f"GET {route} of 5,000{form}, {name}", asked, entries=small)
        asked = (("GET", f"/kv?{query}", {}, None),)
        yield Attack(f"GET /kv of 5,000, {name}, 100 clients", asked, clients=100, entries=small)
    yield Attack("DELETE /kv?prefix= of 5,000", (("DELETE", "/kv?prefix=several/", {}, None),), entries=small)

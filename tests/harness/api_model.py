"""Random sequences of requests to `/kv`, to `/locks` and by UUID, compared with plain dictionaries, on every engine.

The model has the rules in the simplest form: values are copied, changed by short recursions, and compared. It predicts
the status, value and revision of every answer, and that refused requests change nothing.
"""

import base64
import copy
import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
from contract import sequence
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from running import Server, running

from harness import Finding

STEPS = 40
ABSENT: Any = ...

NAMES = ["a", "b", "0", "-", "x/y", "m~n", ""]
ENDS_OF_UUIDS = ["abcd-4000-8000-00000000000a", "abcd-4000-8000-00000000000b"]
"""With the folder in front they are UUIDs."""
UUIDS = st.sampled_from(ENDS_OF_UUIDS)
KEYS = st.sampled_from(["a", "a/b", "ab", "ä", "🦊", "\uffff", "b b", "c%", *ENDS_OF_UUIDS])
SEGMENTS = st.lists(st.sampled_from([*NAMES, "1", "2", "01"]), max_size=3).map(tuple)
LEAVES = st.none() | st.booleans() | st.integers(-2, 2**64 - 1) | st.sampled_from(["", "text", "🦊", 1.5, 1e300])
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(NAMES), parts, max_size=3),
    max_leaves=8,
)
NO_LEASE = "0" * 32


class Condition(NamedTuple):
    """The preconditions of a change: the revision of the entry, and a lease."""

    of_entry: str
    of_lease: str | None


CONDITIONS = st.builds(
    Condition,
    st.sampled_from(["none"] * 6 + ["matches", "matches any", "stale", "none matches", "must be new"]),
    st.sampled_from([None] * 6 + ["alive", "alive", "former", "unknown"]),
)
LOCKS = st.sampled_from(["a", "a/b", *ENDS_OF_UUIDS])
LEASES = st.sampled_from(["own", "own", "own", "former", "another's", "unknown"])
"""Which lease_id to send for a lock: of its lease, of an earlier lease, of another lock, or one that never existed."""
LOCK_TTLS = st.sampled_from([600, 3_600, 7_200.5, 86_400])
"""Nothing expires while the test runs."""
Ttl = int | str | None
TTLS: st.SearchStrategy[Ttl] = st.sampled_from([None, None, None, 1000, "keep"])
STEPS_OF_PATCH = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": SEGMENTS,
        "from": SEGMENTS,
        "value": VALUES,
    }
)


AMOUNTS = st.integers(-2, 3) | st.sampled_from([0.5, 2**64 - 1, -(2**63)])
CHECKS = st.one_of(
    st.tuples(st.just("revision"), KEYS, st.sampled_from(["own", "own", "older", "none"])),
    st.tuples(st.just("exists"), KEYS, st.booleans()),
    st.tuples(st.just("value"), KEYS, st.tuples(SEGMENTS, st.just(ABSENT) | VALUES)),
    st.tuples(st.just("lease"), st.none(), st.sampled_from(["alive", "alive", "former", "unknown"])),
)
"""Checks of a transaction: the kind, the key, and what is expected. ABSENT stands for the value that is there."""
BYTES = st.binary(max_size=6) | st.just(b"[1]")
MEDIA_TYPES = st.sampled_from(["application/octet-stream", "image/png", "text/plain; charset=latin-1"])


class Bytes(NamedTuple):
    """A value that is bytes."""

    media: str
    data: bytes


OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.just("put"), "key": KEYS, "value": st.builds(Bytes, MEDIA_TYPES, BYTES)}),
    st.fixed_dictionaries({"op": st.just("put"), "key": KEYS, "value": VALUES, "path": st.none() | SEGMENTS}),
    st.fixed_dictionaries({"op": st.just("increment"), "key": KEYS, "value": AMOUNTS, "path": st.none() | SEGMENTS}),
    st.fixed_dictionaries({"op": st.just("merge"), "key": KEYS, "value": VALUES}),
    st.fixed_dictionaries({"op": st.just("patch"), "key": KEYS, "patch": st.lists(STEPS_OF_PATCH, max_size=3)}),
    st.fixed_dictionaries({"op": st.just("delete"), "key": KEYS}),
)


class Refused(Exception):  # noqa: N818 - has the name that the service uses
    """A refusal as the model predicts it: status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)


def not_found() -> Refused:
    return Refused(404, "not_found")


def path_not_found() -> Refused:
    return Refused(404, "path_not_found")


def conflict() -> Refused:
    return Refused(409, "conflict")


def lease_lost(status: int = 409) -> Refused:
    return Refused(status, "lease_lost")


def patch_failed() -> Refused:
    return Refused(422, "patch_failed")


# The model's rules --------------------------------------------------------------------------------------------


def pointer(path: tuple[str, ...]) -> str:
    return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in path)


def parsed(text: str) -> tuple[str, ...]:
    return tuple(segment.replace("~1", "/").replace("~0", "~") for segment in text.split("/")[1:])


def same(left: Any, right: Any) -> bool:
    """Equality of values: the order of members does not matter, and true is not 1. Bytes are equal to no JSON value."""
    if isinstance(left, Bytes) or isinstance(right, Bytes):
        return type(left) is type(right) and bool(left == right)
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def shows(entry: Mapping[str, Any], value: Any) -> bool:
    """Whether an entry in JSON has this value. Of bytes it has the media type and the size."""
    if isinstance(value, Bytes):
        return (entry["media"], entry["size"], "value" in entry) == (value.media, len(value.data), False)
    return same(entry["value"], value)


def index_of(segment: str, size: int) -> int:
    if not segment.isdecimal() or (segment != "0" and segment.startswith("0")) or int(segment) >= size:
        raise path_not_found()
    return int(segment)


def get(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, Bytes):
        raise conflict()
    for segment in path:
        if isinstance(value, list):
            value = value[index_of(segment, len(value))]
        elif isinstance(value, dict) and segment in value:
            value = value[segment]
        else:
            raise path_not_found()
    return value


def put(value: Any, path: tuple[str, ...], part: Any) -> Any:
    """A write with `path`: missing containers are created."""
    if isinstance(value, Bytes) or isinstance(part, Bytes):
        raise conflict()
    if not path:
        return part
    first, *others = path
    rest = tuple(others)
    if isinstance(value, dict):
        inner = value[first] if first in value else empty(rest)
        return value | {first: put(inner, rest, part)}
    if not isinstance(value, list):
        raise conflict()
    if first == "-" and not rest:
        return [*value, part]
    if first != "-" and (not first.isdecimal() or (first != "0" and first.startswith("0"))):
        raise conflict()
    index = index_of(first, len(value))
    return [*value[:index], put(value[index], rest, part), *value[index + 1 :]]


def written(value: Any, path: tuple[str, ...] | None, part: Any) -> Any:
    """A write with `path`, or, if it is None, of the whole value."""
    if path is None:
        return part
    return put(empty(path) if value is ABSENT else value, path, part)


def empty(path: tuple[str, ...]) -> Any:
    return [] if path == ("-",) else {}


def insert(value: Any, path: tuple[str, ...], part: Any) -> Any:
    """`add` of a JSON patch: the container must exist, and a list grows."""
    if not path:
        return part
    container = copy.deepcopy(get(value, path[:-1]))
    if isinstance(container, dict):
        container[path[-1]] = part
    elif isinstance(container, list):
        place = len(container) if path[-1] == "-" else index_of(path[-1], len(container) + 1)
        container.insert(place, part)
    else:
        raise conflict()
    return replace(value, path[:-1], container)


def replace(value: Any, path: tuple[str, ...], part: Any) -> Any:
    if not path:
        return part
    get(value, path)
    inner = replace(get(value, path[:1]), path[1:], part)
    if isinstance(value, dict):
        return value | {path[0]: inner}
    index = int(path[0])
    return [*value[:index], inner, *value[index + 1 :]]


def remove(value: Any, path: tuple[str, ...]) -> Any:
    get(value, path)
    container = get(value, path[:-1])
    if isinstance(container, dict):
        smaller: Any = {name: part for name, part in container.items() if name != path[-1]}
    else:
        smaller = [part for index, part in enumerate(container) if index != int(path[-1])]
    return replace(value, path[:-1], smaller)


def remove_once(value: Any, path: tuple[str, ...], *, may: bool) -> Any:
    """Remove a part. An element of a list is removed only if a repetition of the request would be refused."""
    smaller = remove(value, path)
    if not may and isinstance(get(value, path[:-1]), list):
        raise Refused(428, "precondition_required")
    return smaller


def increment(value: Any, path: tuple[str, ...], amount: float) -> Any:
    """Add to a number. What is missing counts as 0."""
    if value is ABSENT:
        value = empty(path) if path else 0
    if isinstance(value, Bytes):
        raise conflict()
    try:
        number = get(value, path)
    except Refused:
        number = 0
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise conflict()
    total = number + amount
    if isinstance(total, int) and not -(2**63) <= total < 2**64:
        raise conflict()
    return put(value, path, total)


def merge(value: Any, patch: Any) -> Any:
    if isinstance(value, Bytes):
        raise conflict()
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), part)
    return merged


def patched(value: Any, steps: list[dict[str, Any]]) -> Any:
    if isinstance(value, Bytes):
        raise conflict()
    for step in steps:
        try:
            value = patched_once(value, step)
        except Refused:
            raise patch_failed() from None
    return value


def patched_once(value: Any, step: dict[str, Any]) -> Any:
    path, source = step["path"], step["from"]
    match step["op"]:
        case "add":
            return insert(value, path, step["value"])
        case "replace":
            return replace(value, path, step["value"])
        case "copy":
            return insert(value, path, get(value, source))
        case "remove":
            if not path:
                raise patch_failed()
            return remove(value, path)
        case "move":
            moved = get(value, source)
            if path == source:
                return value
            if path[: len(source)] == source:
                raise patch_failed()
            return insert(remove(value, source), path, moved)
        case _:
            if not same(get(value, path), step["value"]):
                raise patch_failed()
            return value


# The machine --------------------------------------------------------------------------------------------------

_folders = count(1)
_keys = count(1)


class KeyValueMachine(RuleBasedStateMachine):
    """One run: a folder of keys on a server that nothing else writes to."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.folder = f"{next(_folders):08x}-"
        self.entries: dict[str, dict[str, Any]] = {}
        self.revision = self.server.revision()
        self.touched: str | None = None
        self.leases: dict[str, dict[str, Any]] = {}
        """The leases that holders got, by lock."""
        self.given: dict[str, list[str]] = {}
        """All lease_ids that were issued for a lock."""

    def request(self, method: str, key: str, **options: Any) -> httpx.Response:
        """Send a request for an entry. `params` without a value are omitted."""
        options["params"] = {name: text for name, text in options.pop("params", {}).items() if text is not None}
        return self.send(method, f"/kv/{quote(self.folder + key)}", **options)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request. Every other change is sent twice, with an idempotency key.

        The repetition of a request that was done must repeat the response, and the model knows of one change only. So
        it finds a change that was done twice. A refused request is refused again.
        """
        headers = {"Accept": "application/json"} | (options.pop("headers", None) or {})
        number = next(_keys)
        if method == "GET" or number % 2:
            return self.server.request(method, path, headers=headers, **options)
        headers |= {"Idempotency-Key": f'"{self.folder}{number}"'}
        response = self.server.request(method, path, headers=headers, **options)
        again = self.server.request(method, path, headers=headers, **options)
        is_replayed = "Idempotent-Replayed" in again.headers
        assert again.status_code == response.status_code, (response.text, again.text)
        if response.is_success:
            assert again.content == response.content
            # There is no receipt if nothing was changed: after a deletion of nothing, or a transaction of reads.
            assert is_replayed or path == "/txn" or again.json().get("deleted") == 0, response.text
        else:
            assert not is_replayed, again.text
        return response

    def headers(self, key: str, condition: Condition) -> dict[str, str]:
        revision = self.entries.get(key, {}).get("revision", 1)
        return {
            "matches": {"If-Match": f'"0", "{revision}-raw"'},
            "matches any": {"If-Match": "*"},
            "stale": {"If-Match": f'"{revision - 1}", W/"{revision}"'},
            "none matches": {"If-None-Match": f'W/"{revision}"'},
            "must be new": {"If-None-Match": "*"},
        }.get(condition.of_entry, {}) | self.fence(condition)

    def fence(self, condition: Condition) -> dict[str, str]:
        return {} if condition.of_lease is None else {"If-Lease": self.lease_id_for(condition.of_lease)}

    def lease_id_for(self, kind: str, lock: str | None = None) -> str:
        """A lease_id of this lock, or of any lock."""
        alive: dict[str, str] = {name: lease["lease_id"] for name, lease in self.leases.items()}
        former = [each for name in self.given if lock in (None, name) for each in self.given[name]]
        known: dict[str, list[str]] = {
            "own": [each for name, each in alive.items() if name == lock],
            "another's": [each for name, each in alive.items() if name != lock],
            "alive": list(alive.values()),
            "former": [each for each in former if each not in alive.values()],
        }
        return [NO_LEASE, *known.get(kind, [])][-1]

    def check_lease(self, condition: Condition) -> None:
        sent = self.fence(condition).get("If-Lease")
        if sent is not None and sent not in [lease["lease_id"] for lease in self.leases.values()]:
            raise lease_lost(412)

    def check_condition(self, key: str, condition: Condition) -> None:
        exists = key in self.entries
        holds = {
            "none": True,
            "matches": exists,
            "matches any": exists,
            "stale": False,
            "none matches": not exists,
            "must be new": not exists,
        }
        if not holds[condition.of_entry]:
            raise Refused(412, "precondition_failed")

    def change(
        self, key: str, condition: Condition, response: httpx.Response, decide: Callable[[Any], Any], ttl: Ttl
    ) -> None:
        """Predict a change by `decide(value before)` and compare. `ABSENT` is the value of a missing entry."""
        self.touched = key
        before = self.entries.get(key)
        try:
            after = self.decide(key, condition, decide)
        except Refused as refusal:
            self.compare_refusal(response, refusal)
            if refusal.args == (412, "precondition_failed"):
                assert response.json()["revision"] == (before["revision"] if before else None)
            return
        self.revision += 1
        assert response.status_code == (201 if before is None else 200)
        assert response.json()["revision"] == self.revision
        if after is ABSENT:
            del self.entries[key]
        else:
            self.entries[key] = {"value": after, "revision": self.revision, "expires": expires(before, ttl)}

    def decide(self, key: str, condition: Condition, decide: Callable[[Any], Any]) -> Any:
        """The predicted result. The order of checks: the lease, the missing entry, the condition, the path."""
        self.check_lease(condition)
        refusal: Refused | None = None
        after = None
        try:
            after = decide(self.value(key))
        except Refused as error:
            refusal = error
        if refusal is None or refusal.args != not_found().args:
            self.check_condition(key, condition)
        if refusal is not None:
            raise refusal
        return after

    def value(self, key: str) -> Any:
        return self.entries[key]["value"] if key in self.entries else ABSENT

    @rule(key=KEYS, value=VALUES, condition=CONDITIONS, ttl=TTLS, method=st.sampled_from(["PUT", "POST"]))
    def write(self, key: str, value: Any, condition: Condition, ttl: Ttl, method: str) -> None:
        headers = self.headers(key, condition)
        response = self.request(method, key, content=json.dumps(value), headers=headers, params={"ttl": ttl})
        self.change(key, condition, response, lambda _: value, ttl)

    @rule(key=KEYS, media=MEDIA_TYPES, data=BYTES, condition=CONDITIONS, ttl=TTLS, path=st.none() | st.just(""))
    def write_bytes(
        self, *, key: str, media: str, data: bytes, condition: Condition, ttl: Ttl, path: str | None
    ) -> None:
        headers = self.headers(key, condition) | {"Content-Type": media}
        response = self.request("POST", key, content=data, headers=headers, params={"ttl": ttl, "path": path})
        value = Bytes(media, data)
        self.change(key, condition, response, lambda v: value if path is None else put(v, (), value), ttl)

    @rule(key=KEYS, begin=st.integers(0, 4))
    def read_as_anything(self, key: str, begin: int) -> None:
        """With an Accept that takes bytes: they are sent as they are, or from a position on."""
        value = self.value(key)
        response = self.request("GET", key, headers={"Accept": "*/*"})
        ranged = self.request("GET", key, headers={"Accept": "*/*", "Range": f"bytes={begin}-"})
        if not isinstance(value, Bytes):
            assert response.status_code == ranged.status_code == (404 if value is ABSENT else 200)
            return
        assert (response.content, response.headers["Content-Type"]) == (value.data, value.media)
        if begin < len(value.data):
            assert (ranged.status_code, ranged.content) == (206, value.data[begin:])
        else:
            assert ranged.status_code == 416

    @rule(key=UUIDS, path=st.none() | SEGMENTS, part=VALUES, condition=CONDITIONS, ttl=TTLS, upper=st.booleans())
    def write_by_uuid(
        self, *, key: str, path: tuple[str, ...] | None, part: Any, condition: Condition, ttl: Ttl, upper: bool
    ) -> None:
        uuid = (self.folder + key).upper() if upper else self.folder + key
        body = {"key": uuid, "value": part, "path": None if path is None else list(path), "ttl": ttl}
        response = self.send("POST", "/set", json=body, headers=self.headers(key, condition))
        self.change(key, condition, response, lambda value: written(value, path, part), ttl)

    @rule(key=UUIDS, paths=st.lists(SEGMENTS, max_size=2))
    def read_by_uuid(self, key: str, paths: list[tuple[str, ...]]) -> None:
        """Read by UUID and compare with `/kv`, which the other rules compare with the model."""
        params = {"path": [pointer(path) for path in paths]}
        headers = {"Accept": "application/json"}
        by_uuid = self.server.request("GET", f"/get/{self.folder}{key}", params=params, headers=headers)
        by_key = self.request("GET", key, params=dict(params))
        names = ("request_id",)
        left, right = ({n: part for n, part in r.json().items() if n not in names} for r in (by_uuid, by_key))
        assert (by_uuid.status_code, left) == (by_key.status_code, right)
        streamed = self.server.request("GET", f"/stream/{self.folder}{key}")
        if isinstance(self.value(key), Bytes):
            assert streamed.content == self.entries[key]["value"].data
        elif key in self.entries:
            assert same(msgspec.msgpack.decode(streamed.content), self.entries[key]["value"])
        else:
            assert streamed.status_code == 404

    @rule(prefix=st.sampled_from(["", "a", "a/", "ä", "abcd-"]))
    def read_stream(self, prefix: str) -> None:
        entries = sequence(self.server.request("GET", "/stream", params={"prefix": self.folder + prefix}))
        expected = [self.folder + key for key in self.sorted_keys() if key.startswith(prefix)]
        assert [entry["key"] for entry in entries] == expected

    @rule(key=KEYS, path=SEGMENTS, part=VALUES, condition=CONDITIONS, ttl=TTLS, method=st.sampled_from(["PUT", "POST"]))
    def write_part(
        self, *, key: str, path: tuple[str, ...], part: Any, condition: Condition, ttl: Ttl, method: str
    ) -> None:
        params = {"path": pointer(path), "ttl": ttl}
        response = self.request(
            method, key, content=json.dumps(part), headers=self.headers(key, condition), params=params
        )
        if method == "PUT" and path[-1:] == ("-",):
            assert (response.status_code, response.json()["error"]) == (400, "invalid_argument")
            return
        self.change(key, condition, response, lambda v: put(empty(path) if v is ABSENT else v, path, part), ttl)
        if response.status_code < 300:
            assert (same(response.json()["value"], part), response.json()["path"]) == (True, pointer(path))

    @rule(key=KEYS, path=SEGMENTS, amount=AMOUNTS, condition=CONDITIONS, ttl=TTLS)
    def increment(self, *, key: str, path: tuple[str, ...], amount: float, condition: Condition, ttl: Ttl) -> None:
        params = {"path": pointer(path), "ttl": ttl, "increment": ""}
        headers = self.headers(key, condition)
        response = self.request("POST", key, content=json.dumps(amount), headers=headers, params=params)
        self.change(key, condition, response, lambda value: increment(value, path, amount), ttl)
        if response.status_code < 300:
            expected = get(self.entries[key]["value"], path) if path[-1:] != ("-",) else None
            assert path[-1:] == ("-",) or same(response.json()["value"], expected)

    @rule(key=KEYS, patch=VALUES, condition=CONDITIONS, ttl=TTLS)
    def merge_patch(self, key: str, patch: Any, condition: Condition, ttl: Ttl) -> None:
        headers = self.headers(key, condition) | {"Content-Type": "application/merge-patch+json"}
        response = self.request("PATCH", key, content=json.dumps(patch), headers=headers, params={"ttl": ttl})
        self.change(key, condition, response, lambda value: merge(existing(value), patch), ttl)

    @rule(key=KEYS, steps=st.lists(STEPS_OF_PATCH, max_size=4), condition=CONDITIONS, ttl=TTLS)
    def json_patch(self, key: str, steps: list[dict[str, Any]], condition: Condition, ttl: Ttl) -> None:
        headers = self.headers(key, condition) | {"Content-Type": "application/json-patch+json"}
        sent = [step | {"path": pointer(step["path"]), "from": pointer(step["from"])} for step in steps]
        response = self.request("PATCH", key, content=json.dumps(sent), headers=headers, params={"ttl": ttl})
        self.change(key, condition, response, lambda value: patched(existing(value), steps), ttl)

    @rule(key=KEYS, condition=CONDITIONS)
    def delete(self, key: str, condition: Condition) -> None:
        response = self.request("DELETE", key, headers=self.headers(key, condition))
        self.change(key, condition, response, deleted, None)

    @rule(key=KEYS, path=SEGMENTS.filter(bool), condition=CONDITIONS, ttl=TTLS)
    def delete_part(self, key: str, path: tuple[str, ...], condition: Condition, ttl: Ttl) -> None:
        params = {"path": pointer(path), "ttl": ttl}
        response = self.request("DELETE", key, headers=self.headers(key, condition), params=params)
        names_revisions = condition.of_entry in ("matches", "stale")
        self.change(
            key, condition, response, lambda value: remove_once(existing(value), path, may=names_revisions), ttl
        )

    @rule(key=KEYS, paths=st.lists(SEGMENTS, min_size=1, max_size=3))
    def read_parts(self, key: str, paths: list[tuple[str, ...]]) -> None:
        response = self.request("GET", f"{key}", params={"path": [pointer(path) for path in paths]})
        try:
            value = existing(self.value(key))
            parts = {pointer(path): get(value, path) for path in paths}
        except Refused as refusal:
            self.compare_refusal(response, refusal)
        else:
            expected = parts if len(paths) > 1 else parts[pointer(paths[0])]
            assert same(response.json()["value"], expected)

    @rule(key=KEYS)
    def read_if_new(self, key: str) -> None:
        entry = self.entries.get(key)
        tag = f'"{entry["revision"] if entry else 1}"'
        assert self.request("GET", key, headers={"If-None-Match": tag}).status_code == (304 if entry else 404)

    @rule(prefix=st.sampled_from(["", "a", "a/", "ä"]), after=KEYS, limit=st.integers(1, 4))
    def read_page(self, prefix: str, after: str, limit: int) -> None:
        params = {"prefix": self.folder + prefix, "after": self.folder + after, "limit": str(limit)}
        page = self.server.request("GET", "/kv", params=params).json()
        found = [key for key in self.sorted_keys() if key.startswith(prefix) and key.encode() > after.encode()]
        expected = [self.folder + key for key in found[:limit]]
        following = expected[-1] if len(found) > limit else None
        assert ([entry["key"] for entry in page["entries"]], page["next"]) == (expected, following)

    @rule(
        prefix=st.sampled_from(["", "a", "a/", "abcd-"]),
        after=st.none() | KEYS,
        limit=st.none() | st.integers(1, 4),
        paths=st.lists(SEGMENTS, max_size=2, unique=True),
        reverse=st.booleans(),
        by_uuid=st.booleans(),
    )
    def list_parts(
        self,
        *,
        prefix: str,
        after: str | None,
        limit: int | None,
        paths: list[tuple[str, ...]],
        reverse: bool,
        by_uuid: bool,
    ) -> None:
        """A page of parts, in any order, and how many there are."""
        route = "/get" if by_uuid else "/kv"
        params: dict[str, Any] = {"prefix": self.folder + prefix, "path": [pointer(path) for path in paths]}
        params |= {"reverse": str(reverse).lower()}
        params |= {} if after is None else {"after": self.folder + after}
        params |= {} if limit is None else {"limit": limit}
        expected: list[tuple[str, Any]] = []
        for key in self.sorted_keys()[:: -1 if reverse else 1]:
            is_behind = after is None or (key.encode() < after.encode() if reverse else key.encode() > after.encode())
            if key.startswith(prefix) and is_behind and (not by_uuid or key in ENDS_OF_UUIDS):
                with suppress(Refused):
                    expected.append((self.folder + key, self.parts(key, paths)))
        has_more = limit is not None and len(expected) > limit
        expected = expected[:limit]
        following = expected[-1][0] if has_more else None
        page = self.server.request("GET", route, params=params).json()
        assert [entry["key"] for entry in page["entries"]] == [key for key, _ in expected]
        assert all(shows(entry, value) for entry, (_, value) in zip(page["entries"], expected, strict=True))
        assert (page["next"], page["revision"]) == (following, self.revision)
        counted = self.server.request("GET", route, params={**params, "count": ""}).json()
        assert counted == {"count": len(expected), "revision": self.revision, "next": following}

    def parts(self, key: str, paths: list[tuple[str, ...]]) -> Any:
        """What a read with these paths has as its value."""
        parts = {pointer(path): get(self.value(key), path) for path in paths}
        return self.value(key) if not paths else parts if len(paths) > 1 else next(iter(parts.values()))

    @rule(
        checks=st.lists(CHECKS, max_size=2),
        operations=st.lists(OPERATIONS, max_size=4, unique_by=lambda operation: operation["key"]),
        reads=st.lists(KEYS, max_size=2),
        ttl=TTLS,
        of_lease=st.sampled_from([None] * 6 + ["alive", "former"]),
    )
    def transact(
        self, *, checks: list[Any], operations: list[Any], reads: list[str], ttl: Ttl, of_lease: str | None
    ) -> None:
        do = [*operations, *({"op": "get", "key": key} for key in reads)]
        condition = Condition("none", of_lease)
        sent = {"if": [self.check_to_send(*check) for check in checks], "do": [self.to_send(each, ttl) for each in do]}
        response = self.send("POST", "/txn", json=sent, headers=self.fence(condition))
        if not do:
            assert response.status_code == 400
            return
        failed = [index for index, check in enumerate(sent["if"]) if not self.holds(check)]
        before = dict(self.entries)
        refusal, index = self.outcome_of(condition, failed, do, ttl)
        if refusal is not None:
            self.entries = before
            self.compare_refusal(response, refusal)
            told = response.json()
            if told["error"] == "precondition_failed":
                assert [each["index"] for each in told["failed"]] == failed
            elif told["error"] != "lease_lost":
                assert (told["index"], told["key"]) == (index, self.folder + do[index]["key"])
            return
        self.revision += bool(operations)
        done = response.json()
        assert (response.status_code, done["revision"], len(done["results"])) == (200, self.revision, len(do))
        assert {each["revision"] for each in done["results"][: len(operations)]} <= {self.revision}
        for key, shown in zip(reads, done["results"][len(operations) :], strict=True):
            if key in self.entries:
                self.compare(shown, self.entries[key])
            else:
                assert shown == {"key": self.folder + key, "revision": None}
        self.touched = do[0]["key"]

    def outcome_of(
        self, condition: Condition, failed: list[int], do: list[Any], ttl: Ttl
    ) -> tuple[Refused | None, int]:
        """Do the operations in the model. Returns the refusal, if there is one, and the index of its operation."""
        index = 0
        try:
            self.check_lease(condition)
            for index, each in enumerate([] if failed else do):  # noqa: B007 - returned
                self.apply(each, ttl)
        except Refused as refusal:
            return refusal, index
        return (Refused(412, "precondition_failed") if failed else None), index

    def check_to_send(self, kind: str, key: str | None, expected: Any) -> dict[str, Any]:
        if key is None:
            return {"lease": self.lease_id_for(expected)}
        name = {"key": self.folder + key}
        if kind == "revision":
            own = self.entries[key]["revision"] if key in self.entries else None
            return name | {"revision": {"own": own, "older": (own or 2) - 1, "none": None}[expected]}
        if kind == "exists":
            return name | {"exists": expected}
        path, value = expected
        if value is ABSENT:
            try:
                value = get(existing(self.value(key)), path)
            except Refused:
                value = None
        return name | {"path": pointer(path), "value": value}

    def holds(self, check: dict[str, Any]) -> bool:
        if "lease" in check:
            return check["lease"] in [lease["lease_id"] for lease in self.leases.values()]
        key = check["key"].removeprefix(self.folder)
        if "revision" in check:
            return bool(check["revision"] == (self.entries[key]["revision"] if key in self.entries else None))
        if "exists" in check:
            return bool(check["exists"] == (key in self.entries))
        try:
            return same(get(existing(self.value(key)), parsed(check["path"])), check["value"])
        except Refused:
            return False

    def to_send(self, operation: dict[str, Any], ttl: Ttl) -> dict[str, Any]:
        sent = operation | {"key": self.folder + operation["key"]}
        if operation["op"] not in ("get", "delete"):
            sent["ttl"] = ttl
        if operation.get("path") is not None:
            sent["path"] = pointer(operation["path"])
        if isinstance(operation.get("value"), Bytes):
            media, data = sent.pop("value")
            sent |= {"base64": base64.b64encode(data).decode(), "media": media}
        if "patch" in operation:
            sent["patch"] = [
                step | {"path": pointer(step["path"]), "from": pointer(step["from"])} for step in operation["patch"]
            ]
        return sent

    def apply(self, operation: dict[str, Any], ttl: Ttl) -> None:
        key = operation["key"]
        value = self.value(key)
        match operation["op"]:
            case "get":
                return
            case "delete":
                deleted(value)
                del self.entries[key]
                return
            case "merge":
                after = merge(existing(value), operation["value"])
            case "patch":
                after = patched(existing(value), operation["patch"])
            case "increment":
                after = increment(value, operation["path"] or (), operation["value"])
            case _:
                after = written(value, operation.get("path"), operation["value"])
        is_expiring = expires(self.entries.get(key), ttl)
        self.entries[key] = {"value": after, "revision": self.revision + 1, "expires": is_expiring}

    @rule(keys=st.lists(KEYS, min_size=1, max_size=4))
    def read_several(self, keys: list[str]) -> None:
        page = self.server.request("GET", "/kv", params={"key": [self.folder + key for key in keys]}).json()
        found = [key for key in keys if key in self.entries]
        assert [entry["key"] for entry in page["entries"]] == [self.folder + key for key in found]
        for key, entry in zip(found, page["entries"], strict=True):
            self.compare(entry, self.entries[key])
        assert page["revision"] == self.revision

    @rule(prefix=st.sampled_from(["a/", "ab", "ä", "abcd-"]))
    def delete_prefix(self, prefix: str) -> None:
        told = self.send("DELETE", "/kv", params={"prefix": self.folder + prefix}).json()
        gone = [key for key in self.entries if key.startswith(prefix)]
        self.revision += len(gone)
        assert (told["deleted"], told["revision"]) == (len(gone), self.revision)
        for key in gone:
            del self.entries[key]

    def ask(self, method: str, lock: str, path: str | None, **asked: Any) -> httpx.Response:
        """Send a request for a lock by its name, or, with `path`, by UUID."""
        name = self.folder + lock
        if path is None or lock not in ENDS_OF_UUIDS:
            return self.send(method, f"/locks/{quote(name)}", json=asked)
        return self.send("DELETE" if path == "/unlock" else "POST", path, json={"lock_id": name} | asked)

    @rule(lock=LOCKS, ttl=LOCK_TTLS, owner=VALUES, path=st.sampled_from([None, "/lock"]))
    def acquire(self, lock: str, ttl: float, owner: Any, path: str | None) -> None:
        response = self.ask("POST", lock, path, ttl=ttl, owner=owner, wait=0)
        held, told = self.leases.get(lock), response.json()
        if held is not None:
            self.compare_refusal(response, Refused(423, "lock_held"))
            assert (same(told["owner"], held["owner"]), told["expires_at"]) == (True, held["expires_at"])
            return
        self.revision += 1
        assert (response.status_code, told["lock"], told["token"]) == (201, self.folder + lock, self.revision)
        assert (told["ttl"], same(told["owner"], owner)) == (ttl, True)
        self.leases[lock] = told
        self.given.setdefault(lock, []).append(told["lease_id"])

    @rule(lock=LOCKS, lease=LEASES, ttl=st.none() | LOCK_TTLS, path=st.sampled_from([None, "/renew"]))
    def renew(self, lock: str, lease: str, ttl: float | None, path: str | None) -> None:
        lease_id, held = self.lease_id_for(lease, lock), self.leases.get(lock)
        response = self.ask("PUT", lock, path, lease_id=lease_id, ttl=ttl)
        if held is None or held["lease_id"] != lease_id:
            self.compare_refusal(response, lease_lost())
            return
        self.revision += 1
        told = response.json()
        expected = held | {"ttl": held["ttl"] if ttl is None else ttl, "expires_at": told["expires_at"]}
        assert (response.status_code, same(told, expected)) == (200, True)
        assert told["expires_at"] >= held["expires_at"]
        self.leases[lock] = told

    @rule(lock=LOCKS, lease=LEASES, path=st.sampled_from([None, "/unlock"]), by_holder=st.booleans())
    def release(self, lock: str, lease: str, path: str | None, *, by_holder: bool) -> None:
        """Release a lock. `by_holder`: with the token in place of the lease_id."""
        lease_id, held = self.lease_id_for(lease, lock), self.leases.get(lock)
        if by_holder:
            response = self.ask("DELETE", lock, path, token=1 if held is None else held["token"])
            lease_id = NO_LEASE if held is None else held["lease_id"]
        else:
            response = self.ask("DELETE", lock, path, lease_id=lease_id)
        if held is None or held["lease_id"] != lease_id:
            self.compare_refusal(response, Refused(404, "lock_not_found") if held is None else lease_lost())
            return
        self.revision += 1
        expected = {"lock": self.folder + lock, "released": True, "revision": self.revision}
        assert (response.status_code, response.json()) == (200, expected)
        del self.leases[lock]

    @rule(lock=LOCKS, path=st.sampled_from([None, "/unlock"]))
    def release_by_force(self, lock: str, path: str | None) -> None:
        response = self.ask("DELETE", lock, path, force=True)
        if self.leases.pop(lock, None) is None:
            self.compare_refusal(response, Refused(404, "lock_not_found"))
            return
        self.revision += 1
        expected = {"lock": self.folder + lock, "released": True, "revision": self.revision}
        assert (response.status_code, response.json()) == (200, expected)

    @rule(prefix=st.sampled_from(["", "a", "a/", "abcd-"]))
    def list_locks(self, prefix: str) -> None:
        page = self.server.request("GET", "/locks", params={"prefix": self.folder + prefix}).json()
        expected = [
            {name: part for name, part in self.leases[lock].items() if name != "lease_id"} | {"waiters": 0}
            for lock in sorted(self.leases)
            if lock.startswith(prefix)
        ]
        assert (same(page["locks"], expected), page["revision"]) == (True, self.revision)

    @invariant()
    def the_entry_touched_last_is_as_predicted(self) -> None:
        if self.touched is None:
            return
        response, expected = self.request("GET", self.touched), self.entries.get(self.touched)
        if expected is None:
            assert response.status_code == 404
        else:
            self.compare(response.json(), expected)

    def teardown(self) -> None:
        page = self.server.request("GET", "/kv", params={"prefix": self.folder}).json()
        assert [entry["key"] for entry in page["entries"]] == [self.folder + key for key in self.sorted_keys()]
        for entry in page["entries"]:
            self.compare(entry, self.entries[entry["key"].removeprefix(self.folder)])
        assert page["revision"] == self.revision
        self.list_locks("")

    def sorted_keys(self) -> list[str]:
        return sorted(self.entries, key=lambda key: key.encode())

    def compare_refusal(self, response: httpx.Response, expected: Refused) -> None:
        assert (response.status_code, response.json()["error"]) == expected.args

    def compare(self, entry: dict[str, Any], expected: dict[str, Any]) -> None:
        assert shows(entry, expected["value"])
        assert (entry["revision"], "expires_at" in entry) == (expected["revision"], expected["expires"])


def expires(before: dict[str, Any] | None, ttl: Ttl) -> bool:
    """Whether an entry expires after a write. `before`: the entry before."""
    if ttl == "keep":
        return before is not None and bool(before["expires"])
    return ttl is not None


def deleted(value: Any) -> Any:
    existing(value)
    return ABSENT


def existing(value: Any) -> Any:
    if value is ABSENT:
        raise not_found()
    return value


def follow_the_model(store: str | Path, seed_number: int, *, sequences: int, shrinks: bool = True) -> Finding:
    """Send this many sequences of requests to a server of `store`, which is empty at first and not used otherwise.

    `shrinks`: look for the shortest sequence with the same fault.
    """
    finding = Finding()

    class OwnMachine(KeyValueMachine):
        def teardown(self) -> None:
            super().teardown()
            finding.figures["sequences"] += 1

    # No receipt expires while the machine runs: an expiry takes a revision.
    with running(store, environment={"LEASEHOLD_IDEMPOTENCY_SECONDS": "86400"}) as OwnMachine.server:
        try:
            run_state_machine_as_test(
                seed(seed_number)(OwnMachine),
                settings=settings(
                    max_examples=sequences,
                    phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    report_multiple_bugs=False,
                    suppress_health_check=[
                        HealthCheck.too_slow,
                        HealthCheck.data_too_large,
                        HealthCheck.filter_too_much,
                    ],
                ),
            )
        except Exception:  # noqa: BLE001 - an answer that cannot be decoded is a difference, too
            finding.violations.append(f"the model and the service differ: {traceback.format_exc()}")
        if "Traceback" in OwnMachine.server.log():
            finding.violations.append(f"the log has a fault: {OwnMachine.server.log()[-2000:]}")
    return finding

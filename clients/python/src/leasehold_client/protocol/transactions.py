"""The checks and operations of a transaction, gathered, and its results."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from leasehold_client.records import Deletion, Entry
from leasehold_client.values import MISSING, Json, MissingType

from .entries import ACCEPT, Ttl, deletion_from, entry_from
from .messages import JSON, Request, json_body, reading, target

Result: TypeAlias = Entry | Deletion | None


class Operations:
    """What a transaction checks and does, in this order. Each key may be written once."""

    def __init__(self) -> None:
        self._checks: list[Mapping[str, Json]] = []
        self._operations: list[Mapping[str, Json]] = []

    def check(
        self,
        key: str,
        *,
        revision: int | Entry | MissingType | None = MISSING,
        exists: bool | None = None,
        value: Json | MissingType = MISSING,
        path: str | None = None,
    ) -> None:
        """Give one of these: `revision` (None: there is no entry), `exists`, or `value`, with `path` for a part."""
        check: dict[str, Json] = {"key": key}
        if revision is not MISSING:
            check["revision"] = revision.revision if isinstance(revision, Entry) else revision
        if exists is not None:
            check["exists"] = exists
        if value is not MISSING:
            check["value"] = value
            if path is not None:
                check["path"] = path
        if len(check) == 1:
            raise TypeError("a check needs revision, exists or value")
        self._checks.append(check)

    def check_lease(self, lease_id: str) -> None:
        """The lease must be alive. `AsyncClient.transaction(lease=…)` and `Client.transaction(lease=…)` do this."""
        self._checks.append({"lease": lease_id})

    def put(self, key: str, value: Json, *, path: str | None = None, ttl: Ttl = None, media: str | None = None) -> None:
        if isinstance(value, (bytes, bytearray, memoryview)):
            content = {"base64": b64encode(value).decode(), "media": media or "application/octet-stream"}
            self._add("put", key, path, ttl, content)
        else:
            self._add("put", key, path, ttl, {"value": value})

    def merge(self, key: str, value: Json, *, ttl: Ttl = None) -> None:
        """A merge patch (RFC 7396)."""
        self._add("merge", key, None, ttl, {"value": value})

    def patch(self, key: str, operations: Sequence[Mapping[str, Json]], *, ttl: Ttl = None) -> None:
        """A JSON patch (RFC 6902)."""
        self._add("patch", key, None, ttl, {"patch": list(operations)})

    def increment(self, key: str, by: float = 1, *, path: str | None = None, ttl: Ttl = None) -> None:
        self._add("increment", key, path, ttl, {"value": by})

    def delete(self, key: str, *, path: str | None = None) -> None:
        self._add("delete", key, path, None, {})

    def get(self, key: str) -> None:
        """Its result is the entry as the transaction sees it, or None."""
        self._add("get", key, None, None, {})

    def _add(self, name: str, key: str, path: str | None, ttl: Ttl, members: Mapping[str, Json]) -> None:
        operation: dict[str, Json] = {"op": name, "key": key, **members}
        if path is not None:
            operation["path"] = path
        if ttl is not None:
            operation["ttl"] = ttl
        self._operations.append(operation)

    def request(self, lease_id: str | None) -> Request:
        content = json_body({"if": self._checks, "do": self._operations})
        fence = () if lease_id is None else (("If-Lease", lease_id),)
        headers = (*ACCEPT, ("Content-Type", JSON), *fence)
        return Request("POST", target("/txn", [("base64", "")]), headers, content, is_change=True)


@reading
def read_revision(body: Mapping[str, Json]) -> int:
    return int(body["revision"])


@reading
def read_results(body: Mapping[str, Json]) -> Sequence[Result]:
    return [_result_from(each) for each in body["results"]]


def _result_from(body: Mapping[str, Json]) -> Result:
    if body.get("deleted"):
        return deletion_from(body)
    return None if body["revision"] is None else entry_from(body)

"""Reads and writes of entries."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from leasehold_client.records import Deletion, Entry
from leasehold_client.values import Json, parse_optional_time

from .messages import JSON, Pairs, Request, Response, json_body, named, number, reading, target

KEEP: Final = "keep"
Ttl = float | Literal["keep"] | None
"""Seconds after which an entry expires. `keep`: it keeps the expiry that it has. None: it does not expire."""
Match = Entry | int | str
"""An entry, a revision, or an ETag."""
ACCEPT: Final = (("Accept", JSON),)
NOT_MODIFIED: Final = 304
DELETION_SECONDS: Final = 600.0
"""As long as the deletion of millions of entries takes; the service responds at its end."""


def etag_of(match: Match) -> str:
    if isinstance(match, Entry):
        return match.etag
    return f'"{match}"' if isinstance(match, int) else match


def conditions(if_match: Match | None, *, if_absent: bool, lease_id: str | None) -> Pairs:
    headers = []
    if if_match is not None:
        headers.append(("If-Match", etag_of(if_match)))
    if if_absent:
        headers.append(("If-None-Match", "*"))
    if lease_id is not None:
        headers.append(("If-Lease", lease_id))
    return headers


def _options(path: str | None, ttl: Ttl) -> Iterable[tuple[str, str]]:
    if path is not None:
        yield "path", path
    if ttl is not None:
        yield "ttl", KEEP if isinstance(ttl, str) else number(ttl)


# Reads --------------------------------------------------------------------------------------------------------


def get(
    key: str,
    *,
    path: str | None = None,
    wait_seconds: float = 0.0,
    known: Entry | None = None,
    with_bytes: bool = False,
) -> Request:
    """Without options it is the plain request that the service answers fastest.

    So bytes are not asked for at first: if the entry has `media` and no value, ask again `with_bytes`.
    """
    parameters = list(_options(path, None))
    headers: Pairs = ACCEPT
    if wait_seconds > 0:
        parameters.append(("wait", number(wait_seconds)))
    if with_bytes:
        parameters.append(("base64", ""))
    if known is not None:
        headers = (*headers, ("If-None-Match", known.etag))
    return Request("GET", target(named("/kv", key), parameters), headers, wait_seconds=wait_seconds)


def get_many(keys: Sequence[str]) -> Request:
    return Request("GET", target("/kv", [*(("key", key) for key in keys), ("base64", "")]), ACCEPT)


@dataclass(frozen=True)
class Page:
    entries: Sequence[Entry]
    next: str | None


def page(
    prefix: str,
    after: str | None,
    *,
    limit: int,
    reverse: bool = False,
    values: bool = True,
    path: str | None = None,
) -> Request:
    parameters = [("limit", str(limit))]
    if prefix:
        parameters.append(("prefix", prefix))
    if after is not None:
        parameters.append(("after", after))
    if reverse:
        parameters.append(("reverse", ""))
    if path is not None:
        parameters.append(("path", path))
    elif not values:
        parameters.append(("values", "false"))
    else:
        parameters.append(("base64", ""))
    return Request("GET", target("/kv", parameters), ACCEPT)


@reading
def read_page(body: Mapping[str, Json]) -> Page:
    return Page([entry_from(each) for each in body["entries"]], body.get("next"))


def count(prefix: str, after: str | None) -> Request:
    parameters = [("count", "")]
    if prefix:
        parameters.append(("prefix", prefix))
    if after is not None:
        parameters.append(("after", after))
    return Request("GET", target("/kv", parameters), ACCEPT)


@dataclass(frozen=True)
class Count:
    """One request counts a limited number of entries; `next` says where the next one goes on."""

    count: int
    next: str | None


@reading
def read_count(body: Mapping[str, Json]) -> Count:
    return Count(body["count"], body.get("next"))


# Writes. `headers` are the conditions. ------------------------------------------------------------------------


def put(key: str, value: Json, *, path: str | None, ttl: Ttl, media: str | None, headers: Pairs) -> Request:
    if isinstance(value, (bytes, bytearray, memoryview)):
        content, kind = bytes(value), media or "application/octet-stream"
    elif media is not None:
        raise TypeError("media is for values that are bytes")
    else:
        content, kind = json_body(value), JSON
    return _write("POST", target(named("/kv", key), _options(path, ttl)), headers, content, kind)


def increment(key: str, by: float, *, path: str | None, ttl: Ttl, headers: Pairs) -> Request:
    parameters = [("increment", ""), *_options(path, ttl)]
    return _write("POST", target(named("/kv", key), parameters), headers, json_body(by), JSON)


def merge(key: str, value: Json, *, ttl: Ttl, headers: Pairs) -> Request:
    parameters = _options(None, ttl)
    kind = "application/merge-patch+json"
    return _write("PATCH", target(named("/kv", key), parameters), headers, json_body(value), kind)


def patch(key: str, operations: Sequence[Mapping[str, Json]], *, ttl: Ttl, headers: Pairs) -> Request:
    parameters = _options(None, ttl)
    kind = "application/json-patch+json"
    return _write("PATCH", target(named("/kv", key), parameters), headers, json_body(list(operations)), kind)


def delete(key: str, *, path: str | None, headers: Pairs) -> Request:
    return _write("DELETE", target(named("/kv", key), _options(path, None)), headers, None, None)


def delete_prefix(prefix: str, *, headers: Pairs) -> Request:
    request = _write("DELETE", target("/kv", [("prefix", prefix)]), headers, None, None)
    return replace(request, work_seconds=DELETION_SECONDS)


def _write(method: str, address: str, headers: Pairs, content: bytes | None, kind: str | None) -> Request:
    kinds = () if kind is None else (("Content-Type", kind),)
    return Request(method, address, (*ACCEPT, *kinds, *headers), content, is_change=True)


# Responses ----------------------------------------------------------------------------------------------------


def read_entry(response: Response) -> Entry:
    return reading(lambda body: entry_from(body, response.headers.get("etag")))(response)


@reading
def read_deletion(body: Mapping[str, Json]) -> Deletion:
    return deletion_from(body)


@reading
def read_deleted_count(body: Mapping[str, Json]) -> int:
    return int(body["deleted"])


def needs_bytes(entry: Entry) -> bool:
    """Whether the entry was read without its value, because this is bytes."""
    return entry.media is not None and entry.value is None


def entry_from(body: Mapping[str, Json], etag: str | None = None) -> Entry:
    value = body.get("value")
    media = body.get("media")
    if media is not None and value is not None:
        value = b64decode(value)
    revision = body["revision"]
    return Entry(
        body["key"],
        value,
        revision,
        f'"{revision}"' if etag is None else etag,
        parse_optional_time(body.get("created_at")),
        parse_optional_time(body.get("updated_at")),
        parse_optional_time(body.get("expires_at")),
        body.get("path"),
        media,
    )


def deletion_from(body: Mapping[str, Json]) -> Deletion:
    return Deletion(body["key"], body["revision"], body.get("path"))

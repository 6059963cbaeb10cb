"""Locks: acquire, renew, release, and who holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from leasehold_client.records import Grant, Holder
from leasehold_client.values import Json, parse_time

from .entries import ACCEPT
from .messages import JSON, Request, json_body, named, reading, target

MAX_WAIT_SECONDS: Final = 60.0
"""As long as one request may wait."""
HEADERS: Final = (*ACCEPT, ("Content-Type", JSON))


def acquire(lock: str, *, ttl: float, wait_seconds: float, owner: Json) -> Request:
    content = json_body({"ttl": ttl, "wait": wait_seconds, "owner": owner})
    return Request("POST", named("/locks", lock), HEADERS, content, is_change=True, wait_seconds=wait_seconds)


def renew(lock: str, lease_id: str, *, ttl: float | None) -> Request:
    members = {"lease_id": lease_id} if ttl is None else {"lease_id": lease_id, "ttl": ttl}
    return Request("PUT", named("/locks", lock), HEADERS, json_body(members), is_change=True)


def release(lock: str, lease_id: str) -> Request:
    content = json_body({"lease_id": lease_id})
    return Request("DELETE", named("/locks", lock), HEADERS, content, is_change=True)


def release_by_token(lock: str, token: int) -> Request:
    return Request("DELETE", named("/locks", lock), HEADERS, json_body({"token": token}), is_change=True)


def force_release(lock: str) -> Request:
    return Request("DELETE", target(named("/locks", lock), [("force", "")]), ACCEPT, is_change=True)


def holder(lock: str) -> Request:
    return Request("GET", named("/locks", lock), ACCEPT)


@dataclass(frozen=True)
class HolderPage:
    holders: Sequence[Holder]
    next: str | None


def page(prefix: str, after: str | None, *, limit: int) -> Request:
    parameters = [("limit", str(limit))]
    if prefix:
        parameters.append(("prefix", prefix))
    if after is not None:
        parameters.append(("after", after))
    return Request("GET", target("/locks", parameters), ACCEPT)


# Responses ----------------------------------------------------------------------------------------------------


@reading
def read_grant(body: Mapping[str, Json]) -> Grant:
    return Grant(
        body["lock"],
        body["lease_id"],
        body["token"],
        body["owner"],
        body["ttl"],
        parse_time(body["acquired_at"]),
        parse_time(body["expires_at"]),
    )


@reading
def read_holder(body: Mapping[str, Json]) -> Holder:
    return _holder_from(body)


@reading
def read_page(body: Mapping[str, Json]) -> HolderPage:
    return HolderPage([_holder_from(each) for each in body["locks"]], body.get("next"))


def _holder_from(body: Mapping[str, Json]) -> Holder:
    return Holder(
        body["lock"],
        body["token"],
        body["owner"],
        body["ttl"],
        parse_time(body["acquired_at"]),
        parse_time(body["expires_at"]),
        body.get("waiters"),
    )

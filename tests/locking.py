"""Requests for locks, and what tests of locks compare."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx
from running import Server

INVALID_KEY = (400, "invalid_key")
INVALID_ARGUMENT = (400, "invalid_argument")
INVALID_JSON = (400, "invalid_json")
LOCK_NOT_FOUND = (404, "lock_not_found")
LEASE_LOST = (409, "lease_lost")
LOCK_HELD = (423, "lock_held")
MESSAGEPACK = "application/vnd.msgpack"
CLOCKS = timedelta(seconds=1)
"""How much the clocks of a test and of the service may differ."""
NO_LEASE = "0" * 32
"""A well-formed lease_id that no lease has."""

LOCK_MEMBERS = {"lock", "token", "owner", "acquired_at", "expires_at", "ttl"}
BAD_TTLS = [0, 0.999, -1, 2_592_000.001, 2_592_001, 1e300, 2**63, "30", "", True, False, [], {}]
BAD_WAITS = [-1, -0.001, 60.001, 61, 1e300, "5", "", True, False, [], {}]
BAD_LEASE_IDS = ["", "x" * 129, "a\tb", 5, True, [], {}]


def post(server: Server, lock: str, body: bytes, **options: Any) -> httpx.Response:
    return server.request("POST", f"/locks/{lock}", content=body, **options)


def lives(lease: Mapping[str, str], *, since: str = "acquired_at") -> timedelta:
    return datetime.fromisoformat(lease["expires_at"]) - datetime.fromisoformat(lease[since])

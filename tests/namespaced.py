"""A request for each route that is for one namespace, and the content of a namespace.

`ASKED` has each route of the table; `test_namespaces_are_isolated` fails if one is missing.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
from running import Server

_numbers = count(1)
UUID = "abcdef00-0000-4000-8000-0000000000aa"
MERGE = {"Content-Type": "application/merge-patch+json"}


def new_namespace(server: Server, **quota: Any) -> str:
    """The path of a new namespace: `/ns/test-1`."""
    path = f"/ns/test-{next(_numbers)}"
    response = server.request("PUT", path, json=quota)
    assert response.status_code == 201, response.text
    return path


@dataclass(frozen=True)
class Filled:
    """A namespace with one of everything, all of which contain `mark`."""

    path: str
    mark: str
    lease: Any
    """Of the lock `a`."""
    uuid_lease: Any
    """Of the lock UUID."""


def filled(server: Server, path: str, mark: str) -> Filled:
    """Fill an empty namespace. Equal requests fill it, so equal revisions of two of them are of equal things."""

    def made(method: str, target: str, body: Any, **options: Any) -> Any:
        response = server.request(method, path + target, json=body, **options)
        assert response.is_success, response.text
        return response.json() if response.content else None

    made("POST", "/kv/a", {"n": 1, "mark": mark})
    made("POST", f"/kv/{UUID}", {"mark": mark})
    made("POST", "/terraform/a", {"serial": 1, "mark": mark})
    made("POST", "/terraform/a", {"serial": 2, "mark": mark})
    lease = made("POST", "/locks/a", {"ttl": 600, "owner": mark})
    uuid_lease = made("POST", "/lock", {"lock_id": UUID, "ttl": 600, "owner": mark})
    made("POST", "/terraform/locked/lock", {"ID": "id", "Who": mark})
    return Filled(path, mark, lease, uuid_lease)


def content(server: Server, path: str) -> Any:
    """Everything that a namespace has, and its revision."""
    return [
        re.sub(r'"waiters":\d+', "", server.request("GET", f"{path}{target}").text)
        for target in ("/kv", "/locks", "/terraform/a", "/terraform/a/versions")
    ]


@dataclass(frozen=True)
class Asked:
    """A request. `reveals`: in the filled namespace its response contains the mark; otherwise it changes something."""

    target: str
    body: Any = None
    headers: Mapping[str, str] | None = None
    reveals: bool = False
    raw: bytes | None = None

    def send(self, server: Server, method: str, path: str, **headers: str) -> httpx.Response:
        sent = self.raw if self.raw is not None else None if self.body is None else json.dumps(self.body).encode()
        return server.request(method, path + self.target, content=sent, headers={**(self.headers or {}), **headers})


def _transaction(filled: Filled) -> Asked:
    operations = [{"op": "get", "key": "a"}, {"op": "put", "key": "new", "value": 1}]
    return Asked("/txn", {"if": [{"lease": filled.lease["lease_id"]}], "do": operations}, reveals=True)


def _of_lease(target: str) -> Callable[[Filled], Asked]:
    return lambda filled: Asked(target, {"lease_id": filled.lease["lease_id"], "ttl": 900})


ASKED: dict[tuple[str, str], Callable[[Filled], Asked]] = {
    ("GET", "/kv/{key}"): lambda _: Asked("/kv/a", reveals=True),
    ("POST", "/kv/{key}"): lambda _: Asked("/kv/a", 2),
    ("PUT", "/kv/{key}"): lambda filled: Asked("/kv/a", 2, {"If-Lease": filled.lease["lease_id"]}),
    ("PATCH", "/kv/{key}"): lambda _: Asked("/kv/a", {"n": 2}, MERGE),
    ("DELETE", "/kv/{key}"): lambda _: Asked("/kv/a"),
    ("DELETE", "/kv"): lambda _: Asked("/kv?prefix=a"),
    ("GET", "/kv"): lambda _: Asked("/kv?prefix=a", reveals=True),
    ("POST", "/set"): lambda _: Asked("/set", {"key": UUID, "value": 2}),
    ("GET", "/get/{uuid}"): lambda _: Asked(f"/get/{UUID}", reveals=True),
    ("GET", "/get"): lambda _: Asked("/get", reveals=True),
    ("GET", "/stream/{uuid}"): lambda _: Asked(f"/stream/{UUID}", reveals=True),
    ("GET", "/stream"): lambda _: Asked("/stream", reveals=True),
    ("POST", "/txn"): _transaction,
    ("POST", "/locks/{name}"): lambda _: Asked("/locks/a?wait=0", reveals=True),
    ("PUT", "/locks/{name}"): _of_lease("/locks/a"),
    ("DELETE", "/locks/{name}"): lambda filled: Asked("/locks/a", {"lease_id": filled.lease["lease_id"]}),
    ("GET", "/locks/{name}"): lambda _: Asked("/locks/a", reveals=True),
    ("GET", "/locks"): lambda _: Asked("/locks", reveals=True),
    ("POST", "/lock"): lambda _: Asked("/lock", {"lock_id": UUID, "wait": 0}, reveals=True),
    ("POST", "/renew"): lambda filled: Asked(
        "/renew", {"lock_id": UUID, "lease_id": filled.uuid_lease["lease_id"], "ttl": 900}
    ),
    ("DELETE", "/unlock"): lambda filled: Asked(
        "/unlock", {"lock_id": UUID, "lease_id": filled.uuid_lease["lease_id"]}
    ),
    ("POST", "/terraform/{state}/lock"): lambda _: Asked("/terraform/locked/lock", {"ID": "other"}, reveals=True),
    ("LOCK", "/terraform/{state}"): lambda _: Asked("/terraform/locked", {"ID": "other"}, reveals=True),
    ("DELETE", "/terraform/{state}/lock"): lambda _: Asked("/terraform/locked/lock", {"ID": "id"}),
    ("UNLOCK", "/terraform/{state}"): lambda _: Asked("/terraform/locked", {"ID": "id"}),
    ("GET", "/terraform/{state}/versions"): lambda _: Asked("/terraform/a/versions"),
    ("GET", "/terraform/{state}"): lambda _: Asked("/terraform/a", reveals=True),
    ("POST", "/terraform/{state}"): lambda _: Asked("/terraform/a", {"serial": 3}),
    ("PUT", "/terraform/{state}"): lambda _: Asked("/terraform/a", {"serial": 4}),
    ("DELETE", "/terraform/{state}"): lambda _: Asked("/terraform/a"),
    ("GET", "/watch"): lambda _: Asked("/watch?snapshot", reveals=True),
    ("GET", "/backup"): lambda _: Asked("/backup", reveals=True),
}

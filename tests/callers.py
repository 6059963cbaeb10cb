"""Callers with tokens, and requests that depend on what the token allows."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import jwt
from running import Server, Wire

from leasehold.access.token_minting import mint_token

SECRET = b"a-secret-of-more-than-32-bytes-for-tests"
UUID = "abcdef00-0000-4000-8000-0000000000aa"
UNAUTHENTICATED = (401, "unauthenticated")
FORBIDDEN = (403, "forbidden")
INSECURE = {"LEASEHOLD_INSECURE_OPEN": "true"}
CENTURY_SECONDS = 3_155_760_000.0
"""Tokens are made when this module is imported, and must be valid when the last test uses them, hours later."""


def token(
    *permissions: str,
    prefixes: list[str] | None = None,
    namespaces: list[str] | None = None,
    lifetime_seconds: float = CENTURY_SECONDS,
    secret: bytes = SECRET,
    subject: str = "ann",
) -> str:
    return mint_token(
        secret,
        subject,
        permissions,
        prefixes=prefixes,
        namespaces=namespaces,
        now=time.time(),
        lifetime_seconds=lifetime_seconds,
    )


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


READER = bearer(token("read"))
WRITER = bearer(token("write"))
BOTH = bearer(token("read", "write"))


def put(server: Server, key: str, value: Any = 1) -> None:
    assert server.put(key, json.dumps(value), headers=BOTH).status_code in (200, 201)


def routes(server: Server, *, permission: bool = True) -> list[tuple[str, str]]:
    """Method and target of all routes that need a permission, or of all routes that need none."""
    return [
        (
            method.upper(),
            re.sub(r"\{(key|name|state|namespace)\}", "a", path).replace("{uuid}", UUID),
        )
        for path, methods in server.contract.document["paths"].items()
        for method, operation in methods.items()
        if ({"bearer": []} in operation["security"]) == permission
    ]


def needs_admin(target: str) -> bool:
    """Whether a route is for namespaces themselves."""
    return target in ("/ns", "/ns/a")


def request(server: Server, method: str, target: str, headers: Mapping[str, str]) -> httpx.Response:
    bodies: dict[str, Any] = {"/set": {"value": 1}, "/txn": {"do": [{"op": "put", "key": "a", "value": 1}]}}
    body = bodies.get(target, 1)
    return server.request(method, target, headers=headers, content=json.dumps(body) if method[0] == "P" else None)


OF_ANOTHER = bearer(token("read", "write", subject="bob"))
GOOD = token("read", "write")
BAD: dict[str, dict[str, str]] = {
    "no header": {},
    "empty": {"Authorization": ""},
    "scheme alone": {"Authorization": "Bearer"},
    "no scheme": {"Authorization": GOOD},
    "Basic": {"Authorization": f"Basic {GOOD}"},
    "garbage": bearer("garbage"),
    "alg none": bearer(jwt.encode({"sub": "a", "exp": 4e9}, "", algorithm="none")),
    "another secret": bearer(token("read", "write", secret=b"x" * 32)),
    "tampered": bearer(GOOD[:-4] + "AAAA"),
    "expired": bearer(token("read", "write", lifetime_seconds=-3_600)),
    "no exp": bearer(jwt.encode({"sub": "a", "permissions": ["read"]}, SECRET)),
    "exp beyond all floats": bearer(jwt.encode({"sub": "a", "exp": 10**400}, SECRET)),
    "another algorithm": bearer(jwt.encode({"sub": "a", "exp": 4e9}, SECRET + SECRET, algorithm="HS512")),
    "jku": bearer(jwt.encode({"sub": "a", "exp": 4e9}, SECRET, headers={"jku": "http://localhost/"})),
    "too long": bearer(jwt.encode({"sub": "a", "exp": 4e9, "x": "x" * 4_096}, SECRET)),
}


def acquire(server: Server, lock: str, headers: Mapping[str, str], **asked: Any) -> httpx.Response:
    return server.request("POST", f"/locks/{lock}", json={"wait": 0} | asked, headers=headers)


# Names that prefixes cover -------------------------------------------------------------------------------------

NAMES = ["a", "a/1", "a/2", "ab", "b", "b/1", "c/1", "c/2", "c/3", "d", "ä/1", "🦊"]
PREFIX_SETS = [
    ["a/", "c/"],
    ["c", "a"],
    ["a", "a/", "a/1"],
    ["b/1"],
    ["ä", "🦊", "b"],
    ["x", "y"],
    ["d", "x", "c/3"],
    [],
]


def covered(prefixes: list[str], asked: str = "") -> list[str]:
    names = [name for name in NAMES if name.startswith(tuple(prefixes)) and name.startswith(asked)]
    return sorted(names, key=str.encode)


def pages(server: Server, headers: Mapping[str, str], *, of: str = "entries", **parameters: str) -> Iterator[list[str]]:
    path, name = {"entries": ("/kv", "key"), "locks": ("/locks", "lock")}[of]
    after: str | None = None
    while True:
        more = {} if after is None else {"after": after}
        page = server.request("GET", path, params=parameters | more, headers=headers).json()
        yield [each[name] for each in page[of]]
        after = page["next"]
        if after is None:
            return


# Hosts --------------------------------------------------------------------------------------------------------


def status_for_host(server: Server, host: str, *fields: str) -> int:
    lines = ["GET /kv/absent HTTP/1.1", f"Host: {host}", *fields, "", ""]
    with Wire(server) as wire:
        return wire.send("\r\n".join(lines).encode("latin-1")).answer().status

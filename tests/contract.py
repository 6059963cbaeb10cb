"""What holds for every answer: the description of the service (`/openapi.json`) documents it, and errors have one form.

The codes are repeated here, so that no code can change its status without a failing test.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

CODES: Mapping[int, frozenset[str]] = {
    400: frozenset({"invalid_json", "invalid_key", "invalid_path", "invalid_argument", "invalid_request"}),
    401: frozenset({"unauthenticated"}),
    403: frozenset({"forbidden"}),
    404: frozenset({"not_found", "path_not_found", "lock_not_found", "no_such_namespace", "no_such_route"}),
    405: frozenset({"method_not_allowed"}),
    406: frozenset({"not_acceptable"}),
    408: frozenset({"request_timeout"}),
    409: frozenset({"conflict", "lease_lost"}),
    410: frozenset({"revision_compacted"}),
    412: frozenset({"precondition_failed", "lease_lost"}),
    413: frozenset({"too_large"}),
    414: frozenset({"uri_too_long"}),
    415: frozenset({"unsupported_media_type"}),
    416: frozenset({"range_not_satisfiable"}),
    422: frozenset({"patch_failed", "idempotency_key_reused"}),
    426: frozenset({"upgrade_required"}),
    428: frozenset({"precondition_required"}),
    423: frozenset({"lock_held"}),
    429: frozenset({"too_many_requests"}),
    431: frozenset({"headers_too_large"}),
    500: frozenset({"internal"}),
    501: frozenset({"not_implemented"}),
    503: frozenset({"unavailable"}),
    507: frozenset({"quota_exceeded", "storage_full"}),
}
"""The statuses of the errors that a caller may get."""

STATE = re.compile("/terraform/(?!.*/versions$).+", re.DOTALL)
"""The path of a state, which is sent as it is: it may lack a newline at its end."""
IN_NAMESPACE = re.compile("/ns/[^/]*(?=/)")
"""How a path in a namespace begins. The description shows it as a server, not as a part of each path."""
SAME_AS = {"LOCK": ("POST", "/lock"), "UNLOCK": ("DELETE", "/lock")}
"""What is appended to the path for a request of another method that does the same."""

INTERNALS = re.compile(
    "|".join(
        [
            "Traceback",
            r"\.py\b",
            r"[a-z]Error\b",
            r"Exception\b",
            r"\bobject at 0x",
            "site-packages",
            "msgspec",
            "httptools",
            "uvloop",
        ]
        + [re.escape(path) for path in {sys.prefix, str(Path.cwd()), str(Path.home())} if path != os.sep]
    )
)
"""Texts that must never leave the service."""


def error_members(status: int, body: Any) -> Mapping[str, Any]:
    """Check the form of an error. Returns its members."""
    assert isinstance(body, dict)
    assert body["error"] in CODES.get(status, ()), f"{status} with {body['error']}"
    assert all(isinstance(body[name], str) and body[name] != "" for name in ("message", "request_id"))
    assert not INTERNALS.search(repr(body)), f"internals in an error: {body}"
    return body


class Contract:
    """The description of one server, to check its answers."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._patterns = {
            re.compile(re.sub(r"\\{\w+\\}", ".*", re.escape(pattern)) + r"\Z", re.DOTALL): operations
            for pattern, operations in document.get("paths", {}).items()
        }

    def resolve(self, node: Any) -> Any:
        """`node`, or the object that its `$ref` refers to."""
        while "$ref" in node:
            target: Any = self.document
            for segment in node["$ref"].removeprefix("#/").split("/"):
                target = target[segment]
            node = target
        return node

    def check(self, response: httpx.Response) -> None:
        """Fail unless the description documents this answer."""
        request, status = response.request, response.status_code
        asked = f"{request.method} {request.url.raw_path.decode()}"
        assert response.headers["X-Request-Id"], f"{asked}: an answer without its request id"
        may_be_kept = request.method in ("GET", "HEAD") and status in (200, 206, 304) and "ETag" in response.headers
        assert response.headers["Cache-Control"] == ("no-cache" if may_be_kept else "no-store"), asked
        path = IN_NAMESPACE.sub("", request.url.path, count=1)
        is_state = STATE.fullmatch(path) is not None and request.method == "GET" and status == 200
        if response.headers.get("Content-Type") == "application/json" and request.method != "HEAD" and not is_state:
            assert response.content.endswith(b"\n"), f"{asked} answered {status} without a newline at the end"
        is_sequence = path in ("/stream", "/watch") and status == 200
        body = None if request.method == "HEAD" or is_sequence or is_state else _decoded(response)
        if request.method == "OPTIONS" and status == 204:
            assert response.content == b""
            assert "OPTIONS" in response.headers["Allow"], asked
            return
        documented = self._documented(request, status)
        if status >= 400 and body is not None and not self._is_health(documented):
            assert error_members(status, body)["request_id"] == response.headers["X-Request-Id"]
        if documented is None:
            is_way_to_console = request.url.path == "/" and status == 302
            is_refusal = status in (400, 403, 404, 405, 406, 414, 431, 501)
            assert is_refusal or is_way_to_console, f"{asked} answered {status}, but is no route"
            return
        headers = documented.get("headers", {})
        missing = [name for name in headers if headers[name].get("required", True) and name not in response.headers]
        assert not missing, f"{asked} answered {status} without {missing}"
        if "content" not in documented:
            assert response.content == b"", f"{asked} answered {status} with a body"
        elif request.method != "HEAD":
            documented_types = documented["content"]
            media = documented_types.get(response.headers["Content-Type"].partition(";")[0]) or documented_types["*/*"]
            items = sequence(response) if is_sequence else [body]
            faults = [fault for item in items for fault in self.faults(media["schema"], item)]
            assert not faults, f"{asked} answered {status} with {faults}"

    def _documented(self, request: httpx.Request, status: int) -> Any:
        """What the description says about such an answer; None if there is no route."""
        whole = request.url.raw_path.partition(b"?")[0].decode()
        path = IN_NAMESPACE.sub("", whole, count=1)
        method = request.method.replace("HEAD", "GET")
        if method in SAME_AS and STATE.fullmatch(path):  # OpenAPI cannot describe it
            method, end = SAME_AS[method]
            path += end
        operations: Any = next((each for pattern, each in self._patterns.items() if pattern.match(path)), None) or {}
        operation = operations.get(method.lower())
        if operation is None or (path != whole and "servers" not in operation):
            return None
        assert str(status) in operation["responses"], f"{request.method} {path} answered {status}: not documented"
        return self.resolve(operation["responses"][str(status)])

    def _is_health(self, documented: Any) -> bool:
        """The only answer that is neither a success nor an error."""
        content = (documented or {}).get("content", {"": {"schema": {}}})
        return any(media["schema"].get("$ref") == "#/components/schemas/Health" for media in content.values())

    def faults(self, schema: Any, value: Any, *, at: str = "") -> list[str]:
        """Where `value` violates `schema`. Supports the part of JSON Schema that the description uses."""
        schema = self.resolve(schema)
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        found = self._faults_of_any(schema.get("anyOf", ()), value, at=at)
        if kinds and not any(_is(value, kind) for kind in kinds):
            found.append(f"{at or '/'} is no {' or '.join(kinds)}")
        if "const" in schema and value != schema["const"]:
            found.append(f"{at} is not {schema['const']}")
        if "enum" in schema and value not in schema["enum"]:
            found.append(f"{at} is none of {schema['enum']}")
        if "minimum" in schema and value is not None and value < schema["minimum"]:
            found.append(f"{at} is less than {schema['minimum']}")
        if isinstance(value, dict):
            members = schema.get("properties", {})
            found += [f"{at}/{name} is missing" for name in schema.get("required", ()) if name not in value]
            if schema.get("additionalProperties") is False:
                found += [f"{at}/{name} is not documented" for name in value if name not in members]
            for name in members.keys() & value.keys():
                found += self.faults(members[name], value[name], at=f"{at}/{name}")
        if isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                found += self.faults(schema["items"], item, at=f"{at}/{index}")
        return found

    def _faults_of_any(self, schemas: Sequence[Any], value: Any, *, at: str) -> list[str]:
        """The faults, unless `value` fits one of the schemas."""
        each = [self.faults(schema, value, at=at) for schema in schemas]
        return [] if [] in each else [fault for faults in each for fault in faults]


def _decoded(response: httpx.Response) -> Any:
    kind = response.headers.get("Content-Type")
    if kind in (None, "application/json", "application/vnd.msgpack"):
        if not response.content:
            return None
        return (msgspec.msgpack if kind == "application/vnd.msgpack" else msgspec.json).decode(response.content)
    return response.content.decode("latin-1")  # a text, or a value that is bytes


def sequence(response: httpx.Response) -> list[Any]:
    """The items of an answer from `/stream`, or the events of one from `/watch`."""
    if response.headers["Content-Type"] == "application/vnd.msgpack":
        return messagepack_sequence(response.content)
    if response.headers["Content-Type"] == "text/event-stream":
        assert response.content.endswith(b"\n\n")
        return [server_sent(text) for text in response.content.decode().split("\n\n")[:-1]]
    assert response.content.endswith(b"\n") or not response.content
    return [msgspec.json.decode(line) for line in response.content.splitlines()]


def server_sent(text: str) -> dict[str, Any]:
    """An event of `text/event-stream`, as the other representations show it. `data` comes first, and `id` last."""
    fields = [line.split(": ", 1) for line in text.split("\n")]
    assert [name for name, _ in fields] == ["data", "event", "id"][: len(fields)], text
    event: dict[str, Any] = dict(fields)
    event["data"] = msgspec.json.decode(event["data"])
    if "id" in event:
        event["id"] = int(event["id"])
    return event


def messagepack_sequence(data: bytes) -> list[Any]:
    """The MessagePack values in `data`, one after the other."""
    items = []
    begin = 0
    while begin < len(data):
        end = _end_of_item(data, begin)
        items.append(msgspec.msgpack.decode(data[begin:end]))
        begin = end
    return items


_FIXED_SIZES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {0xCC + n: 1 << n for n in range(4)}
_FIXED_SIZES |= {0xD0 + n: 1 << n for n in range(4)}


def _end_of_item(data: bytes, begin: int) -> int:
    """The end of the MessagePack value that begins here. Extensions are not supported."""
    kind, begin = data[begin], begin + 1
    if kind < 0x80 or kind >= 0xE0:
        return begin
    if kind in _FIXED_SIZES:
        return begin + _FIXED_SIZES[kind]
    if 0xA0 <= kind < 0xC0:
        return begin + (kind & 0x1F)
    if kind < 0xA0:
        parts = 2 * (kind & 0x0F) if kind < 0x90 else kind & 0x0F
    else:  # the length has 1, 2 or 4 bytes
        width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}[kind]
        length, begin = int.from_bytes(data[begin : begin + width], "big"), begin + width
        if kind <= 0xDB:
            return begin + length
        parts = length if kind <= 0xDD else 2 * length
    for _ in range(parts):
        begin = _end_of_item(data, begin)
    return begin


def _is(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else (int, float)) and not isinstance(value, bool)
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, types[kind])

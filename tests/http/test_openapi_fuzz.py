"""Random requests, generated from `/openapi.json` alone, get documented answers and cause no internal error.

They use every route and method, with valid and invalid parameters, headers and bodies. A request with an idempotency
key is sent twice, and some have the key of another one. `Server.request` checks each answer against the description
(see `contract`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx
import msgspec
import pytest
from contract import Contract
from harness import depth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import Server, Wire, message, refusal, running

EXAMPLES = depth(1_500)
"""In the first turn, for all routes."""
MORE_EXAMPLES = 100
"""In each of the turns after it, which go on until the requests have met enough. Three quarters of their requests are
for the routes where something was not met."""
MOST_TURNS = 50
CHANGING = ("DELETE", "PATCH", "POST", "PUT")
"""The methods that change something."""
MAY_CHANGE_NOTHING = {"POST /txn", "DELETE /kv", "POST /terraform/{state}/lock", "DELETE /terraform/{state}/lock"}
"""Their requests may succeed and have nothing to change, so their outcome is not kept."""
FUZZ_KEYS = ["fuzz/a", "fuzz/ä"]
OWN_LEASE = "f" * 32
"""Stands in a request for the lease_id that was given out last for its lock."""
NO_LEASE = "0" * 32
FUZZ_UUIDS = ["123e4567-e89b-12d3-a456-42661417400a", "123E4567-E89B-12D3-A456-42661417400A"]

QUOTA_LIMITS = st.sampled_from([0, 1, 100, None, None, 2**53 - 1, -1, 2**53, 1.5, True, "1"])
FUZZ_NAMESPACES = st.sampled_from(["fuzz-a", "fuzz-b", "Fuzz", "x" * 64, "%2F", "%ff"])
"""Those that are created, changed and deleted."""
USED_NAMESPACES = st.sampled_from(["fuzz", "fuzz", "default", "fuzz-a", "missing", "..", "%66uzz"])
"""Those of other requests. `fuzz` exists, and `fuzz-a` sometimes."""
QUOTAS = st.fixed_dictionaries({}, optional=dict.fromkeys(("max_entries", "max_bytes", "spam"), QUOTA_LIMITS))
LEASE_IDS = st.sampled_from([OWN_LEASE] * 9 + [NO_LEASE, "", "x" * 129])
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", "a", "b", "0", "\0", "..", "/", "*", "a" * 600, "\ud7ff", "%00", "🦊"]
)


def encode_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def values(integers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | integers | st.floats(allow_nan=True) | TEXTS,
        lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=4),
        max_leaves=10,
    )


JSON = values(st.integers())
MESSAGEPACK = values(st.integers(-(2**63), 2**64 - 1))
PATHS = st.sampled_from(["", "/", "/a", "/a/0", "/a/-", "/b/c", "/~1", "/0", "/-", "/a/b/c/d", "a", "/~", "/~2"])
UUIDS = st.sampled_from(FUZZ_UUIDS)
KEYS = st.sampled_from(FUZZ_KEYS) | st.sampled_from(FUZZ_KEYS) | TEXTS.map("fuzz/{}".format)
TAGS = st.sampled_from(["*", '"2-bytes"', '"1"', 'W/"1"', '"1-raw"', '"1", "2"', "1", '"', "", '"\xff"', "*,*"])
HEADER_TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
MEDIA = st.sampled_from(
    [
        "application/json",
        "application/vnd.msgpack",
        "application/x-ndjson",
        "application/merge-patch+json",
        "application/json-patch+json",
        "text/plain",
        "text/plain; charset=latin-1",
        "image/png",
        "image/*",
        "application/octet-stream",
        "application/json; charset=utf-16",
        "*/*",
        "application/*;q=0.5, text/html",
        "text/html",
        ";",
    ]
)
LOCK_INFOS = st.fixed_dictionaries(
    {"ID": st.sampled_from(["a", "a", "b", ""])}, optional={"Who": TEXTS, "Info": MESSAGEPACK}
)
ANY_BODY = st.tuples(st.none() | MEDIA, JSON.map(encode_json) | st.binary(max_size=40))


def steps_of(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "spam"]), "path": PATHS},
            optional={"from": PATHS, "value": parts},
        ),
        max_size=4,
    )


PATCH_STEPS = steps_of(JSON)
SETS = st.fixed_dictionaries(
    {"value": MESSAGEPACK},
    optional={
        "key": UUIDS | UUIDS | TEXTS | st.none(),
        "path": PATHS | st.lists(st.sampled_from(["a", "0", "-", 0, "", True, None]), max_size=3) | st.none(),
        "ttl": st.floats(0, 1e9) | st.integers(0, 100) | st.none() | st.just("keep") | TEXTS,
        "spam": st.none(),
    },
)
_TTLS: dict[str, st.SearchStrategy[Any]] = {"ttl": st.sampled_from([30, 1e6, "keep", None])}
TRANSACTION_OPERATIONS = st.one_of(
    st.fixed_dictionaries({"op": st.just("get"), "key": KEYS}),
    st.fixed_dictionaries({"op": st.just("put"), "key": KEYS, "value": MESSAGEPACK}, optional=_TTLS),
    st.fixed_dictionaries({"op": st.just("put"), "key": KEYS, "value": MESSAGEPACK, "path": PATHS}),
    st.fixed_dictionaries(
        {"op": st.just("put"), "key": KEYS, "base64": st.sampled_from(["", "AP8=", "AP8=", "AP8", 1])},
        optional={**_TTLS, "media": st.sampled_from(["image/png", "text/plain; a=b", None, "text/html", ""])},
    ),
    st.fixed_dictionaries({"op": st.just("increment"), "key": KEYS, "value": MESSAGEPACK}, optional={"path": PATHS}),
    st.fixed_dictionaries({"op": st.just("merge"), "key": KEYS, "value": MESSAGEPACK}, optional=_TTLS),
    st.fixed_dictionaries({"op": st.just("patch"), "key": KEYS, "patch": steps_of(MESSAGEPACK)}),
    st.fixed_dictionaries({"op": st.just("delete"), "key": KEYS}),
    st.fixed_dictionaries({}, optional={"op": TEXTS, "key": MESSAGEPACK, "value": MESSAGEPACK, "ttl": MESSAGEPACK}),
)
VALID_CHECKS = st.one_of(
    st.fixed_dictionaries({"key": KEYS, "revision": st.none() | st.integers(1, 50)}),
    st.fixed_dictionaries({"key": KEYS, "exists": st.booleans()}),
)
CHECKS = st.one_of(
    VALID_CHECKS,
    st.fixed_dictionaries({"key": KEYS, "value": MESSAGEPACK}, optional={"path": PATHS}),
    st.fixed_dictionaries({"lease": LEASE_IDS}),
    st.fixed_dictionaries({}, optional={"key": MESSAGEPACK, "revision": MESSAGEPACK, "exists": MESSAGEPACK}),
)
VALID_TRANSACTIONS = st.fixed_dictionaries(
    {"do": st.sampled_from([[{"op": "get", "key": "fuzz/a"}], [{"op": "delete", "key": "fuzz/missing"}]])},
    optional={"if": st.lists(VALID_CHECKS, min_size=1, max_size=2)},
)
"""Some of them are refused because of a check or of the missing entry. Few of the other transactions are valid."""
TRANSACTIONS = VALID_TRANSACTIONS | st.fixed_dictionaries(
    {"do": st.lists(TRANSACTION_OPERATIONS, min_size=1, max_size=2) | st.lists(TRANSACTION_OPERATIONS)},
    optional={"if": st.lists(CHECKS, max_size=2) | st.none()},
)
WAITS = st.sampled_from([0, 0, 0, 0, 0.01, 0.02, 0.1, -1, 61, True])
"""Short ones, and bad ones. An acquisition always has one: the usual wait is five seconds."""
LEASE_TTLS = st.sampled_from([30, 60.5, 1_000, 3_600, 86_399.5, 2_592_000, None, 0, 2_592_001, "30"])
TOKENS = st.none() | st.integers(0, 100) | st.sampled_from([True, "1", 1.5])
FORCES = st.sampled_from([None, False, False, True, "true"])
ASKED: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "Acquire": {"wait": WAITS, "ttl": LEASE_TTLS, "owner": MESSAGEPACK},
    "Renew": {"lease_id": LEASE_IDS, "ttl": LEASE_TTLS},
    "Release": {"lease_id": LEASE_IDS, "token": TOKENS, "force": FORCES},
}
"""What a body for a lock may hold, by the name of its schema; the first is always there."""
IN_BODY = {"wait", "lock_id", "lease_id"}
"""Parameters that stand in the body as well. Each request has them here or there."""


ENTRIES = b"".join(
    (
        message("PUT", f"/kv/{FUZZ_UUIDS[0]}", "Prefer: return=minimal", body=b'{"a": [1, {"b": null}]}'),
        message("PUT", "/kv/fuzz/a", body=b'{"a": [1, {"b": null}], "b": "text", "0": 0}'),
        message("PUT", f"/kv/{quote(FUZZ_KEYS[1])}", "Content-Type: image/png", body=b"bytes"),
    )
)
"""Requests for what is there before each drawn request."""


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server of its own, so that its whole list stays short."""
    with running() as started:
        assert started.request("PUT", "/ns/fuzz").status_code == 201
        yield started


HEADER_FIELDS = dict.fromkeys(["If-Match", "If-None-Match", "If-Range"], TAGS) | {
    "Range": st.sampled_from(["bytes=0-0", "bytes=-2", "bytes=1-", "bytes=0-0,2-3", "bytes=99-", "bytes=-0"]),
    "Idempotency-Key": st.sampled_from(["a", '"a"', '"b', "c"]) | st.integers(0, 9999).map(str),
}


def texts_for(parameter: Any) -> st.SearchStrategy[str]:
    """Texts that fit a parameter, mostly."""
    schema = parameter["schema"]
    schema = schema.get("items", schema)
    if parameter["name"] == "path":
        fitting: st.SearchStrategy[str] = PATHS
    elif parameter["name"] in HEADER_FIELDS:
        fitting = HEADER_FIELDS[parameter["name"]]
    elif parameter["name"] == "wait":
        return WAITS.map(str)
    elif parameter["name"] in ("lease_id", "If-Lease"):
        fitting = LEASE_IDS
    elif parameter["name"] == "lock_id":
        fitting = UUIDS
    elif "anyOf" in schema:  # of the ttl
        fitting = st.sampled_from(["30", "0.1", "keep", "0"])
    elif schema["type"] == "boolean":
        fitting = st.sampled_from(["true", "false", "", "yes"])
    elif schema["type"] == "integer":
        low, high = schema["minimum"], schema.get("maximum", 100)
        fitting = st.integers(low - 1, high + 1).map(str)
    elif schema["type"] == "number":
        fitting = st.floats(schema["minimum"] / 2, schema["maximum"] * 2).map(str)
    else:
        fitting = st.sampled_from(["fuzz", "fuzz/a", "return=minimal"]) | TEXTS
    return fitting


Body = tuple[str | None, bytes]
"""With its media type."""
BOOLEANS = st.booleans()
UP_TO_1, UP_TO_2, UP_TO_3, UP_TO_4, UP_TO_9 = (st.integers(0, most) for most in (1, 2, 3, 4, 9))
SELDOM = st.sampled_from([UP_TO_3, UP_TO_9])
ANY_FUZZ_KEY = st.sampled_from(FUZZ_KEYS)
ANY_UUIDS = UUIDS | UUIDS | TEXTS
ACCEPTED = MEDIA | HEADER_TEXTS


def fitting_bodies(operation: Any) -> st.SearchStrategy[Body]:
    """Those that fit, with the media type that belongs to them."""
    fitting: list[st.SearchStrategy[Body]] = []
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        name = content["schema"]["$ref"].rpartition("/")[2]
        encode = msgspec.msgpack.encode if media == "application/vnd.msgpack" else encode_json
        if name == "Bytes":
            fitting.append(st.tuples(st.just(media.replace("*", "png")), st.binary(max_size=40)))
            continue
        if name == "LockInfo":
            texts = LOCK_INFOS.map(encode)
        elif name == "Set":
            texts = SETS.map(encode)
        elif name == "Transaction":
            texts = TRANSACTIONS.map(encode)
        elif name == "Quota":
            texts = QUOTAS.map(encode)
        elif name.removesuffix("ByUuid") in ASKED:
            texts = asked_for(name).map(encode)
        elif media == "application/vnd.msgpack":
            texts = MESSAGEPACK.map(encode)
        else:
            texts = (PATCH_STEPS if media == "application/json-patch+json" else JSON).map(encode)
        fitting.append(st.tuples(st.just(media), texts))
    return st.one_of(*fitting)


def asked_for(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """What a body asks for a lock, by the name of its schema."""
    members = dict(ASKED[name.removesuffix("ByUuid")])
    first = next(iter(members))
    always = {first: members.pop(first)}
    if name.endswith("ByUuid"):
        always["lock_id"] = st.sampled_from([*FUZZ_UUIDS * 3, "a", None])
    return st.fixed_dictionaries(always, optional=members)


class Sent(NamedTuple):
    """A request to send."""

    route: str
    lock: str
    """The lock that it is about, if it is about one."""
    method: str
    target: str
    headers: dict[str, bytes]
    body: bytes

    def with_lease(self, lease_id: str) -> Self:
        """With the secret where it stands for it."""
        name, secret = OWN_LEASE.encode(), lease_id.encode()
        return self._replace(
            target=self.target.replace(OWN_LEASE, lease_id),
            headers={field: text.replace(name, secret) for field, text in self.headers.items()},
            body=self.body.replace(name, secret),
        )


class Parameter(NamedTuple):
    """A parameter in the query or in a header, with the values that fit, mostly, and with any others.

    A value for the query is a list: one for each time that the parameter occurs.
    """

    name: str
    is_header: bool
    is_required: bool
    fitting: st.SearchStrategy[Any]
    others: st.SearchStrategy[Any]


class Route(NamedTuple):
    """A route with one of its methods. What is drawn for it is defined once, because a definition takes long."""

    path: str
    method: str
    parameters: Sequence[Parameter]
    bodies: st.SearchStrategy[Body] | None
    """None: it has no body."""
    needs_body: bool
    in_namespace: bool
    """Whether its path may begin with a namespace."""
    statuses: frozenset[int]
    """Those that the description names."""

    @property
    def is_repeatable(self) -> bool:
        return any(parameter.name == "Idempotency-Key" for parameter in self.parameters)


def route_of(path: str, method: str, operation: Any) -> Route:
    parameters = [parameter_of(described) for described in operation["parameters"] if described["in"] != "path"]
    bodies, needs_body = None, False
    if method != "get":
        bodies = fitting_bodies(operation)
        needs_body = operation.get("requestBody", {"required": True})["required"]
    statuses = frozenset(map(int, operation["responses"]))
    bodies = bodies | ANY_BODY if bodies is not None and needs_body else bodies
    return Route(path, method, parameters, bodies, needs_body, "servers" in operation, statuses)


def parameter_of(described: Any) -> Parameter:
    name, is_header = described["name"], described["in"] == "header"
    fitting: st.SearchStrategy[Any] = texts_for(described)
    others: st.SearchStrategy[Any] = TEXTS
    if is_header:
        fitting, others = fitting.filter(is_header_text), HEADER_TEXTS
    else:
        most = 1 if name in IN_BODY else 2
        fitting, others = (st.lists(texts, min_size=1, max_size=most) for texts in (fitting, others))
    return Parameter(name, is_header, described.get("required", False), fitting, others)


def routes_of(contract: Contract) -> dict[str, Route]:
    """By method and path: `GET /kv/{key}`."""
    return {
        f"{method.upper()} {path}": route_of(path, method, operation)
        for path, methods in contract.document["paths"].items()
        for method, operation in methods.items()
    }


def often_drawn(routes: Iterable[str]) -> list[str]:
    """The routes, some of them several times."""
    # Where there is most to find:
    several = [each for each in routes if any(part in each for part in ("{key}", "lock", " /renew", " /txn"))]
    # Those that only seldom fit: they have so many parameters, a patch needs what it changes, and a state its lock.
    several += 3 * ["GET /kv", "GET /get", "PATCH /kv/{key}", "POST /terraform/{state}"]
    return [*routes, *2 * several, *10 * ["GET /kv/{key}"]]


@st.composite
def requests_of(draw: st.DrawFn, routes: st.SearchStrategy[Route]) -> Sent:
    route = draw(routes)
    name = draw(KEYS if draw(UP_TO_2) == 0 else ANY_FUZZ_KEY)
    target = route.path.replace("{key}", quote(name)).replace("{name}", quote(name)).replace("{state}", quote(name))
    target = target.replace("{uuid}", quote(draw(ANY_UUIDS))).replace("{namespace}", draw(FUZZ_NAMESPACES))
    if route.in_namespace and draw(UP_TO_3) == 0:
        target = f"/ns/{draw(USED_NAMESPACES)}{target}"
    query: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    asks_in_body = draw(BOOLEANS)
    seldom = draw(SELDOM)
    for parameter in route.parameters:
        most = UP_TO_1 if parameter.name in ("Range", "Idempotency-Key") else seldom
        wanted = not asks_in_body if parameter.name in IN_BODY else draw(most) == 0
        wanted = wanted or (parameter.is_required and draw(UP_TO_9) > 0)
        if not wanted:
            continue
        drawn = draw(parameter.others if draw(UP_TO_3) == 0 else parameter.fitting)
        if parameter.is_header:
            headers[parameter.name] = drawn
        else:
            query += [(parameter.name, text) for text in drawn]
    if draw(UP_TO_9) == 0:
        query.append((draw(TEXTS), draw(TEXTS)))
    if draw(UP_TO_3) == 0:
        headers["Accept"] = draw(ACCEPTED)
    if draw(UP_TO_3) == 0:
        headers["X-Request-Id"] = draw(HEADER_TEXTS)
    media, body = draw_body(draw, route, asks_in_body=asks_in_body)
    if media is not None:
        headers["Content-Type"] = media
    if query:
        target += "?" + "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in query)
    encoded = {name: text.strip().encode("latin-1") for name, text in headers.items()}
    lock = name if "{name}" in route.path else FUZZ_UUIDS[0]
    method = route.method.upper()
    return Sent(f"{method} {route.path}", lock, method, target, encoded, body)


def draw_body(draw: st.DrawFn, route: Route, *, asks_in_body: bool) -> Body:
    if route.bodies is not None and (route.needs_body or asks_in_body):
        return draw(route.bodies)
    return draw(ANY_BODY) if route.bodies is not None and draw(UP_TO_4) == 0 else (None, b"")


def is_header_text(text: str) -> bool:
    return all(" " <= character <= "\xff" and character != "\x7f" for character in text)


REPEATED = "repeated"
"""In place of a status: the request was done before, with its idempotency key."""
Met = tuple[str, int | str]
"""A route, and the status of an answer or `REPEATED`."""


class Goal(NamedTuple):
    """What must have been met: one of these routes has answered like this."""

    routes: frozenset[str]
    outcome: int | str

    def is_met(self, seen: set[Met]) -> bool:
        return any((route, self.outcome) in seen for route in self.routes)


OF_STATES = [
    *(f"{method} /terraform/{{state}}" for method in ("GET", "POST")),
    *(f"{method} /terraform/{{state}}/lock" for method in ("POST", "DELETE")),
    "GET /terraform/{state}/versions",
]


def goals_of(routes: Mapping[str, Route]) -> list[Goal]:
    """Statuses of some routes and of any; methods that succeed, and are repeated; what is done with locks."""

    def by(method: str, names: Iterable[str] = routes) -> frozenset[str]:
        return frozenset(name for name in names if name.startswith(f"{method} "))

    repeatable = [name for name, route in routes.items() if route.is_repeatable]
    of_locks = [name for name in routes if "lock" in name]
    return [
        *(Goal(frozenset([name]), 200) for name in ("GET /watch", "GET /kv", "DELETE /kv", "GET /get", *OF_STATES)),
        *(Goal(frozenset(["POST /txn"]), status) for status in (200, 400, 404, 412)),
        *(
            Goal(frozenset(name for name, route in routes.items() if status in route.statuses), status)
            for status in (200, 201, 206, 400, 404, 406, 409, 412, 415, 422, 423)
        ),
        *(Goal(by(method, repeatable), REPEATED) for method in CHANGING),
        *(Goal(by(method), 200) for method in ("GET", *CHANGING)),
        *(
            Goal(by(method, of_locks), status)
            for method, status in (("POST", 201), ("PUT", 200), ("DELETE", 200), ("GET", 200))
        ),
    ]


@pytest.mark.long
def test_every_random_request_gets_a_documented_answer(own: Server) -> None:
    routes = routes_of(own.contract)
    goals = goals_of(routes)
    often = often_drawn(routes)
    seen: set[Met] = set()
    leases: dict[str, str] = {}

    def send(drawn: Sent) -> None:
        # A connection of its own: a request may wait for a lock for longer than a connection may be idle.
        with Wire(own) as entries:
            entries.send(ENTRIES)
            assert all(entries.answer().status in (200, 201) for _ in range(3))
        request = drawn.with_lease(leases.get(drawn.lock, NO_LEASE))
        response = own.request(request.method, request.target, headers=request.headers, content=request.body)
        assert response.status_code < 500 or refusal(response) == (507, "quota_exceeded")
        seen.add((request.route, response.status_code))
        if "Idempotency-Key" in request.headers:
            again = own.request(request.method, request.target, headers=request.headers, content=request.body)
            if "Idempotent-Replayed" in again.headers:
                assert (again.status_code, again.content) == (response.status_code, response.content)
                seen.add((request.route, REPEATED))
            elif response.is_success and request.method in CHANGING:
                assert request.route in MAY_CHANGE_NOTHING, f"{request} was done twice"
        if request.route == "POST /terraform/{state}/lock" and response.is_success:
            # Most runs would end with all states locked, and then nothing is ever saved again. The other one stays so.
            own.request("DELETE", f"/terraform/{quote(FUZZ_KEYS[1])}/lock")
        # The lock of a Terraform state has no lease_id.
        if "lock" in request.route and "terraform" not in request.route and response.status_code == 201:
            leases[request.lock] = lease_id_in(response)

    def send_requests_of(strategy: st.SearchStrategy[Route], examples: int) -> None:
        # With CI=true, Hypothesis would draw the same requests in each turn.
        bounds = settings(
            derandomize=False,
            max_examples=examples,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        bounds(given(requests_of(strategy))(send))()

    send_requests_of(st.sampled_from([routes[name] for name in often]), EXAMPLES)
    for _ in range(MOST_TURNS):
        missing = sorted({name for goal in goals if not goal.is_met(seen) for name in goal.routes})
        if not missing:
            break
        most = missing * (3 * len(often) // len(missing))
        send_requests_of(st.sampled_from([routes[name] for name in (*often, *most)]), MORE_EXAMPLES)
    assert [goal for goal in goals if not goal.is_met(seen)] == [], "the requests are too dull"
    assert "Traceback" not in own.log()


def lease_id_in(response: httpx.Response) -> str:
    packed = response.headers["Content-Type"] == "application/vnd.msgpack"
    lease_id = (msgspec.msgpack if packed else msgspec.json).decode(response.content)["lease_id"]
    assert isinstance(lease_id, str)
    return lease_id

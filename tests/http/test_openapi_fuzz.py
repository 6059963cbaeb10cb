"""Random requests made from `/openapi.json` alone: every route and method, right and wrong parameters, headers, bodies.

Whatever is sent, the answer is one that the description documents, in its documented form, and never a fault of the
service. (`Server.request` holds each answer against the description; see `contract`.)
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from contract import Contract
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import Server, running

EXAMPLES = 3_000
FUZZ_KEYS = ["fuzz/a", "fuzz/ä"]
FUZZ_UUIDS = ["123e4567-e89b-12d3-a456-42661417400a", "123E4567-E89B-12D3-A456-42661417400A"]

TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", "a", "b", "0", "\0", "..", "/", "*", "a" * 600, "\ud7ff", "%00", "🦊"]
)


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
TAGS = st.sampled_from(["*", '"1"', 'W/"1"', '"1-raw"', '"1", "2"', "1", '"', "", '"\xff"', "*,*"])
HEADER_TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
MEDIA = st.sampled_from(
    [
        "application/json",
        "application/vnd.msgpack",
        "application/x-ndjson",
        "application/merge-patch+json",
        "application/json-patch+json",
        "text/plain",
        "application/json; charset=utf-16",
        "*/*",
        "application/*;q=0.5, text/html",
        "text/html",
        ";",
    ]
)
PATCH_STEPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "spam"]), "path": PATHS},
        optional={"from": PATHS, "value": JSON},
    ),
    max_size=4,
)
SETS = st.fixed_dictionaries(
    {"value": MESSAGEPACK},
    optional={
        "key": UUIDS | UUIDS | TEXTS | st.none(),
        "path": PATHS | st.lists(st.sampled_from(["a", "0", "-", 0, "", True, None]), max_size=3) | st.none(),
        "ttl": st.floats(0, 1e9) | st.integers(0, 100) | st.none() | TEXTS,
        "spam": st.none(),
    },
)


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server of its own, so that its whole list stays short."""
    with running() as started:
        yield started


def texts_for(parameter: Any) -> st.SearchStrategy[str]:
    """Texts that fit a parameter, mostly, and some that do not."""
    schema = parameter["schema"]
    schema = schema.get("items", schema)
    if parameter["name"] == "path":
        fitting: st.SearchStrategy[str] = PATHS
    elif parameter["name"] in ("If-Match", "If-None-Match"):
        fitting = TAGS
    elif schema["type"] == "boolean":
        fitting = st.sampled_from(["true", "false", "", "yes"])
    elif schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        fitting = st.integers(low - 1, high + 1).map(str)
    elif schema["type"] == "number":
        fitting = st.floats(schema["minimum"] / 2, schema["maximum"] * 2).map(str)
    else:
        fitting = st.sampled_from(["fuzz", "fuzz/a", "return=minimal"]) | TEXTS
    return fitting | fitting | fitting | TEXTS


def bodies_for(operation: Any) -> st.SearchStrategy[tuple[str | None, bytes]]:
    """A media type and a body: those that belong together, and others."""
    fitting: list[st.SearchStrategy[tuple[str | None, bytes]]] = []
    for media, content in operation.get("requestBody", {"content": {}})["content"].items():
        if content["schema"]["$ref"].endswith("/Set"):
            encode = msgspec.msgpack.encode if media == "application/vnd.msgpack" else encode_json
            bodies = SETS.map(encode)
        elif media == "application/vnd.msgpack":
            bodies = MESSAGEPACK.map(msgspec.msgpack.encode)
        else:
            bodies = (PATCH_STEPS if media == "application/json-patch+json" else JSON).map(encode_json)
        fitting.append(st.tuples(st.just(media), bodies))
    anything = st.tuples(st.none() | MEDIA, JSON.map(encode_json) | st.binary(max_size=40))
    return st.one_of(*fitting, anything)


def encode_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def requests(draw: st.DrawFn, contract: Contract) -> tuple[str, str, dict[str, bytes], bytes]:
    """Method, target, headers, body."""
    document = contract.document
    routes = [(path, method) for path, methods in document["paths"].items() for method in methods]
    entries = [route for route in routes if "{key}" in route[0]]  # where there is most to find
    path, method = draw(st.sampled_from(routes + 2 * entries))
    operation = document["paths"][path][method]
    target = path.replace("{key}", quote(draw(KEYS))).replace("{uuid}", quote(draw(UUIDS | UUIDS | TEXTS)))
    query: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    for parameter in operation["parameters"]:
        if parameter["in"] == "path" or draw(st.integers(0, 3)) > 0:
            continue
        if parameter["in"] == "header":
            headers[parameter["name"]] = draw(texts_for(parameter).filter(is_header) | HEADER_TEXTS)
        else:
            query += [
                (parameter["name"], text) for text in draw(st.lists(texts_for(parameter), min_size=1, max_size=2))
            ]
    if draw(st.integers(0, 9)) == 0:
        query.append((draw(TEXTS), draw(TEXTS)))
    if draw(st.integers(0, 3)) == 0:
        headers["Accept"] = draw(MEDIA | HEADER_TEXTS)
    if draw(st.integers(0, 3)) == 0:
        headers["X-Request-Id"] = draw(HEADER_TEXTS)
    media, body = draw(bodies_for(operation)) if method != "get" else (None, b"")
    if media is not None:
        headers["Content-Type"] = media
    if query:
        target += "?" + "&".join(f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in query)
    return method.upper(), target, {name: text.strip().encode("latin-1") for name, text in headers.items()}, body


def is_header(text: str) -> bool:
    return all(" " <= character <= "\xff" and character != "\x7f" for character in text)


def test_whatever_is_sent_the_answer_is_a_documented_one(own: Server) -> None:
    statuses: Counter[tuple[str, int]] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(own.contract))
    def send(request: tuple[str, str, dict[str, bytes], bytes]) -> None:
        method, target, headers, body = request
        own.put(FUZZ_UUIDS[0], '{"a": [1, {"b": null}]}', headers={"Prefer": "return=minimal"})
        own.put("fuzz/a", '{"a": [1, {"b": null}], "b": "text", "0": 0}')
        response = own.request(method, target, headers=headers, content=body)
        assert response.status_code < 500
        statuses[method, response.status_code] += 1

    send()
    seen = {status for _, status in statuses}
    done = {method for method, status in statuses if status == 200}
    assert {200, 201, 400, 404, 406, 412, 415} - seen == set(), "the requests are too dull"
    assert done == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert "Traceback" not in own.log()

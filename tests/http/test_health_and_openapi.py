"""Health, and `/openapi.json`: it describes every route, parameter, body, answer and error."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import CODES
from running import Server, running

import leasehold

# Health -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_a_healthy_service_is_ok(server: Server, path: str) -> None:
    response = server.request("GET", path)
    health = response.json()
    uptime, revision = health.pop("uptime_s"), health.pop("revision")
    assert re.fullmatch("[0-9a-f]{6}", health.pop("incarnation"))
    expected = {"status": "ok", "store": "memory", "version": leasehold.VERSION}
    assert (response.status_code, health, uptime > 0) == (200, expected, True)
    assert 0 <= revision <= server.revision()


def test_health_names_the_file_engine(tmp_path: Path) -> None:
    with running(tmp_path / "data.json") as started:
        assert started.request("GET", "/health").json()["store"] == "file"


def test_health_shows_the_revision_of_the_last_change(server: Server, key: str) -> None:
    revision = server.put(key, "1").json()["revision"]
    assert server.request("GET", "/health").json()["revision"] == revision


def test_uptime_grows(server: Server) -> None:
    first, second = (server.request("GET", "/health").json()["uptime_s"] for _ in range(2))
    assert second >= first


def test_a_running_service_is_live(server: Server) -> None:
    response = server.request("GET", "/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


# The description ----------------------------------------------------------------------------------------------

ROUTES = {
    "/kv": {"get", "delete"},
    "/kv/{key}": {"get", "post", "put", "patch", "delete"},
    "/set": {"post"},
    "/txn": {"post"},
    "/get/{uuid}": {"get"},
    "/stream": {"get"},
    "/stream/{uuid}": {"get"},
    "/locks": {"get"},
    "/locks/{name}": {"get", "post", "put", "delete"},
    "/lock": {"post"},
    "/renew": {"post"},
    "/unlock": {"delete"},
    "/watch": {"get"},
    "/terraform/{state}": {"get", "post", "put", "delete"},
    "/terraform/{state}/versions": {"get"},
    "/terraform/{state}/lock": {"post", "delete"},
    "/health": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/openapi.json": {"get"},
}


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return server.request("GET", "/openapi.json").json()


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for part in node.values():
            yield from nodes(part)
    elif isinstance(node, list):
        for part in node:
            yield from nodes(part)


def operations(document: Any) -> Iterator[tuple[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_the_description_is_openapi_3_1(document: Any) -> None:
    info = document["info"]
    assert (document["openapi"][:4], info["title"], info["version"]) == ("3.1.", "Leasehold", leasehold.VERSION)


def test_every_route_is_described(document: Any) -> None:
    described = {path: set(methods) for path, methods in document["paths"].items()}
    assert {path: described.get(path) for path in ROUTES} == ROUTES


def test_every_reference_in_the_description_exists(server: Server, document: Any) -> None:
    references = [node for node in nodes(document) if "$ref" in node]
    assert references
    assert [node for node in references if not server.contract.resolve(node)] == []


def test_every_operation_has_a_unique_name(document: Any) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert sorted(set(names)) == sorted(names)


def test_every_placeholder_of_a_path_is_a_required_parameter(document: Any) -> None:
    missing = [
        name
        for name, operation in operations(document)
        for part in re.findall(r"\{(\w+)\}", name)
        if not any(p["in"] == "path" and p["name"] == part and p["required"] for p in operation["parameters"])
    ]
    assert missing == []


def test_every_parameter_has_a_schema_and_is_listed_once(document: Any) -> None:
    wrong = []
    for name, operation in operations(document):
        names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
        if len(set(names)) != len(names) or not all("schema" in parameter for parameter in operation["parameters"]):
            wrong.append(name)
    assert wrong == []


def test_the_description_says_which_parameters_are_required_and_how_often_others_may_be_given(document: Any) -> None:
    described = {
        (name, parameter["name"]): parameter["schema"].get("maxItems", "required")
        for name, operation in operations(document)
        for parameter in operation["parameters"]
        if parameter["in"] != "path" and ("maxItems" in parameter["schema"] or "required" in parameter)
    }
    assert described == {
        ("get /kv/{key}", "path"): 100,
        ("get /get/{uuid}", "path"): 100,
        ("get /kv", "path"): 100,
        ("get /get", "path"): 100,
        ("get /kv", "key"): 128,
        ("get /watch", "prefix"): 16,
        ("delete /kv", "prefix"): "required",
    }


HELD = {"lock": "a", "state": "held", "token": 1, "owner": None, "expires_at": "2026-01-31T12:00:00Z", "revision": 1}


@pytest.mark.parametrize(
    "event",
    [
        {"event": "ready", "data": {"revision": 1}},
        {"event": "reset", "id": 1, "data": {"revision": 1}},
        {"event": "put", "id": 1, "data": {"key": "a", "revision": 1}},
        {"event": "delete", "id": 1, "data": {"key": "a"}},
        {"event": "lock", "id": 1, "data": HELD | {"lease_id": "a"}},
        {"event": "lock", "id": 1, "data": HELD | {"state": "free"}},
        {"event": "end", "data": {"error": "over", "message": "text"}},
        {"event": "other", "data": {}},
    ],
)
def test_an_event_that_breaks_the_promises_of_a_watch_does_not_fit_the_description(server: Server, event: Any) -> None:
    schema = {"$ref": "#/components/schemas/Event"}
    assert server.contract.faults(schema, {"event": "lock", "id": 1, "data": HELD}) == []
    assert server.contract.faults(schema, event) != []


@pytest.mark.parametrize("member", ["failed", "index", "key", "limit", "oldest", "deleted", "revision", "size", "step"])
def test_the_members_of_errors_that_programs_use_are_described(document: Any, member: str) -> None:
    assert member in document["components"]["schemas"]["Error"]["properties"]


def test_every_answer_has_a_description(server: Server, document: Any) -> None:
    wrong = [
        (name, status)
        for name, operation in operations(document)
        for status, answer in operation["responses"].items()
        if not server.contract.resolve(answer)["description"]
    ]
    assert wrong == []


def test_every_operation_documents_a_success_and_the_common_errors(document: Any) -> None:
    everywhere = {"400", "401", "403", "406", "408", "414", "431", "500", "503"}
    wrong = [
        name
        for name, operation in operations(document)
        if not everywhere <= operation["responses"].keys() or not {"200", "201"} & operation["responses"].keys()
    ]
    assert wrong == []


def test_every_body_is_described(document: Any) -> None:
    bodies = {
        name: sorted(operation["requestBody"]["content"])
        for name, operation in operations(document)
        if "requestBody" in operation
    }
    values = ["application/json", "application/vnd.msgpack"]
    values_or_bytes = sorted([*values, "application/octet-stream", "application/pdf", "image/*", "text/plain"])
    patches = ["application/json-patch+json", "application/merge-patch+json"]
    assert bodies == {
        "post /set": values,
        "put /ns/{namespace}": values,
        "post /terraform/{state}": ["application/json"],
        "put /terraform/{state}": ["application/json"],
        "post /terraform/{state}/lock": values,
        "delete /terraform/{state}/lock": values,
        "post /txn": values,
        "post /kv/{key}": values_or_bytes,
        "put /kv/{key}": values_or_bytes,
        "patch /kv/{key}": patches,
        "post /locks/{name}": values,
        "put /locks/{name}": values,
        "delete /locks/{name}": values,
        "post /lock": values,
        "post /renew": values,
        "delete /unlock": values,
    }


def test_the_codes_of_errors_are_described_with_their_statuses(document: Any) -> None:
    responses = document["components"]["responses"]
    described = {
        int(name.removeprefix("Error")): set(response["description"].split(", "))
        for name, response in responses.items()
    }
    unknown = {status: codes - CODES.get(status, frozenset()) for status, codes in described.items()}
    assert {status: codes for status, codes in unknown.items() if codes} == {}

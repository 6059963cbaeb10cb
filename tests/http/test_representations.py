"""JSON and MessagePack: negotiation, bodies, and the other headers of an answer."""

from typing import Any

import httpx
import msgspec
import pytest
from running import Server, Wire, message, refusal, until

JSON = "application/json"
MESSAGEPACK = "application/vnd.msgpack"
NOT_ACCEPTABLE = (406, "not_acceptable")
UNSUPPORTED = (415, "unsupported_media_type")


def unpacked(response: httpx.Response) -> Any:
    assert response.headers["Content-Type"] == MESSAGEPACK
    return msgspec.msgpack.decode(response.content)


# Accept -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (MESSAGEPACK, MESSAGEPACK),
        ("APPLICATION/VND.MSGPACK", MESSAGEPACK),
        (f"text/html, {MESSAGEPACK}", MESSAGEPACK),
        (f"{MESSAGEPACK}, {JSON}", JSON),
        (f"{MESSAGEPACK}, {JSON};q=0.9", MESSAGEPACK),
        (f"{MESSAGEPACK};q=0.5, {JSON};q=0.4", MESSAGEPACK),
        (f"{MESSAGEPACK};q=0.5, */*;q=0.6", JSON),
        (f"{MESSAGEPACK};q=0.6, */*;q=0.5", MESSAGEPACK),
        (f"{JSON};q=0, */*", MESSAGEPACK),
        (f"{JSON} ; Q=0 , application/* ; q=0.1", MESSAGEPACK),
        (f"{JSON}; charset=utf-8", JSON),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", JSON),
        (f"{MESSAGEPACK};q=1.000, {JSON};q=0.999", MESSAGEPACK),
        ("application/msgpack", MESSAGEPACK),
        ("Application/X-MsgPack", MESSAGEPACK),
        (f"application/msgpack;q=0.5, {JSON};q=0.4", MESSAGEPACK),
    ],
)
def test_the_representation_with_the_highest_quality_is_sent(
    server: Server, key: str, accept: str, expected: str
) -> None:
    server.put(key, "1")
    assert server.get(key, headers={"Accept": accept}).headers["Content-Type"] == expected


def test_two_accept_headers_are_one_list(server: Server, key: str) -> None:
    headers = [("Accept", f"{JSON};q=0.1"), ("Accept", MESSAGEPACK)]
    assert server.put(key, "1", headers=headers).headers["Content-Type"] == MESSAGEPACK


def test_without_accept_the_answer_is_json(server: Server, key: str) -> None:
    server.put(key, "1")
    with Wire(server) as wire:
        assert wire.send(message("GET", f"/kv/{key}")).answer().headers["content-type"] == JSON


@pytest.mark.parametrize(
    "accept",
    ["text/html", "text/*", "image/png, text/*", f"{JSON};q=0", "*/*;q=0", f"*/*, {JSON};q=0, {MESSAGEPACK};q=0"],
)
@pytest.mark.parametrize("path", ["/kv/{}", "/kv", "/health", "/openapi.json"])
def test_an_accept_header_without_an_available_type_is_not_acceptable(
    server: Server, key: str, path: str, accept: str
) -> None:
    server.put(key, "1")  # which types an entry has is known only once there is one
    assert refusal(server.request("GET", path.format(key), headers={"Accept": accept})) == NOT_ACCEPTABLE


def test_a_write_whose_answer_is_not_acceptable_is_not_done(server: Server, key: str) -> None:
    refused = server.put(key, "1", headers={"Accept": "text/html"})
    assert (refusal(refused), server.get(key).status_code) == (NOT_ACCEPTABLE, 404)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_every_request_for_an_entry_can_be_answered_in_messagepack(server: Server, key: str, method: str) -> None:
    server.put(key, '{"a": [1.5, null]}')
    headers = {"Accept": MESSAGEPACK} | ({"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {})
    response = server.request(method, f"/kv/{key}", content=b"{}", headers=headers)
    assert (response.status_code, unpacked(response)["key"]) == (200, key)


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/openapi.json", "/kv?limit=3", "/kv?prefix=none", "/kv"]
)
def test_every_other_endpoint_answers_the_same_in_messagepack(server: Server, path: str) -> None:
    as_json = server.request("GET", path).json()
    as_messagepack = unpacked(server.request("GET", path, headers={"Accept": MESSAGEPACK}))
    as_json.pop("uptime_s", None)
    as_messagepack.pop("uptime_s", None)
    assert as_messagepack == as_json


@pytest.mark.parametrize("path", ["/kv/absent", "/kv//", "/nowhere", "/kv?limit=0"])
def test_errors_can_be_messagepack(server: Server, path: str) -> None:
    as_json = server.request("GET", path, headers={"X-Request-Id": "same"}).json()
    assert unpacked(server.request("GET", path, headers={"X-Request-Id": "same", "Accept": MESSAGEPACK})) == as_json


@pytest.mark.parametrize("text", ["18446744073709551615", "-9223372036854775808", "1e300", "-0.0", '"🦊"', "[{}]"])
def test_a_raw_value_can_be_messagepack(server: Server, key: str, text: str) -> None:
    server.put(key, text)
    assert repr(unpacked(server.get(f"{key}?raw", headers={"Accept": MESSAGEPACK}))) == repr(msgspec.json.decode(text))


def test_head_in_messagepack_has_the_length_of_the_body(server: Server, key: str) -> None:
    server.put(key, '{"a": [1, 2, 3]}')
    headers = {"Accept": MESSAGEPACK}
    expected = len(server.get(key, headers=headers).content)
    assert server.request("HEAD", f"/kv/{key}", headers=headers).headers["Content-Length"] == str(expected)


# Content-Type -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        JSON,
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; version=1",
        "application/x-www-form-urlencoded",
        "",
    ],
)
def test_json_and_form_content_types_are_read_as_json(server: Server, key: str, sent: str) -> None:
    assert server.put(key, '{"a": 1}', headers={"Content-Type": sent}).json()["value"] == {"a": 1}


def test_a_body_without_a_content_type_is_json(server: Server, key: str) -> None:
    with Wire(server) as wire:
        assert wire.send(message("PUT", f"/kv/{key}", body=b'{"a": 1}')).answer().value == {"a": 1}


@pytest.mark.parametrize(
    "sent",
    [
        "text/html",
        "text/json",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "nonsense",
    ],
)
def test_other_content_types_are_refused_and_change_nothing(server: Server, key: str, sent: str) -> None:
    refused = server.put(key, "1", headers={"Content-Type": sent})
    assert (refusal(refused), server.get(key).status_code) == (UNSUPPORTED, 404)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_refused(server: Server, key: str, coding: str) -> None:
    assert refusal(server.put(key, "1", headers={"Content-Encoding": coding})) == UNSUPPORTED


def test_a_body_with_the_coding_identity_is_accepted(server: Server, key: str) -> None:
    assert server.put(key, "1", headers={"Content-Encoding": "identity"}).status_code == 201


@pytest.mark.parametrize(
    "sent",
    [MESSAGEPACK, "Application/vnd.MsgPack", f"{MESSAGEPACK}; v=1", "application/msgpack", "application/x-MsgPack"],
)
def test_a_body_in_messagepack_is_accepted(server: Server, key: str, sent: str) -> None:
    body = msgspec.msgpack.encode({"a": [1, None]})
    written = server.request("PUT", f"/kv/{key}", content=body, headers={"Content-Type": sent})
    assert written.json()["value"] == {"a": [1, None]}


def test_a_part_in_messagepack_is_accepted(server: Server, key: str) -> None:
    body = msgspec.msgpack.encode([2])
    server.request("PUT", f"/kv/{key}", params={"path": "/a"}, content=body, headers={"Content-Type": MESSAGEPACK})
    assert server.value(key) == {"a": [2]}


@pytest.mark.parametrize(
    "sent", [JSON, "text/plain", "application/merge-patch", "application/x-www-form-urlencoded", None]
)
def test_a_patch_of_another_type_is_refused_with_the_types_accepted(server: Server, key: str, sent: str | None) -> None:
    server.put(key, "{}")
    headers = {} if sent is None else {"Content-Type": sent}
    response = server.request("PATCH", f"/kv/{key}", content=b"{}", headers=headers)
    seen = (refusal(response), response.headers["Accept-Patch"])
    assert seen == (UNSUPPORTED, "application/merge-patch+json, application/json-patch+json")
    assert "send the header Content-Type: application/merge-patch+json" in response.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/merge-patch+json; charset=latin1"},
        {"Content-Type": "application/merge-patch+json", "Content-Encoding": "gzip"},
    ],
    ids=["charset", "compressed"],
)
def test_a_patch_of_another_charset_or_compressed_is_refused_with_the_types_accepted(
    server: Server, key: str, headers: dict[str, str]
) -> None:
    server.put(key, "{}")
    response = server.request("PATCH", f"/kv/{key}", content=b"{}", headers=headers)
    seen = (refusal(response), response.headers["Accept-Patch"])
    assert seen == (UNSUPPORTED, "application/merge-patch+json, application/json-patch+json")


@pytest.mark.parametrize(("method", "path"), [("PUT", "/kv/{}"), ("POST", "/kv/{}"), ("POST", "/set")])
@pytest.mark.parametrize("sent", ["text/html;charset=UTF-8", "multipart/form-data", "application/json; charset=latin1"])
def test_a_body_of_another_type_is_refused_with_the_types_accepted(
    server: Server, key: str, method: str, path: str, sent: str
) -> None:
    response = server.request(method, path.format(key), content=b'"a"', headers={"Content-Type": sent})
    others = "" if path == "/set" else ", application/octet-stream, image/*, application/pdf, text/plain"
    assert (refusal(response), response.headers["Accept"]) == (UNSUPPORTED, f"{JSON}, {MESSAGEPACK}{others}")
    if "json" not in sent:
        assert all(name in response.json()["message"] for name in ("Content-Type", JSON, MESSAGEPACK))


def test_a_compressed_body_is_refused_with_the_coding_accepted(server: Server, key: str) -> None:
    response = server.put(key, "1", headers={"Content-Encoding": "gzip"})
    assert (refusal(response), response.headers["Accept-Encoding"]) == (UNSUPPORTED, "identity")


# Prefer -------------------------------------------------------------------------------------------------------

MINIMAL = {"Prefer": "return=minimal"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_return_minimal_answers_the_entry_without_its_value(server: Server, key: str, method: str) -> None:
    server.put(key, '{"a": 1}')
    headers = MINIMAL | ({"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {})
    response = server.request(method, f"/kv/{key}", content=b'{"b": 2}', headers=headers)
    expected = server.get(key).json()
    assert expected.pop("value")["b"] == 2
    assert (response.json(), response.headers["Preference-Applied"]) == (expected, "return=minimal")


def test_return_minimal_for_a_part_answers_its_path(server: Server, key: str) -> None:
    written = server.put(key, "1", params={"path": "/a"}, headers=MINIMAL).json()
    assert ("value" in written, written["path"]) == (False, "/a")


@pytest.mark.parametrize(
    "sent",
    [
        "respond-async, return=minimal",
        "Return=Minimal",
        "return=minimal; foo=bar",
        'return="minimal"',
        "return = minimal",
        'wait="1, 2"; x=",", return=minimal',
        "return=minimal, return=representation",
    ],
)
def test_return_minimal_is_found_among_other_preferences(server: Server, key: str, sent: str) -> None:
    assert "value" not in server.put(key, "1", headers={"Prefer": sent}).json()


@pytest.mark.parametrize(
    "sent",
    [
        "return=representation",
        "return",
        "minimal",
        "respond-async",
        "respond-async; return=minimal",
        'wait="1, return=minimal"',
        "return=representation, return=minimal",
    ],
)
def test_other_preferences_change_nothing(server: Server, key: str, sent: str) -> None:
    assert server.put(key, "1", headers={"Prefer": sent}).json()["value"] == 1


# X-Request-Id -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["a", "8b0c-77", "!~", "x" * 128])
def test_a_short_printable_request_id_is_returned(server: Server, sent: str) -> None:
    assert server.request("GET", "/health", headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\tb", "ä", "\x80"])
def test_a_long_or_unprintable_request_id_is_replaced(server: Server, sent: str) -> None:
    response = server.request("GET", "/health", headers={"X-Request-Id": sent.encode("latin-1")})
    made = response.headers["X-Request-Id"]
    assert (made != sent, made.isascii(), made.isprintable(), 0 < len(made) <= 128) == (True, True, True, True)


def test_requests_without_an_id_get_different_ones(server: Server) -> None:
    made = {server.request("GET", "/health").headers["X-Request-Id"] for _ in range(10)}
    assert len(made) == 10


def test_an_error_has_the_request_id_in_a_header_and_in_the_body(server: Server) -> None:
    response = server.request("GET", "/nowhere", headers={"X-Request-Id": "mine"})
    assert (response.headers["X-Request-Id"], response.json()["request_id"]) == ("mine", "mine")


def test_a_streamed_list_has_the_request_id(server: Server) -> None:
    assert server.request("GET", "/kv", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


# Every response -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/kv/{}", "/kv", "/kv/{}/absent", "/health"])
def test_an_answer_varies_by_accept(server: Server, key: str, path: str) -> None:
    server.put(key, "1")
    assert server.request("GET", path.format(key)).headers["Vary"] == "Accept"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/kv/{}", "/kv/{}?raw", "/kv/{}?path=/a", "/get/{}", "/stream/{}"])
def test_an_answer_with_an_etag_may_be_cached_and_must_be_revalidated(server: Server, method: str, path: str) -> None:
    uuid = server.request("POST", "/set", json={"value": {"a": 1}}).json()["key"]
    answer = server.request(method, path.format(uuid))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")
    same = server.request(method, path.format(uuid), headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.headers["Cache-Control"]) == (304, "no-cache")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/kv/{}", 200),
        ("PUT", "/kv/{}", 200),
        ("PUT", "/kv/{}/new", 201),
        ("DELETE", "/kv/{}", 200),
        ("GET", "/kv", 200),
        ("GET", "/kv?limit=1", 200),
        ("GET", "/stream", 200),
        ("GET", "/locks", 200),
        ("GET", "/health", 200),
        ("GET", "/health/live", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/kv/{}/absent", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/kv/{}?ttl=1", 400),
    ],
)
@pytest.mark.parametrize("accept", ["*/*", MESSAGEPACK])
def test_an_answer_that_cannot_be_revalidated_must_not_be_cached(
    server: Server, key: str, method: str, path: str, status: int, accept: str
) -> None:
    server.put(key, "1")
    headers = {"Accept": "*/*" if path == "/metrics" else accept}
    answer = server.request(method, path.format(key), content=b"1", headers=headers)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (status, "no-store")


def test_a_failed_precondition_must_not_be_cached_although_it_has_an_etag(server: Server, key: str) -> None:
    etag = server.put(key, "1").headers["ETag"]
    refused = server.get(key, headers={"If-Match": '"0"'})
    assert (refused.status_code, refused.headers["ETag"], refused.headers["Cache-Control"]) == (412, etag, "no-store")


def test_the_answer_to_a_malformed_request_must_not_be_cached(server: Server) -> None:
    with Wire(server) as wire:
        assert wire.send(b"nonsense\r\n\r\n").answer().headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/kv/{}", "/kv/{}?raw", "/kv/{}/absent", "/kv", "/health", "/locks", "/openapi.json"])
def test_a_json_body_ends_with_a_newline_that_the_length_includes(server: Server, key: str, path: str) -> None:
    """`/health` may have another length at the next request, because its uptime has up to three decimals."""
    server.put(key, "1")
    get, ask = (message(method, path.format(key)) for method in ("GET", "HEAD"))
    with Wire(server) as wire:

        def head_tells_the_length() -> bool:
            wire.send(get, ask, message("GET", "/health/live"))
            answer, head = wire.answer(), wire.answer(to="HEAD")
            assert (answer.body.endswith(b"\n"), answer.body.endswith(b"\n\n")) == (True, False)
            assert wire.answer().body == b'{"status":"ok"}\n'
            return head.headers.get("content-length") == answer.headers.get("content-length")

        if path == "/health":
            until(head_tells_the_length)
        else:
            assert head_tells_the_length()


def test_a_messagepack_body_ends_with_its_value(server: Server, key: str) -> None:
    server.put(key, "1")
    assert server.get(f"{key}?raw", headers={"Accept": MESSAGEPACK}).content == b"\x01"


@pytest.mark.parametrize("path", ["/kv/{}", "/kv", "/nowhere"])
def test_an_answer_has_a_date(server: Server, key: str, path: str) -> None:
    server.put(key, "1")
    assert server.request("GET", path.format(key)).headers["Date"].endswith(" GMT")

"""Keys in URLs: the key is everything after `/kv/`, percent-decoded once."""

import pytest
from running import Server, Wire, message, refusal

INVALID_KEY = (400, "invalid_key")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


@pytest.mark.parametrize(
    ("sent", "decoded"),
    [
        ("plain", "plain"),
        ("a/b/c", "a/b/c"),
        ("a%2Fb", "a/b"),
        ("a%2fb%2Fc", "a/b/c"),
        ("%61bc", "abc"),
        ("twice%2541", "twice%41"),
        ("percent%25", "percent%"),
        ("plus+plus", "plus+plus"),
        ("space%20", "space "),
        ("query%3F", "query?"),
        ("fragment%23", "fragment#"),
        ("quote%22%5C", 'quote"\\'),
        ("%C3%A4pfel", "äpfel"),
        ("%E6%97%A5%E6%9C%AC", "日本"),
        ("%F0%9F%A6%8A", "🦊"),
        (".hidden", ".hidden"),
        ("...", "..."),
        ("a/.b/..c/d../e.", "a/.b/..c/d../e."),
        ("semi;colon=,&", "semi;colon=,&"),
        ("kv/kv", "kv/kv"),
        ("%E2%80%A8", "\u2028"),
    ],
)
def test_a_key_is_percent_decoded_once(server: Server, key: str, sent: str, decoded: str) -> None:
    assert server.put(f"{key}/{sent}", "1").json()["key"] == f"{key}/{decoded}"


def test_two_spellings_of_a_key_name_the_same_entry(server: Server, key: str) -> None:
    server.put(f"{key}%2F%C3%A4", '"here"')
    assert server.value(f"{key}/%c3%A4") == "here"


def test_a_key_in_plain_utf8_is_a_malformed_request(server: Server, key: str) -> None:
    with Wire(server) as wire:
        wire.send(message("PUT", f"/kv/{key}", body=b"1").replace(key.encode(), "ä".encode()))
        assert wire.answer().refusal == (400, "invalid_request")


def test_keys_that_differ_in_case_name_different_entries(server: Server, key: str) -> None:
    server.put(key, "1")
    assert refusal(server.get(key.upper())) == (404, "not_found")


def test_a_composed_and_a_decomposed_letter_give_different_keys(server: Server, key: str) -> None:
    server.put(f"{key}/%C3%A4", "1")
    assert refusal(server.get(f"{key}/a%CC%88")) == (404, "not_found")


@pytest.mark.parametrize("letter", ["k", "%C3%A4", "%F0%9F%A6%8A"])
def test_a_key_of_512_bytes_is_accepted(server: Server, key: str, letter: str) -> None:
    size = max(1, letter.count("%"))
    sent = f"{key}/{'x' * ((511 - len(key)) % size)}{letter * ((511 - len(key)) // size)}"
    assert len(server.put(sent, "1").json()["key"].encode()) == 512


@pytest.mark.parametrize("sent", ["k" * 513, "%C3%A4" * 256 + "k", "k" * 5_000])
def test_a_key_of_more_than_512_bytes_is_refused(server: Server, sent: str) -> None:
    response = server.put(sent, "1")
    assert (refusal(response), response.json()["limit"]) == (INVALID_KEY, 512)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param("", id="empty"),
        pytest.param("%", id="escape cut off"),
        pytest.param("a%4", id="escape half cut off"),
        pytest.param("a%zz", id="escape without digits"),
        pytest.param("%ff", id="no UTF-8"),
        pytest.param("%C3", id="UTF-8 cut off"),
        pytest.param("%C0%AF", id="overlong slash"),
        pytest.param("%ED%A0%80", id="surrogate"),
        pytest.param("%F4%90%80%80", id="past Unicode"),
        pytest.param("a%00", id="NUL"),
        pytest.param("a%0Ab", id="line feed"),
        pytest.param("a%0D", id="carriage return"),
        pytest.param("a%1B", id="escape character"),
        pytest.param("a%7F", id="DEL"),
        pytest.param("a%C2%85", id="NEL"),
        pytest.param("/a", id="empty first segment"),
        pytest.param("a/", id="empty last segment"),
        pytest.param("a//b", id="empty segment"),
        pytest.param("a%2F", id="empty last segment, encoded"),
        pytest.param("%2E", id="dot"),
        pytest.param("%2e%2E", id="two dots"),
        pytest.param("a/%2E/b", id="dot inside"),
        pytest.param("a/%2E%2E/b", id="two dots inside"),
        pytest.param("a%2F..%2Fb", id="two dots between encoded slashes"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_an_invalid_key_is_refused(server: Server, method: str, sent: str) -> None:
    options = {"headers": {"Content-Type": "application/merge-patch+json"}} if method == "PATCH" else {}
    assert refusal(server.request(method, f"/kv/{sent}", content=b"{}", **options)) == INVALID_KEY


@pytest.mark.parametrize("target", ["/kv/.", "/kv/..", "/kv/a/./b", "/kv/a/../b", "/kv/../health"])
def test_dot_segments_are_refused_and_not_resolved(server: Server, target: str) -> None:
    with Wire(server) as wire:
        assert wire.send(message("GET", target)).answer().refusal == INVALID_KEY

"""Hosts and origins: which texts are equal, and which settings are refused."""

import pytest

from leasehold.access.hosts import (
    Origin,
    is_address,
    parse_allowed_hosts,
    parse_allowed_origins,
    parse_host,
    parse_origin,
)
from leasehold.errors import ServiceError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db.example.com", ("db.example.com", None)),
        ("DB.Example.com:443", ("db.example.com", 443)),
        ("db.example.com.", ("db.example.com", None)),
        ("db.example.com.:80", ("db.example.com", 80)),
        ("localhost:", ("localhost", None)),
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("[FD00:0:0::1]", ("fd00::1", None)),
        ("", None),
        (":80", None),
        ("::1", None),
        ("[::1", None),
        ("[db]", None),
        ("[1.2.3]", None),
        ("u@db", None),
        ("db/x", None),
        ("db:80:80", None),
        ("db:\u0661", None),
        ("a b", None),
    ],
)
def test_a_host_is_parsed_without_case_and_final_dot(text: str, expected: tuple[str, int | None] | None) -> None:
    assert parse_host(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://db.example.com", ("https", "db.example.com", 443)),
        ("https://db.example.com:443", ("https", "db.example.com", 443)),
        ("HTTP://DB.example.com.", ("http", "db.example.com", 80)),
        ("http://[::1]:3000", ("http", "::1", 3000)),
        ("null", None),
        ("", None),
        ("db.example.com", None),
        ("file://", None),
        ("chrome-extension://abc", None),
        ("https://a/b", None),
        ("https://a https://b", None),
        ("https://u@a", None),
    ],
)
def test_an_origin_is_parsed_to_scheme_host_and_port(text: str, expected: Origin | None) -> None:
    assert parse_origin(text) == expected


def test_addresses_are_distinguished_from_names() -> None:
    hosts = ("127.0.0.1", "::1", "fd00::1", "localhost", "127.1", "0x7f.1", "1.2.3.4.example", "")
    assert [is_address(host) for host in hosts] == [True, True, True, False, False, False, False, False]


def test_allowed_hosts_have_the_form_of_parsed_hosts() -> None:
    allowed = parse_allowed_hosts("DB.example.com., 192.0.2.7 ,FD00:0::1,,leasehold, my_service")
    assert allowed == {"db.example.com", "192.0.2.7", "fd00::1", "leasehold", "my_service"}


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("x:8443", "; write x"),
        ("[fd00::1]", "; write fd00::1"),
        ("[fd00::1]:80", "; write fd00::1"),
        ("*", ""),
        ("*.example.com", ""),
        ("https://db.example.com", ""),
        ("db.example.com/", ""),
        ("a b", ""),
        ("good.example, bad:1", "; write bad"),
        ("exämple", ""),
        ("..", ""),
    ],
)
def test_a_setting_that_no_host_can_match_is_refused_with_a_hint(setting: str, hint: str) -> None:
    with pytest.raises(ServiceError) as refused:
        parse_allowed_hosts(setting)
    wrong = setting.rpartition(", ")[2]
    assert refused.value.code == "invalid_argument"
    assert refused.value.message == (
        f"{wrong!r} is not a host name: write it without a port, brackets or wildcards{hint}"
    )


def test_an_allowed_origin_without_a_port_has_the_default_port_of_its_scheme() -> None:
    allowed = parse_allowed_origins("https://app.example.com, http://localhost:3000,http://[::1]")
    assert allowed == {("https", "app.example.com", 443), ("http", "localhost", 3000), ("http", "::1", 80)}


@pytest.mark.parametrize(
    "setting", ["*", "null", "app.example.com", "https://*.example.com", "https://a/", "ftp://a", "https://a:99999"]
)
def test_an_allowed_origin_that_no_browser_sends_is_refused(setting: str) -> None:
    with pytest.raises(ServiceError, match="is not an origin like"):
        parse_allowed_origins(setting)

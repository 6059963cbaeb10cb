"""The URL of a store on PostgreSQL."""

import pytest

from leasehold.engines.postgres.urls import shown_url, single_host_urls

SHOWN = {
    "data.json": "data.json",
    "memory:": "memory:",
    "postgresql://host/db": "postgresql://host/db",
    "postgresql://host:5432/db": "postgresql://host:5432/db",
    "postgresql://alice@host/db": "postgresql://alice@host/db",
    "postgresql://alice:secret@host/db": "postgresql://alice:***@host/db",
    "postgres://alice:secret@a:1,b:2/db?sslmode=require": "postgres://alice:***@a:1,b:2/db?sslmode=require",
    "postgresql://alice:sec@ret/secret@host/db": "postgresql://alice:***@host/db",
    "postgresql://alice:secret?secret@host/db": "postgresql://alice:***@host/db",
    "postgresql://host/db?user=alice&password=secret": "postgresql://host/db?user=alice&password=***",
    "postgresql:///db?host=/run/postgresql&password=secret": "postgresql:///db?host=/run/postgresql&password=***",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items())
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


HOSTS = {
    "postgresql://alice:secret@a:1,b:2/db?sslmode=require": [
        "postgresql://alice:secret@a:1/db?sslmode=require",
        "postgresql://alice:secret@b:2/db?sslmode=require",
    ],
    "postgresql://a,b": ["postgresql://a", "postgresql://b"],
    "postgresql://[::1]:1,b/db": ["postgresql://[::1]:1/db", "postgresql://b/db"],
    "postgresql://alice:sec,ret@a/db": ["postgresql://alice:sec,ret@a/db"],
    "postgresql:///db?host=a,b": ["postgresql:///db?host=a,b"],
    "postgresql://host/db": ["postgresql://host/db"],
}


@pytest.mark.parametrize(("url", "urls"), HOSTS.items())
def test_each_host_has_a_url_of_its_own(url: str, urls: list[str]) -> None:
    assert single_host_urls(url) == urls

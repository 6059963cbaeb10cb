"""Which stores are on PostgreSQL, and that their secrets are never shown."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leasehold.engines import inspect_file, open_engine
from leasehold.engines.postgres.parameters import SECRETS
from leasehold.engines.postgres.urls import is_postgres, shown_url
from leasehold.errors import ServiceError

SHOWN = {
    "data.json": "data.json",
    "memory:": "memory:",
    "postgresql://host/db": "postgresql://host/db",
    "postgresql://host:5432/db": "postgresql://host:5432/db",
    "postgresql://alice@host/db": "postgresql://alice@host/db",
    "postgresql://alice:secret@host/db": "postgresql://alice:***@host/db",
    "postgres://alice:secret@a:1,b:2/db?sslmode=require": "postgres://alice:***@a:1,b:2/db?sslmode=require",
    "postgresql://alice:secret@[::1]:5432,[fd00::1]/db": "postgresql://alice:***@[::1]:5432,[fd00::1]/db",
    "postgresql://alice:sec@ret/secret@host/db": "postgresql://alice:***@host/db",
    "postgresql://alice:secret?secret@host/db": "postgresql://alice:***@host/db",
    "postgresql://alice:secret?a=secret@host/db": "postgresql://***",
    "postgresql://host/db?user=alice&password=secret": "postgresql://host/db?user=alice&password=***",
    "postgresql://host/db?pass%77ord=secret": "postgresql://host/db?pass%77ord=***",
    "postgresql://host/db?PASSWORD=secret": "postgresql://host/db?PASSWORD=***",
    "postgresql://host/db?sslpassword=secret&options=-c": "postgresql://host/db?sslpassword=***&options=-c",
    "postgresql://host:5432/db?password=secret@secret.b/c": "postgresql://***",
    "postgresql:///db?host=/run/postgresql&password=secret": "postgresql:///db?host=/run/postgresql&password=***",
    "POSTGRESQL://alice:secret@host/db": "POSTGRESQL://alice:***@host/db",
    "host=db password=secret": "postgresql://***",
    "password = 'sec ret' host=db": "postgresql://***",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items())
def test_a_store_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


SECRET_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=4, max_size=20)
PLACES = st.sampled_from(["host", "host:5432", "a,b:1", "[::1]:1", ""])
DATABASES = st.sampled_from(["", "/", "/db", "/db?sslmode=require", "/db?user=a&options=-c%20x%3Dy"])


def shows(template: str, secret: str) -> bool:
    """Whether the text contains four characters of the secret in a row, other than by chance."""
    shown, other = shown_url(template.format(secret)), shown_url(template.format("Q"))
    assert "***" in shown
    return any(piece in shown for start in range(len(secret) - 3) if (piece := secret[start : start + 4]) not in other)


@settings(max_examples=500)
@given(SECRET_TEXTS, PLACES, DATABASES, st.sampled_from([str, partial(quote, safe="")]))
def test_a_password_in_a_url_is_not_shown_whether_escaped_or_not(
    secret: str, place: str, database: str, escape: Callable[[str], str]
) -> None:
    assert not shows(f"postgresql://user:{{}}@{place}{database}", escape(secret))


@settings(max_examples=500)
@given(SECRET_TEXTS, st.sampled_from(sorted(SECRETS)), PLACES, st.sampled_from([str, partial(quote, safe="")]))
def test_secrets_in_parameters_are_not_shown(secret: str, name: str, place: str, escape: Callable[[str], str]) -> None:
    # After an unescaped & the text is no longer part of the secret.
    assert not shows(f"postgresql://{place}/db?user=alice&{name}={{}}", escape(secret).partition("&")[0])


@settings(max_examples=300)
@given(SECRET_TEXTS, st.sampled_from(["host={} password={}", "password={1} host={0}", "user=a  password = '{1}'"]))
def test_secrets_in_a_list_of_hosts_are_not_shown(secret: str, form: str) -> None:
    assert shown_url(form.format("db", secret)) == "postgresql://***"


@pytest.mark.parametrize(
    "store",
    [
        *("jdbc:postgresql://host/db?password=secret", "jdbc:postgresql:secret", "JDBC:postgresql:secret"),
        *("postgresql+asyncpg://alice:secret@host/db", "postgresql+psycopg2://a:secret@host/db"),
        *("postgres:secret", "postgresql:/a:secret@host/db", "asyncpg://a:secret@host", "pgsql://a:secret@host/db"),
        *("alice:secret@host/db", "alice:secret@host:5432", "mysql://a:secret@host/db"),
        *("hots=db password=secret", "passwd=secret host=db", "password=secret=secret'"),
        *("postgresql://alice:sec/secret@host/db", "postgresql://alice:secret%zz@host/db", "postgresql://h/d?secret"),
    ],
)
def test_a_mistyped_postgresql_url_is_refused_without_echo_and_creates_no_file(store: str) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(open_engine(store).space().open())
    assert caught.value.code == "invalid_argument"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("store", ["postgresql://a:secret@h/d", "host=h password=secret", "jdbc:postgresql://a:secret"])
def test_a_store_on_postgresql_cannot_be_checked_as_a_file(store: str) -> None:
    with pytest.raises(ServiceError) as caught:
        inspect_file(Path(store))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    "store", ["data.json", "./host=db", "/srv/host=db/data.json", "my data.json", "a=b.json", "hostile=1", "memory:"]
)
def test_other_stores_are_paths(store: str) -> None:
    assert not is_postgres(store)
    assert shown_url(store) == store
    open_engine(store)

"""Slow and misbehaving clients are sent off in time, and leave nothing behind. And the harness finds those who are not.

How long good clients wait meanwhile is measured by `make torture ROWS=misbehaving-clients` only.
"""

import asyncio
import random
from pathlib import Path

import pytest
from harness.misbehaving_clients import KINDS, Client, Kind, Terms, fault, survive_misbehaving_clients

CLIENTS = 200
TERMS = Terms(1.0)


def test_a_crowd_of_misbehaving_clients_is_sent_off_and_leaves_nothing_behind(tmp_path: Path) -> None:
    finding = survive_misbehaving_clients(
        tmp_path / "data.json", 7, clients=CLIENTS, deadline_seconds=TERMS.deadline_seconds, is_measured=False
    )
    assert finding.violations == []
    assert all(finding.figures[kind.name] > 0 for kind in KINDS), "a kind of client did not come"
    assert finding.figures["good requests meanwhile"] > 0


# The comparison itself: it must find what is wrong ------------------------------------------------------------


def kind_of(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def treated(ended_after: float | None, received: bytes) -> Client:
    """A client to whom that happened."""

    async def make() -> Client:
        return Client(("127.0.0.1", 0), random.Random(0), TERMS)

    client = asyncio.run(make())
    client.ended_after, client.received = ended_after, received
    return client


@pytest.mark.parametrize(
    ("name", "ended_after", "received", "found"),
    [
        ("silent", None, b"", "one that silent was still there after 5 s"),
        ("silent", 5.5, b"", "one that silent was sent off only after 5.50 s"),
        ("silent", 0.5, b"", "one that silent was sent off after 0.50 s"),
        ("silent", 2.0, b"HTTP/1.1 408 ", "one that silent was answered 408"),
        ("drips a body", 2.0, b"", "one that drips a body was answered 0"),
        ("drips a body", 2.0, b"HTTP/1.1 500 ", "one that drips a body was answered 500"),
        ("sends garbage", 0.1, b"HTTP/1.1 500 ", "one that sends garbage was answered 500"),
    ],
)
def test_a_fault_would_be_found(name: str, ended_after: float | None, received: bytes, found: str) -> None:
    assert fault(kind_of(name), treated(ended_after, received)) == found


@pytest.mark.parametrize(
    ("name", "ended_after", "received"),
    [("silent", 2.0, b""), ("drips a body", 2.0, b"HTTP/1.1 408 "), ("sends garbage", 0.1, b"HTTP/1.1 400 ")],
)
def test_what_the_service_promises_is_no_fault(name: str, ended_after: float, received: bytes) -> None:
    assert fault(kind_of(name), treated(ended_after, received)) is None

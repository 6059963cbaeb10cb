"""Requests with idempotency keys take effect exactly once, through lost answers and kills; planted bugs are found."""

from pathlib import Path

import pytest
from databases import STORES
from harness.repeats import PLANTED_RECEIPTS, take_effect_once
from running import Ended, Server, Wire, message, running

LOST_ANSWERS = 200
"""At least so many answers are lost in each run."""
OPERATIONS = 800
KILLS = 5


@pytest.mark.parametrize(("store", "servers", "lost_commits"), [("file", 1, 0), ("postgres", 2, 5)])
def test_every_request_takes_effect_exactly_once_through_lost_answers_and_kills(
    store: str, servers: int, lost_commits: int, tmp_path: Path
) -> None:
    finding = take_effect_once(
        STORES[store](tmp_path), 41, operations=OPERATIONS, kills=KILLS, servers=servers, lost_commits=lost_commits
    )
    assert finding.violations == []
    figures = finding.figures
    assert figures["operations"] >= OPERATIONS
    assert figures["lost answers"] >= LOST_ANSWERS
    assert figures["replayed answers"] > 0
    assert figures["requests sent twice at once"] > 0
    assert figures["kills with operations under way"] == KILLS
    assert figures["answers of COMMIT lost"] == lost_commits


# The server dies between the commit and the answer ------------------------------------------------------------


def repeated(server: Server, request: bytes) -> tuple[int, bytes, bool]:
    with Wire(server) as wire:
        answer = wire.send(request).answer(to="POST")
    return answer.status, answer.body, answer.headers.get("idempotent-replayed") == "true"


@pytest.mark.parametrize("store", ["file", "postgres"])
@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/kv/a?increment", b"5", 201),
        ("POST", "/set", b'{"value":1}', 201),
        ("POST", "/txn", b'{"do":[{"op":"increment","key":"a","value":5}]}', 200),
        ("POST", "/locks/l?ttl=3600", None, 201),
    ],
    ids=["increment", "set", "txn", "lock"],
)
def test_a_request_is_not_done_again_if_the_server_died_between_commit_and_answer(
    store: str, method: str, target: str, body: bytes | None, status: int, tmp_path: Path
) -> None:
    place = STORES[store](tmp_path)
    request = message(method, target, "Idempotency-Key: once", body=body)
    dying = {"LEASEHOLD_TEST_BUG": "die before answering"}
    with (
        running(place, program=(PLANTED_RECEIPTS,), environment=dying) as server,
        Wire(server) as wire,
        pytest.raises((Ended, ConnectionResetError)),
    ):
        wire.send(request).answer(to=method)
    with running(place) as server:
        revision = server.revision()
        first = repeated(server, request)
        assert (first[0], first[2]) == (status, True)
        assert server.revision() == revision
        server.restart()
        assert repeated(server, request) == first


# Planted bugs -------------------------------------------------------------------------------------------------

SEEDS = (42, 43, 44, 45, 46, 47)
"""A bug shows itself only if a fault meets a request in a certain way, so one of these runs must find it."""


def violations(tmp_path: Path, bug: str | None, seed: int = SEEDS[0]) -> list[str]:
    (folder := tmp_path / str(seed)).mkdir()
    return take_effect_once(STORES["file"](folder), seed, operations=500, kills=2, pauses=0, bug=bug).violations


@pytest.mark.parametrize("bug", ["write receipts later", "forget receipts at a start", "ignore idempotency keys"])
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    runs = (violations(tmp_path, bug, seed) for seed in SEEDS)
    assert any(found for found in runs)


def test_without_a_bug_the_same_run_finds_nothing(tmp_path: Path) -> None:
    assert violations(tmp_path, None) == []

"""Leases after their holder, the service or the database was stopped or killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from databases import STORES, Database, PostgresServer
from harness.locks import TTL, Crowd, microseconds
from running import Server, refusal, running, until

LONG = 60.0
SHORT = 1.5
RESTARTS = 3


def acquire(server: Server, lock: str, *, ttl: float = LONG, wait: float = 0.0) -> httpx.Response:
    return server.request("POST", f"/locks/{lock}", json={"ttl": ttl, "wait": wait})


def release(server: Server, lock: str, lease_id: str) -> httpx.Response:
    return server.request("DELETE", f"/locks/{lock}", params={"lease_id": lease_id})


# A stopped holder ---------------------------------------------------------------------------------------------

MEANWHILE = (
    "the-lock-stayed-free",
    "another-client-acquired-and-released-it",
    "another-client-holds-it",
    "the-service-was-restarted",
)


class Late:
    """The answers to holders that were stopped past the end of their leases, by what happened meanwhile."""

    def __init__(self) -> None:
        self.writes: dict[str, str] = {}
        self.releases: dict[str, str] = {}
        self.entries: dict[str, int] = {}
        """The status of a read of what each holder wrote."""


@pytest.fixture(scope="module", params=STORES)
def late(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Late]:
    """The answers in all cases, collected together because each case takes as long as a lease."""
    store = STORES[request.param](tmp_path_factory.mktemp("store"))
    with running(store) as server, Crowd([server], 0) as crowd:
        clients = {lock: crowd.add(lock, rounds=1, dwell=(0.5, 0.5)) for lock in MEANWHILE}
        for _ in MEANWHILE:
            crowd.stop(clients[crowd.wait_for(lambda event: event.kind == "grant").lock])
        until(lambda: server.request("GET", "/locks").json()["locks"] == [])
        taken = acquire(server, "another-client-acquired-and-released-it").json()
        release(server, "another-client-acquired-and-released-it", taken["lease_id"])
        acquire(server, "another-client-holds-it")
        *others, last = MEANWHILE
        for lock in others:
            crowd.resume(clients[lock])
            crowd.wait_for(lambda event, lock=lock: (event.kind, event.lock) == ("release", lock))  # type: ignore[misc]
        server.restart()
        crowd.announce()
        crowd.resume(clients[last])
        crowd.end()
        late = Late()
        for event in crowd.events:
            heard = {"write": late.writes, "release": late.releases}.get(event.kind, {})
            heard[event.lock] = event.outcome
        late.entries = {lock: server.get(lock).status_code for lock in MEANWHILE}
        yield late


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_write_by_a_holder_stopped_past_its_ttl_is_refused(late: Late, meanwhile: str) -> None:
    assert (late.writes[meanwhile], late.entries[meanwhile]) == ("write 412 lease_lost", 404)


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_release_by_a_holder_stopped_past_its_ttl_does_not_affect_the_next_holder(late: Late, meanwhile: str) -> None:
    held = meanwhile == "another-client-holds-it"
    assert late.releases[meanwhile] == ("release 409 lease_lost" if held else "release 404 lock_not_found")


# A killed service or database ---------------------------------------------------------------------------------


class Stage:
    """A service, and how it or its database is killed and started again."""

    def __init__(self, server: Server, kill_and_start: Callable[[], object]) -> None:
        self.server = server
        self.kill_and_start = kill_and_start


@pytest.fixture(scope="module", params=["file", "postgres", "postmaster"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        if request.param == "postmaster":
            postgres = stack.enter_context(PostgresServer())
            server = stack.enter_context(running(Database(postgres.url, "killed").create().url))
            yield Stage(server, postgres.restart)
        else:
            server = stack.enter_context(running(STORES[request.param](tmp_path_factory.mktemp("store"))))
            yield Stage(server, server.restart)


def shown(server: Server, lock: str) -> Any:
    """What a GET of the lock returns."""
    return server.request("GET", f"/locks/{lock}").json()


def test_a_lease_lasts_to_its_end_and_tokens_grow_through_every_kill(stage: Stage) -> None:
    server = stage.server
    lease = acquire(server, "l").json()
    before = shown(server, "l")
    tokens = [lease["token"]]
    for number in range(RESTARTS):
        tokens.append(acquire(server, f"before-{number}", ttl=1).json()["token"])
        stage.kill_and_start()
        assert shown(server, "l") == before
        assert refusal(acquire(server, "l")) == (423, "lock_held")
        assert server.put("entry", "1", headers={"If-Lease": lease["lease_id"]}).status_code in (200, 201)
        tokens.append(acquire(server, f"after-{number}", ttl=1).json()["token"])
    assert tokens == sorted(set(tokens))
    renewed = server.request("PUT", "/locks/l", json={"lease_id": lease["lease_id"], "ttl": LONG * 2})
    assert (renewed.status_code, renewed.json()["token"]) == (200, lease["token"])
    assert release(server, "l", lease["lease_id"]).status_code == 200


def test_a_lock_is_free_at_the_end_of_its_lease_despite_a_kill_in_between(stage: Stage) -> None:
    lease = acquire(stage.server, "short", ttl=SHORT).json()
    stage.kill_and_start()
    asked = time.time_ns() // 1000
    successor = acquire(stage.server, "short", wait=SHORT + 5).json()
    end = microseconds(lease["expires_at"])
    assert microseconds(successor["acquired_at"]) - end >= 0
    assert microseconds(successor["acquired_at"]) - max(end, asked) < TTL

"""Which connections end when another primary is found."""

import asyncio
from dataclasses import dataclass
from typing import cast

import asyncpg
import pytest

from leasehold.engines.base import new_incarnation
from leasehold.engines.postgres.database import LOOK_SECONDS, Database
from leasehold.engines.postgres.links import Address
from leasehold.engines.postgres.parameters import Host
from leasehold.engines.postgres.primary import Connection, Primaries, Server


@dataclass
class Fake:
    """A connection without a database."""

    is_of_former: bool = False
    is_over: bool = False

    def is_closed(self) -> bool:
        return self.is_over

    def terminate(self) -> None:
        self.is_over = True


def added(primaries: Primaries, system: int, timeline: int) -> Fake:
    return _added(primaries, Server(system, timeline))


def _added(primaries: Primaries, server: Server | None) -> Fake:
    fake = Fake()
    primaries.add(cast("Connection", fake), server)
    return fake


def test_connections_to_the_same_primary_all_stay() -> None:
    primaries = Primaries()
    fakes = [added(primaries, 1, 4) for _ in range(3)]
    assert [(fake.is_over, fake.is_of_former) for fake in fakes] == [(False, False)] * 3


def test_a_larger_timeline_ends_all_other_connections() -> None:
    primaries = Primaries()
    former = [added(primaries, 1, 4), _added(primaries, None), added(primaries, 1, 4)]
    found = added(primaries, 1, 5)
    assert [(fake.is_over, fake.is_of_former) for fake in former] == [(True, True)] * 3
    assert (found.is_over, found.is_of_former) == (False, False)
    assert not added(primaries, 1, 5).is_over


def test_a_smaller_timeline_is_refused_and_changes_nothing() -> None:
    primaries = Primaries()
    present = added(primaries, 1, 5)
    late = Fake()
    for _ in range(2):
        with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
            primaries.add(cast("Connection", late), Server(1, 4))
    assert (late.is_over, late.is_of_former, present.is_over) == (True, False, False)


def test_timelines_are_compared_within_a_database_system_only() -> None:
    primaries = Primaries()
    first = added(primaries, 1, 5)
    other = added(primaries, 2, 1)
    assert (first.is_over, other.is_over) == (True, False)
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        added(primaries, 1, 4)
    assert not other.is_over
    added(primaries, 1, 5)
    assert other.is_over


def test_a_server_that_does_not_say_its_timeline_is_used_and_ends_nothing() -> None:
    primaries = Primaries()
    known, unknown = added(primaries, 1, 4), _added(primaries, None)
    assert (known.is_over, unknown.is_over) == (False, False)


def test_only_a_larger_timeline_of_the_present_system_is_a_new_primary() -> None:
    primaries = Primaries()
    assert not primaries.is_new(Server(1, 4))
    present = added(primaries, 1, 4)
    for server in (None, Server(1, 4), Server(1, 3), Server(2, 5)):
        assert not primaries.is_new(server)
        assert not present.is_over
    assert primaries.is_new(Server(1, 5))
    assert (present.is_over, present.is_of_former) == (True, True)
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        added(primaries, 1, 4)


def test_all_hosts_but_the_one_in_use_are_asked_for_a_new_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if that one was silent, so that another one is tried first next time."""
    asked: list[str | None] = []

    async def found(_: Address, _host: Host) -> tuple[Fake, Server]:
        return Fake(), Server(1, 4)

    async def away(_: Address, host: Host) -> Connection:
        asked.append(host.name)
        raise ConnectionRefusedError

    async def scenario() -> None:
        address = Address("postgresql://a,b,c/name")
        await address.connect()
        await address.look_around()
        address.put_last(Host("a", None))
        await address.look_around()

    with monkeypatch.context() as patched:
        patched.setattr(Address, "_connect_to", found)
        patched.setattr(Address, "_open", away)
        asyncio.run(scenario())
    assert asked == ["b", "c", "b", "c"]


def test_servers_that_start_together_do_not_look_for_a_new_primary_together(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []

    class Looked:
        async def look_around(self) -> None:
            done.append("look")

    async def sleep(seconds: float) -> None:
        done.append(seconds)
        if len(done) == 5:
            raise asyncio.CancelledError

    def began() -> object:
        """When a server looks first."""
        done.clear()
        database = Database("postgresql://a,b/name", clock=None, make_incarnation=new_incarnation)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(database._look_around(cast("Address", Looked())))
        assert done[1:] == ["look", LOOK_SECONDS, "look", LOOK_SECONDS]
        return done[0]

    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert began() != began()

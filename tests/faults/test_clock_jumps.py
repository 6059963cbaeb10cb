"""Leases when the system clock jumps while the service is down."""

from pathlib import Path

import pytest
from harness.clock_jumps import CLOCK, PROGRAM, survive_clock_jumps
from running import Server, refusal, running

HOUR = 3_600.0


def restarted(server: Server, clock_seconds: float) -> Server:
    server._environment[CLOCK] = str(clock_seconds)
    return server.restart()


def test_leases_exclude_each_other_although_the_clock_jumps_at_each_start(tmp_path: Path) -> None:
    finding = survive_clock_jumps(tmp_path / "data.json", 7, kills=5)
    assert finding.violations == []
    assert finding.figures["jumps with a lease alive"] >= 2
    assert finding.figures["elements"] > 0
    assert finding.figures["writes refused"] > 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_tokens_grow_although_the_clock_jumps(tmp_path: Path, jump: float) -> None:
    with running(tmp_path / "data.json", program=(PROGRAM,), environment={CLOCK: "0"}) as server:
        first = server.lease("a")
        second = restarted(server, jump).lease("b")
        third = restarted(server, 0).lease("c")
        assert first["token"] < second["token"] < third["token"]


def test_a_lease_stays_alive_when_the_clock_is_set_back(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", program=(PROGRAM,), environment={CLOCK: "0"}) as server:
        lease = server.lease("l", ttl=60)
        restarted(server, -HOUR)
        assert refusal(server.acquire("l", wait=0)) == (423, "lock_held")
        assert server.put("a", "1", headers={"If-Lease": lease["lease_id"]}).status_code == 201


def test_an_expired_lease_that_was_replaced_does_not_return_when_the_clock_is_set_back(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", program=(PROGRAM,), environment={CLOCK: "0"}) as server:
        first = server.lease("l", ttl=60)
        restarted(server, HOUR)
        second = server.lease("l", ttl=7_200)
        restarted(server, 0)
        assert refusal(server.put("a", "1", headers={"If-Lease": first["lease_id"]})) == (412, "lease_lost")
        assert server.put("a", "2", headers={"If-Lease": second["lease_id"]}).status_code == 201

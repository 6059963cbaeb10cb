"""The clients do each call once, although connections are cut at any byte; and planted bugs are detected."""

from pathlib import Path

import pytest
from harness import depth
from harness.client_calls import BUGS, PYTHON_CLIENTS, TYPESCRIPT_CLIENT, agree_in_spite_of_cuts
from programs import NODE, needs

CALLS = depth(240)
CLIENTS = [
    pytest.param(PYTHON_CLIENTS, id="python"),
    pytest.param([TYPESCRIPT_CLIENT], id="typescript", marks=needs(NODE)),
]


@pytest.mark.parametrize("clients", CLIENTS)
def test_clients_agree_with_a_run_without_cuts(tmp_path: Path, clients: list[str]) -> None:
    finding = agree_in_spite_of_cuts(tmp_path, 51, calls=CALLS, clients=clients)
    assert finding.violations == []
    assert finding.figures["calls"] >= len(clients) * CALLS
    assert finding.figures["cuts"] >= CALLS // 10 * len(clients)


@pytest.mark.parametrize("clients", CLIENTS)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(tmp_path: Path, bug: str, clients: list[str]) -> None:
    assert agree_in_spite_of_cuts(tmp_path, 52, calls=100, clients=clients, bug=bug).violations != []

"""The rows of the torture run: one for each promise and kind of fault. To add one, add a harness and a row."""

import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import typescript
from databases import ENGINES, STORES
from harness import Finding
from harness.api_model import follow_the_model
from harness.bad_input import send_bad_input
from harness.client_calls import TYPESCRIPT_CLIENT, agree_in_spite_of_cuts
from harness.clock_jumps import survive_clock_jumps
from harness.described import drive_by_description
from harness.disk_faults import Fault, survive_disk_faults
from harness.ext4 import survive_lost_file_system
from harness.injection import survive_exceptions
from harness.kills import survive_kills
from harness.linearizability import stay_linearizable
from harness.lock_command import end_in_time
from harness.locks import Load, append_on_two_servers, append_with_pauses
from harness.misbehaving_clients import survive_misbehaving_clients
from harness.mounts import obstacle
from harness.patroni import PROMISE as PATRONI_PROMISE
from harness.patroni import obstacle as obstacle_to_patroni
from harness.patroni import round_of_failovers as round_with_patroni
from harness.postgres_faults import PROMISE, rounds_of
from harness.power_cuts import survive_power_cuts
from harness.power_cuts_of_namespaces import keep_namespaces
from harness.repeats import take_effect_once
from harness.standby import PROMISE as STANDBY_PROMISE
from harness.standby import round_of_failovers
from harness.transfers import keep_the_sum
from harness.turns import FAULTS_IN_TURNS
from harness.watchers import watch_through_kills

from leasehold.engines.base import SteadyClock
from leasehold.engines.postgres.committer import Committer

Round = Callable[[Path, int], Finding]
"""Runs one round in an empty folder with a seed. A round takes seconds, not minutes."""


@dataclass(frozen=True)
class Row:
    """`unit`: the figure that says how much was done.

    `obstacle`: why the row cannot run on this machine, or empty. Such a row is skipped and named.
    """

    name: str
    promise: str
    round: Round
    unit: str
    weight: int = 1
    """The row's share of the time."""
    obstacle: Callable[[], str] = str


def _kills(store: str) -> Round:
    return lambda folder, seed: survive_kills(STORES[store](folder), seed, kills=10)


def _pauses(store: str) -> Round:
    return lambda folder, seed: append_with_pauses(STORES[store](folder), seed, load=Load(pauses=50, kills=5))


def _two_servers(folder: Path, seed: int) -> Finding:
    return append_on_two_servers(STORES["postgres"](folder), seed, rounds=100)


def _clock_jumps(folder: Path, seed: int) -> Finding:
    return survive_clock_jumps(folder / "data.json", seed, kills=10)


def _disk_faults(folder: Path, seed: int) -> Finding:
    return survive_disk_faults(folder, seed, faults=[list(Fault)[seed % len(Fault)]])


def _ext4(folder: Path, seed: int) -> Finding:
    return survive_lost_file_system(folder, seed, cuts=20)


def _power_cuts(folder: Path, seed: int) -> Finding:
    return survive_power_cuts(seed, lives=150, cuts_at_each_operation=8)


def _power_cuts_of_namespaces(_folder: Path, seed: int) -> Finding:
    return keep_namespaces(seed, lives=30)


def _linearizable_file(folder: Path, seed: int) -> Finding:
    return stay_linearizable(STORES["file"](folder), seed, operations=60_000, kills=5, pauses=5)


def _linearizable_postgres(folder: Path, seed: int) -> Finding:
    store, bug = STORES["postgres"](folder), random.Random(seed).choice([None, "wait for few"])
    return stay_linearizable(store, seed, operations=40_000, kills=5, pauses=5, servers=2, lost_answers=5, bug=bug)


def _linearizable_in_turns(folder: Path, seed: int) -> Finding:
    in_turns = random.Random(seed).sample(FAULTS_IN_TURNS, 8)
    store = STORES["postgres"](folder)
    return stay_linearizable(store, seed, operations=40_000, kills=0, pauses=0, servers=2, in_turns=in_turns)


def _locks_in_turns(folder: Path, seed: int) -> Finding:
    in_turns = random.Random(seed).sample(FAULTS_IN_TURNS, 8)
    return append_on_two_servers(STORES["postgres"](folder), seed, rounds=20, in_turns=in_turns)


def _transactions_file(folder: Path, seed: int) -> Finding:
    return keep_the_sum(STORES["file"](folder), seed, operations=60_000, kills=5, pauses=5)


def _transactions_postgres(folder: Path, seed: int) -> Finding:
    store = STORES["postgres"](folder)
    return keep_the_sum(store, seed, operations=40_000, kills=5, pauses=5, servers=2, lost_answers=5)


def _repeats_file(folder: Path, seed: int) -> Finding:
    return take_effect_once(STORES["file"](folder), seed, operations=8_000, kills=10, pauses=3)


def _repeats_postgres(folder: Path, seed: int) -> Finding:
    store = STORES["postgres"](folder)
    return take_effect_once(store, seed, operations=5_000, kills=10, pauses=3, servers=2, lost_commits=10)


def _client_calls(folder: Path, seed: int) -> Finding:
    return agree_in_spite_of_cuts(folder, seed, calls=2_000)


def _typescript_calls(folder: Path, seed: int) -> Finding:
    return agree_in_spite_of_cuts(folder, seed, calls=2_000, clients=[TYPESCRIPT_CLIENT])


def _lock_command(folder: Path, seed: int) -> Finding:
    return end_in_time(folder, seed)


def _watchers(folder: Path, seed: int) -> Finding:
    return watch_through_kills(STORES["file"](folder), seed, kills=15)


def _watchers_of_two_servers(folder: Path, seed: int) -> Finding:
    return watch_through_kills(STORES["postgres"](folder), seed, kills=9, servers=2)


def _misbehaving_clients(folder: Path, seed: int) -> Finding:
    return survive_misbehaving_clients(
        STORES["file"](folder), seed, clients=5_000, deadline_seconds=10.0, is_measured=True
    )


def _bad_input(folder: Path, seed: int) -> Finding:
    return send_bad_input(folder, seed, mutations=5_000, corpora=False)


def _description(folder: Path, seed: int) -> Finding:
    return drive_by_description(STORES["file"](folder), seed, examples=100)


def _injection(kind: str) -> Round:
    def survive(folder: Path, seed: int) -> Finding:
        return survive_exceptions(lambda: ENGINES[kind](folder, SteadyClock()), seed, points=2_000)

    return survive


def _injection_in_files(folder: Path, seed: int) -> Finding:
    return survive_exceptions(lambda: ENGINES["file"](folder, SteadyClock()), seed, points=1_000, in_files=True)


def _injection_in_turns(folder: Path, seed: int) -> Finding:
    with patch.object(Committer, "is_contended", new=True):
        return _injection("postgres")(folder, seed)


def _api_model(store: str) -> Round:
    return lambda folder, seed: follow_the_model(STORES[store](folder), seed, sequences=300)


ROWS = (
    Row("kills-file", "acknowledged writes survive SIGKILL, file engine", _kills("file"), "kills"),
    Row("kills-postgres", "acknowledged writes survive SIGKILL, PostgreSQL", _kills("postgres"), "kills"),
    Row("locks-file", "locks exclude, file engine", _pauses("file"), "holders paused past their ttl"),
    Row("locks-postgres", "locks exclude, PostgreSQL", _pauses("postgres"), "holders paused past their ttl"),
    Row("locks-two-servers", "locks exclude, two servers on PostgreSQL", _two_servers, "elements"),
    Row("locks-turns", "locks exclude, two servers that fail in their turns", _locks_in_turns, "elements"),
    Row("clock-jumps", "locks exclude although the system clock jumps", _clock_jumps, "jumps"),
    Row("postgres-cuts", PROMISE, rounds_of(["cut"] * 40), "cuts"),
    Row("postgres-backends", PROMISE, rounds_of(["backends"] * 40), "kills of backends"),
    Row("postgres-postmaster", PROMISE, rounds_of(["postmaster"] * 20), "postmaster kills"),
    Row("postgres-freezes", PROMISE, rounds_of(["freeze"] * 6), "freezes"),
    Row("postgres-away", PROMISE, rounds_of(["no network", "no postmaster", "long freeze"]), "long outages"),
    Row("postgres-standby", STANDBY_PROMISE, round_of_failovers, "failovers"),
    Row("patroni", PATRONI_PROMISE, round_with_patroni, "failovers", obstacle=obstacle_to_patroni),
    Row("power-cuts", "acknowledged changes survive power cuts", _power_cuts, "states"),
    Row("power-cuts-namespaces", "namespaces survive power cuts", _power_cuts_of_namespaces, "states"),
    Row("disk-faults", "acknowledged changes survive the failure of any file operation", _disk_faults, "runs"),
    Row("ext4", "acknowledged changes survive the loss of a real file system", _ext4, "cuts", obstacle=obstacle),
    Row("injection-memory", "the lane survives any exception, memory", _injection("memory"), "faults"),
    Row("injection-file", "the lane survives any exception, file engine", _injection("file"), "faults"),
    Row("injection-files", "no exception and kill loses an acknowledged write", _injection_in_files, "faults"),
    Row("injection-postgres", "the lane survives any exception, PostgreSQL", _injection("postgres"), "faults"),
    Row("injection-turns", "the lane survives any exception, servers in turns", _injection_in_turns, "faults"),
    Row("linearizable-file", "linearizable through kills and pauses, file engine", _linearizable_file, "operations"),
    Row(
        "linearizable-postgres",
        "linearizable through kills and pauses, two servers on PostgreSQL",
        _linearizable_postgres,
        "operations",
    ),
    Row(
        "linearizable-turns",
        "linearizable, two servers that fail in their turns",
        _linearizable_in_turns,
        "operations",
    ),
    Row("transactions-file", "transactions are all or nothing, file engine", _transactions_file, "operations", 2),
    Row(
        "transactions-postgres",
        "transactions are all or nothing, two servers on PostgreSQL",
        _transactions_postgres,
        "operations",
        2,
    ),
    Row("repeats-file", "requests with a key take effect once, file engine", _repeats_file, "lost answers"),
    Row("repeats-postgres", "requests with a key take effect once, two servers", _repeats_postgres, "lost answers"),
    Row("clients", "calls of the Python clients are done once, whatever is cut", _client_calls, "calls"),
    Row(
        "clients-typescript",
        "calls of the TypeScript client are done once, whatever is cut",
        _typescript_calls,
        "calls",
        obstacle=typescript.obstacle,
    ),
    Row(
        "lock-command",
        "a command under `leasehold lock` is gone before its lease is over",
        _lock_command,
        "commands that were ended",
    ),
    Row("watchers-file", "watchers end in the store's state, file engine", _watchers, "kills"),
    Row("watchers-postgres", "watchers end in the store's state, two servers", _watchers_of_two_servers, "kills"),
    Row(
        "misbehaving-clients",
        "misbehaving clients are disconnected, good ones served meanwhile",
        _misbehaving_clients,
        "misbehaving clients",
    ),
    Row("bad-input", "no input causes a 5xx, a leak or damage, and engines answer alike", _bad_input, "inputs", 2),
    Row("description", "answers match the OpenAPI description", _description, "requests"),
    Row("api-model-memory", "requests have the results of a model, memory", _api_model("memory"), "sequences"),
    Row("api-model-file", "requests have the results of a model, file engine", _api_model("file"), "sequences"),
    Row("api-model-postgres", "requests have the results of a model, PostgreSQL", _api_model("postgres"), "sequences"),
)


def run_round(name: str, seed: int) -> Finding:
    """Run one round of a row, in its own folder."""
    [row] = [row for row in ROWS if row.name == name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-")))
        folder.chmod(0o755)  # PostgreSQL does not run as root and needs access to the folder
        return row.round(folder, seed)

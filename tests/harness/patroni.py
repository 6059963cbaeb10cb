"""The real service on two PostgreSQL nodes that Patroni runs, with etcd: switchovers and failovers while clients write.

The standby is synchronous, so nothing that was acknowledged may be lost, whichever node is the primary. Fencing tokens
must grow, and no lock may have two holders (`ledger`). There is no watchdog here, so no node is frozen: docs/scaling.md
says what is lost then.

Everything runs in a temporary folder, on loopback, and ends with the round.
"""

import functools
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx
import psutil
from databases import unprivileged, unprivileged_user
from running import free_port, running, until

from harness import Finding
from harness.clients import clients_at_work
from harness.ledger import Ledger
from harness.postgres_faults import bad_end, differences, what_has_not_recovered

PROMISE: Final = "with Patroni and a synchronous standby, a failover loses nothing that was acknowledged"
FIRST_WRITES: Final = 100
WAIT_SECONDS: Final = 150.0
"""For one step of the cluster. It takes seconds; the rest is for busy machines."""
ASK_SECONDS: Final = 0.1
TTL_SECONDS: Final = 20
"""Patroni's minimum. When a primary and its Patroni have died, the standby waits for so long."""
_PROGRAMS: Final = Path("/usr/lib/postgresql")
"""Where Debian has the programs of PostgreSQL, by version."""
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
"""Patroni runs on the Python of the system."""

Way = Literal["switchover", "postmaster killed", "node killed"]


@functools.cache
def obstacle() -> str:
    """Why this machine cannot run it; empty if it can."""
    lacking = [name for name in ("patroni", "etcd") if shutil.which(name) is None]
    if _programs() is None:
        lacking.append("postgresql")
    return f"Debian's packages of these are missing: {', '.join(lacking)}" if lacking else ""


def _programs() -> Path | None:
    """The programs of the newest version that Debian has installed."""
    found = [folder for folder in _PROGRAMS.glob("*/bin") if (folder / "pg_rewind").exists()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


class Node:
    """One Patroni with its PostgreSQL."""

    def __init__(self, name: str, folder: Path, port: int, api_port: int) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.api_port = api_port
        self.patroni: subprocess.Popen[bytes] | None = None

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))


class Cluster:
    """etcd and two nodes. The end of the `with` block stops all of it and removes the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._user = unprivileged_user()
        self._ends = ExitStack()
        self._etcd_port, self._peer_port = self._port(), self._port()
        self.nodes = [Node(f"node{n}", folder / f"node{n}", self._port(), self._port()) for n in range(2)]

    def _port(self) -> int:
        return self._ends.enter_context(free_port())

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/postgres"

    def __enter__(self) -> Self:
        try:
            self._ends.callback(_guard([node.folder / "data" for node in self.nodes]).communicate)
            self._start_etcd()
            for node in self.nodes:
                node.folder.mkdir()
                (node.folder / "patroni.json").write_text(json.dumps(self._settings(node)))
                self._give(node.folder)
                self._ends.callback(self._stop, node)
                self.start(node)
            self.wait_for_standby()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def _start_etcd(self) -> None:
        data = self._folder / "etcd"
        data.mkdir()
        self._give(data)
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        etcd = self._run(
            self._folder / "etcd.log",
            *("etcd", f"--data-dir={data}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )
        self._ends.callback(_end, etcd)
        until(lambda: _answers(f"{client}/health"), seconds=WAIT_SECONDS)

    def _settings(self, node: Node) -> Mapping[str, Any]:
        parameters = {"unix_socket_directories": "", "max_connections": 100, "recovery_init_sync_method": "syncfs"}
        return {
            "scope": "leasehold",
            "name": node.name,
            "restapi": {"listen": f"127.0.0.1:{node.api_port}", "connect_address": f"127.0.0.1:{node.api_port}"},
            "etcd3": {"host": f"127.0.0.1:{self._etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": parameters},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{node.port}",
                "connect_address": f"127.0.0.1:{node.port}",
                "data_dir": str(node.folder / "data"),
                "bin_dir": str(_programs()),
                "pgpass": str(node.folder / "pgpass"),
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "postgres"}},
                "remove_data_directory_on_diverged_timelines": True,
                "remove_data_directory_on_rewind_failure": True,
            },
            "watchdog": {"mode": "off"},
        }

    def start(self, node: Node) -> None:
        node.patroni = self._run(node.folder / "log", "patroni", str(node.folder / "patroni.json"))
        until(lambda: _answers(f"http://127.0.0.1:{node.api_port}/liveness"), seconds=WAIT_SECONDS)

    def _stop(self, node: Node) -> None:
        """Patroni stops its PostgreSQL. If it cannot any more, the postmaster is killed."""
        if node.patroni is not None:
            _end(node.patroni)
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            postmaster = node.postmaster()
            if postmaster.name() == "postgres":
                postmaster.kill()
                postmaster.wait(WAIT_SECONDS)

    def _run(self, log: Path, *command: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as written:
            return subprocess.Popen(
                unprivileged(*command),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                cwd=self._folder,
                env=_ENVIRONMENT,
            )

    def _give(self, path: Path) -> None:
        if self._user is not None:
            shutil.chown(path, self._user)

    # Roles --------------------------------------------------------------------------------------------------------

    def _roles(self) -> Mapping[str, str]:
        """The role of each node that runs, as one of the nodes knows it."""
        for node in self.nodes:
            with suppress(httpx.HTTPError):
                members = httpx.get(f"http://127.0.0.1:{node.api_port}/cluster", timeout=10).json()["members"]
                return {each["name"]: each["role"] for each in members if each["state"] in ("running", "streaming")}
        return {}

    def has_another_primary(self, before: psutil.Process) -> bool:
        """Whether the primary is not this postmaster any more. It may be the same node, started again."""
        roles = self._roles()
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            return any(roles.get(node.name) == "leader" and node.postmaster() != before for node in self.nodes)
        return False

    def wait_for_standby(self) -> tuple[Node, Node]:
        """Wait until there are a primary and a synchronous standby. Returns both."""
        expected = ["leader", "sync_standby"]
        until(lambda: sorted(self._roles().values()) == expected, seconds=WAIT_SECONDS)
        primary, standby = sorted(self.nodes, key=lambda node: self._roles()[node.name])
        return primary, standby

    def switch_over(self, primary: Node, standby: Node) -> None:
        answer = httpx.post(
            f"http://127.0.0.1:{primary.api_port}/switchover",
            json={"leader": primary.name, "candidate": standby.name},
            timeout=WAIT_SECONDS,
        )
        assert answer.status_code == 200, answer.text

    def kill_postmaster(self, primary: Node, _standby: Node) -> None:
        primary.postmaster().kill()

    def kill_node(self, primary: Node, _standby: Node) -> None:
        assert primary.patroni is not None
        postmaster = primary.postmaster()
        primary.patroni.kill()
        postmaster.kill()
        primary.patroni.wait(WAIT_SECONDS)


WAYS: Final[Mapping[Way, Callable[[Cluster, Node, Node], None]]] = {
    "switchover": Cluster.switch_over,
    "postmaster killed": Cluster.kill_postmaster,
    "node killed": Cluster.kill_node,
}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _guard(folders: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Kills the postmasters of these folders when this process has died. Patroni gives each a session of its own."""
    script = (
        'cat; exec 2>/dev/null; for data in "$@"; do pid=$(head -n 1 "$data/postmaster.pid");'
        ' [ "$(cat "/proc/$pid/comm")" = postgres ] && kill -9 "$pid"; done'
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "guard", *map(str, folders)], stdin=subprocess.PIPE, start_new_session=True
    )


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=10).status_code == 200
    return False


def _longest_silence(ledger: Ledger, strike: Callable[[], None], is_over: Callable[[], bool]) -> float:
    """Strike, and return the longest time in seconds without an acknowledged write, until one after `is_over`."""
    longest = 0.0
    acknowledged, at = sum(ledger.done), time.monotonic()
    deadline, asked_at, over = at + WAIT_SECONDS, at, False
    strike()
    while time.monotonic() < deadline:
        now, done = time.monotonic(), sum(ledger.done)
        if done > acknowledged:
            longest = max(longest, now - at)
            acknowledged, at = done, now
            if over:
                return longest
        if not over and now > asked_at + ASK_SECONDS:
            over, asked_at = is_over(), now
        time.sleep(0.005)
    raise AssertionError("the fault is not over, or no write is acknowledged")


def survive_failovers(folder: Path, seed: int, ways: Sequence[Way]) -> Finding:
    """A failover in each of the `ways`, one after another, under one service and its clients."""
    finding, ledger, rng = Finding(), Ledger(), random.Random(seed)
    with Cluster(folder) as cluster, running(cluster.url) as service:
        with clients_at_work(service, ledger, seed, compares=False):
            for way in ways:
                primary, standby = cluster.wait_for_standby()
                ledger.wait_for_writes(FIRST_WRITES + rng.randrange(FIRST_WRITES))
                finding.figures["writes under way at faults"] += ledger.under_way
                strike = functools.partial(WAYS[way], cluster, primary, standby)
                is_over = functools.partial(cluster.has_another_primary, primary.postmaster())
                silence = _longest_silence(ledger, strike, is_over)
                finding.figures["failovers"] += 1
                finding.figures[f"of these: {way}"] += 1
                finding.figures[f"milliseconds without writes, {way}"] += round(silence * 1000)
                late = what_has_not_recovered(service, ledger)
                if late:
                    ledger.fault(f"after the {way}: {late}")
                    break
                if primary.patroni is not None and primary.patroni.poll() is not None:
                    cluster.start(primary)
        finding.violations += [*ledger.violations, *differences(service, ledger), *bad_end(service)]
    finding.figures.update(ledger.figures)
    return finding


def round_of_failovers(folder: Path, seed: int) -> Finding:
    """Rounds for `make torture`."""
    ways = list(WAYS)
    random.Random(seed).shuffle(ways)
    return survive_failovers(folder, seed, ways)

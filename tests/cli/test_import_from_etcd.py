"""`leasehold import` of what a real etcdctl writes of a real etcd."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from commands import run
from programs import needs, program
from running import START_SECONDS, clean_environment, free_port, running, until

pytestmark = needs("etcd", "etcdctl")

VALUES: Final = {
    "/config/database": b'{"host": "db.example.com", "ratio": 1.10}',
    "/config/id": b"007",
    "/config/port": b"5432",
    "/größe/<a&b>": "Grüße\n".encode(),
    "/logo": b"\x89PNG\r\n\x1a\n\0\xff",
}


class Etcd:
    """`run` calls etcdctl with the third version of its API, which is not the default of older ones."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return subprocess.run(
            [str(program("etcdctl")), "--endpoints", self._url, *arguments],
            input=stdin,
            env=clean_environment() | {"ETCDCTL_API": "3"},
            stdout=subprocess.PIPE,
            check=True,
            timeout=START_SECONDS,
        ).stdout

    def is_healthy(self) -> bool:
        try:
            self.run("endpoint", "health")
        except subprocess.CalledProcessError:
            return False
        return True


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with free_port() as port, free_port() as peer_port:
        url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        options = {
            "data-dir": str(tmp_path / "etcd"),
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"default={peer_url}",
        }
        with (tmp_path / "etcd.log").open("wb") as log:
            process = subprocess.Popen(
                [str(program("etcd")), *(f"--{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        try:
            etcd = Etcd(url)
            until(etcd.is_healthy, seconds=START_SECONDS)
            yield etcd
        finally:
            process.kill()
            process.wait()


def test_what_etcdctl_writes_is_imported(etcd: Etcd, tmp_path: Path) -> None:
    nothing = etcd.run("get", "--prefix", "", "-w", "json")
    for key, value in VALUES.items():
        etcd.run("put", key, stdin=value)
    etcd.run("put", "/empty", "")
    lease = etcd.run("lease", "grant", "600").decode().split()[1]
    etcd.run("put", "/services/web", "10.0.0.1:80", f"--lease={lease}")
    (tmp_path / "etcd.json").write_bytes(etcd.run("get", "--prefix", "", "-w", "json"))
    with running("memory:") as server:
        empty = run("import", url=server.url, stdin=nothing)
        assert (empty.code, empty.errors) == (0, "leasehold import: 0 entries imported\n")
        ended = run("import", str(tmp_path / "etcd.json"), "--prefix=/=", url=server.url)
        assert ended.code == 0, ended
        assert ended.errors.startswith("leasehold import: 7 entries imported; without their lease")
        texts = {key: server.get(f"{key}?raw").text for key in ("config/database", "config/id", "config/port", "empty")}
        assert texts == {
            "config/database": '{"host":"db.example.com","ratio":1.1}\n',
            "config/id": '"007"\n',
            "config/port": "5432\n",
            "empty": '""\n',
        }
        assert server.value("größe/<a&b>") == "Grüße\n"
        assert server.client.get("/kv/logo").content == VALUES["/logo"]
        as_bytes = run("import", str(tmp_path / "etcd.json"), "--prefix=/=bytes/", "--values=bytes", url=server.url)
        assert as_bytes.code == 0, as_bytes
        for key, value in VALUES.items():
            assert server.client.get(f"/kv/bytes{key}").content == value

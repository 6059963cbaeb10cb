"""Without tokens the service starts only on loopback, unless a setting allows more; warnings at the start."""

import socket
from pathlib import Path
from typing import Any

import pytest
from callers import (
    INSECURE,
    READER,
    SECRET,
    status_for_host,
)
from running import Server, http_client, leasehold, running


@pytest.mark.parametrize(
    "host", ["0.0.0.0", pytest.param("::", marks=pytest.mark.skipif(not socket.has_ipv6, reason=""))]
)
def test_without_a_key_the_service_starts_only_on_loopback(tmp_path: Path, host: str) -> None:
    result = leasehold("serve", f"--store={tmp_path / 'data.json'}", "--port=0", f"--host={host}")
    line, rest = result.stderr.split("\n", 1)
    assert (result.returncode, result.stdout, rest, list(tmp_path.iterdir())) == (1, "", "", [])
    assert line.startswith(f"leasehold: without a key for tokens the service runs on loopback only, and {host} is not")


@pytest.mark.parametrize(
    "how", [{"arguments": ["--insecure-open"]}, {"environment": INSECURE}], ids=["flag", "variable"]
)
def test_a_service_without_tokens_on_another_address_starts_with_a_warning(how: dict[str, Any]) -> None:
    options = how | {"arguments": ["--host=0.0.0.0", *how.get("arguments", [])]}
    server = Server(log_level="warning", **options)
    with server:
        server.client = http_client(f"http://127.0.0.1:{server.address[1]}")
        written = server.put("a", "1").status_code
        named = server.get("a", headers={"Host": "192.0.2.7"}).status_code
        foreign = server.get("a", headers={"Origin": "http://evil.example"}).status_code
        log = server.log()
    assert (written, named, foreign) == (201, 200, 403)
    assert (log.count("\n"), "anybody who can reach the port may read, write and end any lease" in log) == (1, True)


def test_with_a_key_the_service_starts_on_any_address_and_warns_about_unencrypted_tokens(secret_file: Path) -> None:
    arguments = ["--host=0.0.0.0", f"--auth-secret-file={secret_file}"]
    with running(arguments=arguments, log_level="warning") as server:
        url = f"http://127.0.0.1:{server.address[1]}/kv"
        statuses = [server.client.get(url, headers=headers).status_code for headers in ({}, READER)]
        log = server.log()
    assert (statuses, log.count("\n"), "unencrypted over plain HTTP" in log) == ([401, 200], 1, True)


@pytest.mark.parametrize(
    ("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_a_secret_file_that_other_users_can_read_or_change_gives_a_warning(
    tmp_path: Path, mode: int, *, warns: bool
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(mode)
    with running(arguments=[f"--auth-secret-file={path}"], log_level="warning") as server:
        log = server.log()
    assert (log.count("\n"), str(path) in log, SECRET.decode() in log) == (warns, warns, False)


def test_the_host_is_checked_on_another_address_only_with_the_setting(secret_file: Path) -> None:
    arguments = ["--host=0.0.0.0", f"--auth-secret-file={secret_file}"]
    with running(arguments=arguments, environment={"LEASEHOLD_ALLOWED_HOSTS": "db.example"}) as server:
        statuses = [status_for_host(server, host) for host in ("db.example", "127.0.0.1", "evil.example")]
    assert statuses == [401, 401, 403]

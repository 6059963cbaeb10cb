"""`leasehold status`: what a container's health check runs."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from running import Server, clean_environment, leasehold, running

ROOT = Path(__file__).parents[2]
USAGE = 2
BLACK_HOLE = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
"""Proxies that nobody answers for."""


def status(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return leasehold("status", *arguments, environment=environment)


def port_of(server: Server) -> str:
    return str(server.address[1])


@contextmanager
def answering(code: int, body: bytes) -> Iterator[str]:
    """Another program on a port of its own, which gives this answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{other.server_port}"
        finally:
            other.shutdown()
            thread.join()


# A Leasehold service ------------------------------------------------------------------------------------------


def test_a_ready_service_is_reported_in_one_line_with_exit_code_0(server: Server) -> None:
    result = status(f"--port={port_of(server)}")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(
        rf"ready at http://127\.0\.0\.1:{port_of(server)}: store memory, revision \d+, up \d+ s, version \S+\n",
        result.stdout,
    )


def test_the_address_is_read_from_the_settings_of_the_service(server: Server) -> None:
    assert status(LEASEHOLD_PORT=port_of(server), LEASEHOLD_HOST="localhost").returncode == 0


def test_the_address_is_that_of_all_commands_unless_a_service_of_this_machine_is_named(server: Server) -> None:
    other = "http://127.0.0.1:1"
    assert status(LEASEHOLD_URL=server.url, LEASEHOLD_PORT="1").returncode == 0
    assert status(f"--port={port_of(server)}", LEASEHOLD_URL=other).returncode == 0
    assert status(f"--url={server.url}", LEASEHOLD_URL=other).returncode == 0
    assert status(LEASEHOLD_URL=other, LEASEHOLD_PORT=port_of(server)).returncode == 1


def test_the_state_is_printed_as_json(server: Server) -> None:
    result = status(f"--url={server.url}", "-o", "json")
    assert (result.returncode, json.loads(result.stdout)["status"]) == (0, "ok")
    with answering(503, b'{"status": "degraded", "message": "the disk is full"}') as url:
        result = status(f"--url={url}", "-o", "json")
    assert (result.returncode, result.stdout) == (1, '{"status": "degraded", "message": "the disk is full"}\n')


def test_proxies_in_the_environment_are_ignored(server: Server) -> None:
    assert status(f"--port={port_of(server)}", **BLACK_HOLE).returncode == 0
    assert status(f"--url={server.url}", **BLACK_HOLE).returncode == 0


@pytest.mark.parametrize("host", ["0.0.0.0", *(["::", "::1"] if socket.has_ipv6 else []), "127.0.0.1", "localhost"])
def test_a_service_is_asked_on_loopback_for_any_address_that_it_listens_on(host: str) -> None:
    with running(arguments=[f"--host={host}", "--insecure-open"]) as own:
        port = own.ready_line.split()[3].rpartition(":")[2]
        result = status(LEASEHOLD_HOST=host, LEASEHOLD_PORT=port)
    assert (result.returncode, result.stdout.startswith("ready at http://")) == (0, True)


def test_a_status_needs_no_token_and_no_allowed_host(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 32)
    environment = {"LEASEHOLD_ALLOWED_HOSTS": "db.example", "LEASEHOLD_AUTH_SECRET_FILE": str(tmp_path / "secret")}
    arguments = ["--host=0.0.0.0"]
    with running(environment=environment, arguments=arguments) as own:
        assert status(**environment, LEASEHOLD_PORT=port_of(own), LEASEHOLD_HOST="0.0.0.0").returncode == 0


def test_the_option_live_asks_whether_the_process_answers(server: Server) -> None:
    result = status(f"--port={port_of(server)}", "--live")
    assert (result.returncode, result.stdout) == (0, f"alive at http://127.0.0.1:{port_of(server)}\n")


# A service that is not ready ----------------------------------------------------------------------------------


def test_a_degraded_service_is_reported_with_exit_code_1() -> None:
    answer = {
        "status": "degraded",
        "store": "file",
        "revision": 7,
        "uptime_s": 1.5,
        "version": "1",
        "message": "the disk is full",
    }
    with answering(503, json.dumps(answer).encode()) as url:
        result = status(f"--url={url}")
    assert (result.returncode, result.stdout, result.stderr) == (1, "degraded: the disk is full\n", "")


def test_a_service_that_answers_503_is_reported_as_not_ready() -> None:
    refusal = {"error": "unavailable", "message": "too many connections", "request_id": "1"}
    with answering(503, json.dumps(refusal).encode()) as url:
        result = status(f"--url={url}", "--live")
    assert (result.returncode, result.stdout) == (1, "not ready: HTTP 503, too many connections\n")


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"null", b'{"status": 1}', b"\xff"])
def test_another_program_on_the_port_is_not_taken_for_the_service(body: bytes) -> None:
    with answering(200, body) as url:
        result = status(f"--url={url}")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"leasehold: {url} is not a Leasehold service")


def test_a_refused_connection_is_reported_in_one_line_with_exit_code_1() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen
        port = probe.getsockname()[1]
        result = status(f"--port={port}")
    line = f"leasehold: http://127.0.0.1:{port} does not answer: Connection refused\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def test_a_status_ends_if_the_service_does_not_answer() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        result = status(f"--port={silent.getsockname()[1]}", "--timeout=1s")
    assert (result.returncode, "does not answer: timed out" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port=0"],
        ["--port=70000"],
        ["--timeout=soon"],
        ["--url=localhost:8080"],
        ["--url=ftp://localhost"],
        ["--url=http://"],
        ["--url=http://localhost:http"],
        ["--url=http://user:password@localhost"],
        ["--url="],
        ["extra"],
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    result = status(*arguments)
    assert (result.returncode, result.stdout, "Traceback" in result.stderr) == (USAGE, "", False)
    assert "password" not in result.stderr


def test_a_path_in_the_url_is_kept(server: Server) -> None:
    """A proxy can serve the service under a path. The service itself answers 404 there."""
    result = status(f"--url={server.url}/store/")
    assert (result.returncode, result.stdout.startswith("not ready: HTTP 404")) == (1, True)


# The image ----------------------------------------------------------------------------------------------------


def test_the_health_check_of_the_image_asks_the_service_that_the_image_starts() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    [check] = [line for line in lines if line.startswith("HEALTHCHECK")]
    [command] = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    variables = dict(line.removeprefix("ENV ").split("=", 1) for line in lines if line.startswith("ENV LEASEHOLD_"))
    asked = json.loads(check.partition(" CMD ")[2])
    assert (asked[:4], json.loads(command)) == (["env", "--unset=LEASEHOLD_URL", "leasehold", "status"], ["serve"])
    with running(environment=variables, arguments=["--insecure-open"]) as own:
        port = own.ready_line.split()[3].rpartition(":")[2]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        other = {"LEASEHOLD_URL": "http://127.0.0.1:1", "PATH": path}
        result = subprocess.run(
            asked, env=clean_environment() | variables | {"LEASEHOLD_PORT": port} | BLACK_HOLE | other, check=False
        )
    assert (own.ready_line.split()[3].startswith("http://0.0.0.0:"), result.returncode) == (True, 0)

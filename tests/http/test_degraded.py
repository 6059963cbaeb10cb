"""While writes cannot be made durable, they are refused, reads are answered, and health is `degraded`. It recovers.

The fault is real: the system refuses every write of the server to any file, its log included.
"""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Server, refusal, running, until

if not hasattr(resource, "prlimit"):
    pytest.skip("the system cannot take a file limit from a running process", allow_module_level=True)


def allow_file_bytes(server: Server, size: int) -> None:
    hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def degraded(tmp_path: Path) -> Iterator[Server]:
    """A server with one entry that cannot write any more, and has noticed."""
    with running(tmp_path / "data.json") as started:
        started.put("kept", '{"a": 1}')
        allow_file_bytes(started, 0)
        assert started.put("lost", "1").status_code == 503
        yield started
        allow_file_bytes(started, resource.RLIM_INFINITY)


def is_sound(server: Server) -> bool:
    return server.request("GET", "/health").status_code == 200


def repaired(server: Server) -> Server:
    allow_file_bytes(server, resource.RLIM_INFINITY)
    until(lambda: is_sound(server))
    return server


@pytest.mark.parametrize(("method", "path"), [("PUT", "/kv/kept"), ("PUT", "/kv/new"), ("DELETE", "/kv/kept")])
def test_a_write_is_refused_with_retry_after(degraded: Server, method: str, path: str) -> None:
    response = degraded.request(method, path, content=b"2")
    assert (refusal(response), response.headers["Retry-After"]) == ((503, "unavailable"), "1")


def test_a_refused_write_is_not_visible(degraded: Server) -> None:
    degraded.put("kept", "2")
    degraded.delete("kept")
    assert (degraded.value("kept"), degraded.get("lost").status_code) == ({"a": 1}, 404)


def test_reads_and_lists_are_still_answered(degraded: Server) -> None:
    listed = degraded.request("GET", "/kv").json()["entries"]
    assert listed == [degraded.get("kept").json()]


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_is_degraded(degraded: Server, path: str) -> None:
    response = degraded.request("GET", path)
    assert (response.status_code, response.json()["status"], response.headers["Retry-After"]) == (503, "degraded", "1")


def test_the_process_is_still_live(degraded: Server) -> None:
    assert degraded.request("GET", "/health/live").status_code == 200


def test_writes_work_again_without_a_restart(degraded: Server) -> None:
    repaired(degraded)
    assert [degraded.put("kept", "2").status_code, degraded.put("new", "3").status_code] == [200, 201]


def test_what_was_acknowledged_is_kept_and_what_was_refused_is_not(degraded: Server) -> None:
    repaired(degraded).put("new", "3")
    degraded.restart()
    entries = degraded.request("GET", "/kv").json()["entries"]
    assert {entry["key"]: entry["value"] for entry in entries} == {"kept": {"a": 1}, "new": 3}


def test_a_refused_write_uses_no_revision(degraded: Server) -> None:
    assert repaired(degraded).put("new", "3").json()["revision"] == 2


def test_a_degraded_service_stops_cleanly(degraded: Server) -> None:
    assert degraded.terminate() == 0
    degraded.start()
    assert degraded.value("kept") == {"a": 1}

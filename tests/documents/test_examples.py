"""Each program in `examples` is run against a real server, in the way that its header shows."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import needs
from running import ANSWER_SECONDS, Server, clean_environment, free_port, running, until

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "data.json") as server:
        yield server


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable if name.endswith(".py") else "sh", str(EXAMPLES / name), *arguments]


def environment(url: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return clean_environment() | {"LEASEHOLD_URL": url, "PATH": path}


def start(url: str, name: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(name, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(url),
    )


def run(url: str, name: str, *arguments: str, given: str = "", code: int = 0) -> str:
    """Standard output, or standard error if the expected exit code is not 0."""
    done = subprocess.run(
        command(name, *arguments),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_SECONDS,
        env=environment(url),
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stderr or done.stdout if code else done.stdout


def ended(process: "subprocess.Popen[str]") -> str:
    printed, told = process.communicate(timeout=ANSWER_SECONDS)
    assert process.returncode == 0, told
    return printed


# The programs -------------------------------------------------------------------------------------------------


def test_processes_that_increment_at_once_lose_no_increment(service: Server) -> None:
    processes = [start(service.url, "counter.py", "visits", "20") for _ in range(3)]
    assert max(int(ended(process)) for process in processes) == 60
    assert service.value("counters/visits") == 60


def test_only_one_candidate_is_the_leader_at_a_time(service: Server) -> None:
    processes = [start(service.url, "leader_election.py", name, "3") for name in ("ann", "ben")]
    printed = [ended(process).splitlines() for process in processes]
    tokens = [int(lines[0].split()[-1]) for lines in printed]
    assert len(set(tokens)) == 2
    last = ("ann", "ben")[tokens.index(max(tokens))]
    assert service.value("example/leader") == {"name": last, "term": 3}


def test_a_leader_whose_lease_was_ended_stops_leading(service: Server) -> None:
    with start(service.url, "leader_election.py", "ann", "1000000") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ann leads")
        assert service.request("DELETE", "/locks/example/leader?force").status_code == 200
        _, told = process.communicate(timeout=ANSWER_SECONDS)
    assert (process.returncode, told) == (1, "ann leads no more: the lease is not alive\n")


def test_each_task_is_done_by_one_worker(service: Server) -> None:
    texts = [f"task {number}" for number in range(12)]
    run(service.url, "work_queue.py", "add", *texts)
    workers = [start(service.url, "work_queue.py", "work", name) for name in ("ann", "ben", "eve")]
    did = [line.split(" did ")[1] for worker in workers for line in ended(worker).splitlines()]
    assert sorted(did) == sorted(texts)
    entries = service.request("GET", "/kv?prefix=example/").json()["entries"]
    assert sorted(entry["value"]["text"] for entry in entries) == sorted(text.upper() for text in texts)
    assert service.request("GET", "/locks").json()["locks"] == []


def test_a_task_whose_worker_died_is_done_once_its_lease_has_ended(service: Server) -> None:
    run(service.url, "work_queue.py", "add", "alone")
    [entry] = service.request("GET", "/kv?prefix=example/").json()["entries"]
    lease = service.lease(entry["key"], ttl=60)
    assert run(service.url, "work_queue.py", "work", "ann") == ""
    service.request("DELETE", f"/locks/{entry['key']}", params={"lease_id": lease["lease_id"]})
    assert run(service.url, "work_queue.py", "work", "ann") == "ann did alone\n"


def test_changes_of_parts_of_a_configuration_are_followed(service: Server) -> None:
    run(service.url, "config.py", "set", "/log/level", '"debug"')
    with start(service.url, "config.py", "follow", "2") as follower:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline()) == {"log": {"level": "debug"}}
        run(service.url, "config.py", "merge", '{"log": {"level": null}, "workers": 4}')
        assert json.loads(ended(follower)) == {"log": {}, "workers": 4}
    assert run(service.url, "config.py", "get", "/workers") == "4\n"
    assert "path_not_found" in run(service.url, "config.py", "get", "/nothing", code=1)


def test_requests_of_a_user_are_accepted_up_to_the_limit(service: Server) -> None:
    printed = [run(service.url, "rate_limit.py", "ann", "2", "10000000") for _ in range(2)]
    assert printed == ["served\n"] * 2
    assert run(service.url, "rate_limit.py", "ann", "2", "10000000", code=1) == "refused\n"
    assert run(service.url, "rate_limit.py", "ben", "2", "10000000") == "served\n"


def test_a_session_is_valid_until_it_expires_or_is_ended(service: Server) -> None:
    session = run(service.url, "sessions.py", "start", "ann").strip()
    assert run(service.url, "sessions.py", "use", session) == "ann\n"
    run(service.url, "sessions.py", "end", session)
    assert run(service.url, "sessions.py", "use", session, code=1) == "no such session\n"
    short = run(service.url, "sessions.py", "start", "ann", "0.1").strip()
    until(lambda: service.get(f"example/sessions/{short}").status_code == 404)
    assert run(service.url, "sessions.py", "use", short, code=1) == "no such session\n"


def test_lines_are_imported_and_invalid_lines_are_reported(service: Server) -> None:
    lines = [json.dumps({"key": f"import/{number} ä", "value": number}) for number in range(300)]
    run(service.url, "import_lines.py", given="\n".join(lines))
    assert len(service.request("GET", "/kv?prefix=import/&values=false").json()["entries"]) == 300
    wrong = json.dumps({"key": "import//x", "value": 1})
    assert run(service.url, "import_lines.py", given=f"{wrong}\n{lines[0]}", code=1).startswith("import//x: ")


@needs("curl")
def test_two_languages_share_a_list(service: Server) -> None:
    assert run(service.url, "temperatures.py", code=1) == "nothing was measured yet\n"
    for measured in (("21.5", "22"), ("19.5",)):
        run(service.url, "temperatures.sh", *measured)
    assert run(service.url, "temperatures.py") == "3 measured, mean 21.0, largest 22\n"


@needs("curl", "jq")
def test_a_nightly_job_runs_once_and_on_one_machine(service: Server, tmp_path: Path) -> None:
    job = ("report", "sh", "-c", f"echo ran >> {tmp_path}/runs")
    lease = service.lease("example/jobs/report", ttl=60)
    assert run(service.url, "nightly_job.sh", *job) == "another machine runs it\n"
    service.request("DELETE", "/locks/example/jobs/report", params={"lease_id": lease["lease_id"]})
    assert run(service.url, "nightly_job.sh", *job) == ""
    assert run(service.url, "nightly_job.sh", *job) == "done already\n"
    assert (tmp_path / "runs").read_text() == "ran\n"


@needs("curl", "jq")
def test_a_nightly_job_that_fails_may_run_again(service: Server) -> None:
    run(service.url, "nightly_job.sh", "report", "sh", "-c", "echo broken >&2; exit 3", code=3)
    assert service.request("GET", "/locks").json()["locks"] == []
    assert run(service.url, "nightly_job.sh", "report", "echo", "ran") == "ran\n"


@needs("curl", "jq")
def test_a_command_runs_with_a_lock_that_fences_its_writes(service: Server) -> None:
    write = 'curl -sS --fail -X PUT -H "If-Lease: $LEASE_ID" "$LEASEHOLD_URL/kv/fenced" -d 1'
    assert '"value":1' in run(service.url, "with_lock.sh", "one", "sh", "-c", write)
    assert run(service.url, "with_lock.sh", "one", "sh", "-c", "echo out; exit 7", code=7) == "out\n"
    assert service.request("GET", "/locks").json()["locks"] == []


def test_a_backup_is_written_and_the_newest_are_kept(service: Server, tmp_path: Path) -> None:
    service.put("a", "1")
    folder = tmp_path / "backups"
    folder.mkdir()
    for year in range(2001, 2005):
        (folder / f"leasehold-{year}0101T000000.json").touch()
    printed = Path(run(service.url, "backup.sh", str(folder), "2").strip())
    assert [entry["value"] for entry in json.loads(printed.read_text())["entries"]] == [1]
    assert sorted(folder.iterdir()) == [folder / "leasehold-20040101T000000.json", printed]


# All of them --------------------------------------------------------------------------------------------------

USES: dict[str, tuple[str, ...]] = {
    "backup.sh": ("{folder}",),
    "config.py": ("get",),
    "counter.py": ("name",),
    "leader_election.py": ("ann",),
    "nightly_job.sh": ("name", "true"),
    "rate_limit.py": ("ann", "1"),
    "sessions.py": ("start", "ann"),
    "temperatures.py": (),
    "temperatures.sh": ("1",),
    "work_queue.py": ("work", "ann"),
    "with_lock.sh": ("name", "true"),
}


@needs("curl", "jq")
@pytest.mark.parametrize("name", USES)
def test_a_program_without_a_service_fails_with_a_message(name: str, tmp_path: Path) -> None:
    with free_port() as port:
        arguments = [argument.format(folder=tmp_path / "backups") for argument in USES[name]]
        done = subprocess.run(
            command(name, *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=ANSWER_SECONDS,
            env=environment(f"http://127.0.0.1:{port}"),
        )
    assert done.returncode not in (0, None)
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [name for name in PROGRAMS if USES.get(name, ())])
def test_a_program_without_arguments_prints_its_usage_in_one_line(name: str) -> None:
    with free_port() as port:
        told = run(f"http://127.0.0.1:{port}", name, code=2)
    assert re.fullmatch(rf"usage: (python|sh) {re.escape(name)} [^\n]+\n", told)


def test_every_program_is_tested_and_listed_on_the_page() -> None:
    page = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    for name in PROGRAMS:
        assert f"[{name}]({name})" in page
        assert tests.count(f'"{name}"') >= 2
    assert {*USES, "import_lines.py"} == set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_header_of_a_program_shows_how_to_run_it(name: str) -> None:
    head = (EXAMPLES / name).read_text()[:700]
    assert f"{'python' if name.endswith('.py') else 'sh'} {name}" in head

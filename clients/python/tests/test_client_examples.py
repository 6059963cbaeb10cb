"""Each program in `examples` runs against a real server, in the way that its header shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ANSWER_SECONDS, Server, clean_environment, free_port, until

from leasehold_client import Client

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def start(url: str, name: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment() | {"LEASEHOLD_URL": url, "PATH": os.environ["PATH"]},
    )


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Standard output, or standard error if the expected exit code is not 0."""
    printed, told = process.communicate(timeout=ANSWER_SECONDS)
    assert process.returncode == code, (printed, told)
    return told if code else printed


def run(url: str, name: str, *arguments: str, code: int = 0) -> str:
    return ended(start(url, name, *arguments), code)


def test_processes_that_count_at_once_lose_nothing(own_server: Server) -> None:
    processes = [start(own_server.url, "counter.py", "visits", "20") for _ in range(3)]
    assert max(int(ended(process)) for process in processes) == 60
    assert own_server.value("counters/visits/log") == {"times": 60}


def test_a_nightly_job_runs_once_and_on_one_machine(own_server: Server, tmp_path: Path) -> None:
    job = ("report", "sh", "-c", f"echo ran >> {tmp_path}/runs")
    with Client(own_server.url) as db, db.lock("example/jobs/report", owner={"host": "b"}):
        assert run(own_server.url, "nightly_job.py", *job) == "another machine runs it: {'host': 'b'}\n"
    assert run(own_server.url, "nightly_job.py", "report", "sh", "-c", "exit 3", code=3) == ""
    assert run(own_server.url, "nightly_job.py", *job) == ""
    assert run(own_server.url, "nightly_job.py", *job) == "done already\n"
    assert (tmp_path / "runs").read_text() == "ran\n"


def test_only_one_candidate_is_the_leader_at_a_time(own_server: Server) -> None:
    processes = [start(own_server.url, "leader_election.py", name, "1") for name in ("ann", "ben")]
    printed = [ended(process).splitlines() for process in processes]
    assert [line.split()[1] for lines in printed for line in lines] == ["leads", "steps"] * 2
    assert len({lines[0].split()[-1] for lines in printed}) == 2


def test_a_leader_whose_lease_was_ended_is_a_candidate_again(own_server: Server) -> None:
    with start(own_server.url, "leader_election.py", "ann", "5") as process, Client(own_server.url) as db:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ann leads with token")
        db.unlock("example/leader", force=True)
        assert process.stdout.readline() == "ann leads no more, and is a candidate again\n"
        assert process.stdout.readline().startswith("ann leads with token")
        process.kill()
        process.communicate()


def test_a_configuration_reloads_itself_also_after_a_restart(own_server: Server) -> None:
    run(own_server.url, "configuration.py", "set", "level", '"info"')
    with start(own_server.url, "configuration.py", "run", "level", '"error"') as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "info"
        run(own_server.url, "configuration.py", "set", "level", '"debug"')
        assert json.loads(process.stdout.readline()) == "debug"
        own_server.restart()
        run(own_server.url, "configuration.py", "set", "level", '"error"')
        assert json.loads(ended(process)) == "error"


def test_each_task_is_done_by_one_worker(own_server: Server) -> None:
    texts = [f"task {number}" for number in range(12)]
    workers = [start(own_server.url, "work_queue.py", "work", name, "4") for name in ("ann", "ben", "eve")]
    run(own_server.url, "work_queue.py", "add", *texts)
    did = [line.split(" did ")[1] for worker in workers for line in ended(worker).splitlines()]
    assert sorted(did) == sorted(texts)
    with Client(own_server.url) as db:
        assert sorted(entry.value["text"] for entry in db.list("example/")) == sorted(text.upper() for text in texts)
        assert list(db.holders()) == []


def test_a_task_of_a_worker_that_died_is_done_by_another_one(own_server: Server) -> None:
    run(own_server.url, "work_queue.py", "add", "alone")
    with Client(own_server.url) as db:
        [task] = db.list("example/tasks/")
        lease = own_server.lease(task.key, ttl=60)
        with start(own_server.url, "work_queue.py", "work", "ann") as worker:
            # It has begun when the service has refused it the lock, and its watch is open.
            until(lambda: "leasehold_watchers 1" in own_server.request("GET", "/metrics").text)
            db.unlock(task.key, token=lease["token"])
            assert ended(worker) == "ann did alone\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_explains_how_it_is_used(name: str) -> None:
    assert f"[{name}]({name})" in (EXAMPLES / "README.md").read_text()
    assert f"python {name}" in (EXAMPLES / name).read_text()[:400]
    with free_port() as port:
        assert run(f"http://127.0.0.1:{port}", name, code=2).startswith(f"usage: python {name}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("configuration.py", ("set", "a//b", "1")), ("counter.py", ("a//b",)), ("nightly_job.py", ("a//b", "true"))],
)
def test_a_program_that_is_refused_says_why_in_one_line(name: str, arguments: tuple[str, ...], server: Server) -> None:
    told = run(server.url, name, *arguments, code=1)
    assert told.startswith("invalid_key: ")
    assert told.count("\n") == 1

"""`leasehold lock`: the command, exit codes and signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from commands import printed, run
from lock_commands import FOREVER, PATH, LockCommand, running_in
from programs import PID_NAMESPACES, needs
from running import ANSWER_SECONDS, Server, clean_environment, free_port, running, until


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


def script(text: str) -> Sequence[str]:
    return ["sh", "-c", text]


def python(text: str) -> Sequence[str]:
    return [sys.executable, "-c", text]


# The command --------------------------------------------------------------------------------------------------


def test_the_command_runs_without_a_shell_and_with_standard_input(service: Server) -> None:
    words = ["lock", "jobs/plain", "--", *python("import sys; print(sys.argv[1:], sys.stdin.read())"), "$HOME *", "--"]
    assert printed(*words, url=service.url, stdin=b"given") == "['$HOME *', '--'] given\n"
    assert service.is_free("jobs/plain")


def test_the_command_gets_the_lease_in_its_environment(service: Server) -> None:
    names = ("URL", "LOCK", "LEASE", "FENCE")
    code = f"import os, json; print(json.dumps([os.environ['LEASEHOLD_' + each] for each in {names}])); input()"
    with LockCommand(service.url, "jobs/seen", python(code)) as held:
        url, lock, lease, fence = json.loads(held.line())
        shown = service.holder("jobs/seen").json()
        assert (url, lock, int(fence)) == (service.url, "jobs/seen", shown["token"])
        assert service.put("seen", "1", headers={"If-Lease": lease}).status_code == 201
        assert shown["owner"] == {"host": os.uname().nodename, "pid": held.pid}
        assert held.end("\n") == (0, "", "")


def test_a_put_in_the_command_is_refused_once_the_lease_is_over(service: Server) -> None:
    text = (
        "leasehold put fenced 1 >&2; leasehold unlock $LEASEHOLD_LOCK --lease $LEASEHOLD_LEASE >&2; "
        "leasehold put fenced 2; echo $?"
    )
    # So long that no renewal, which would end the command, comes before the last put.
    words = ["lock", "jobs/fenced", "--ttl=1800", "--"]
    ended = run(*words, *script(text), url=service.url, environment=PATH)
    assert (ended.code, ended.text) == (76, "76\n")
    assert "was lost before the command ended" in ended.errors
    assert service.value("fenced") == 1


def test_a_token_file_that_was_given_is_passed_on(service: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c")
    words = ["lock", "jobs/token", f"--token-file={os.path.relpath(tmp_path / 'token')}", "--"]
    environment = {"LEASEHOLD_TOKEN": "x.y.z"}
    told = printed(
        *words, *script("echo $LEASEHOLD_TOKEN_FILE $LEASEHOLD_TOKEN"), url=service.url, environment=environment
    )
    assert told == f"{tmp_path / 'token'}\n"


STANDARD_SIGNALS = 2**31 - 1
"""Those from 1 to 31, as bits of a mask. Signals above are set by what started the tests, and are passed on."""


def test_the_command_has_a_process_group_no_foreign_descriptors_and_the_usual_signals(service: Server) -> None:
    text = "echo $$ $(ps -o pgid= -p $$); ls /proc/self/fd | wc -l; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    with LockCommand(service.url, "jobs/clean", script(text)) as held:
        code, told, _ = held.end()
    assert code == 0, told
    group, descriptors, blocked, ignored = told.split("\n", 3)
    pid, of = group.split()
    assert pid == of
    assert int(descriptors) == 4  # the fourth is the folder itself
    assert int(blocked.split()[1], 16) & STANDARD_SIGNALS == 0
    assert int(ignored.split()[1], 16) & STANDARD_SIGNALS == 0


def test_signals_that_are_ignored_stay_ignored(service: Server) -> None:
    command = ["nohup", sys.executable, "-m", "leasehold", "lock", "jobs/nohup", "--"]
    text = (
        "import os, signal; print(signal.getsignal(signal.SIGHUP).name, flush=True); os.kill(os.getppid(), 0); input()"
    )
    with subprocess.Popen(
        [*command, *python(text)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment() | {"LEASEHOLD_URL": service.url},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "SIG_IGN\n"
        process.send_signal(signal.SIGHUP)
        process.communicate("\n", timeout=ANSWER_SECONDS)
    assert process.returncode == 0


def test_what_the_command_leaves_behind_is_ended_before_the_lock_is_free(service: Server) -> None:
    text = "(trap '' TERM; while :; do sleep 0.05; done) & sleep 1000 & echo $$; exit 3"
    with LockCommand(service.url, "jobs/rest --grace 0.5", script(text)) as held:
        held.started()
        lease = service.lease("jobs/rest", wait=60)
        assert running_in(held.group) == []
        assert held.end() == (3, "", "")
        service.release("jobs/rest", lease["lease_id"])


@needs(PID_NAMESPACES)
def test_as_the_first_process_of_a_container_it_takes_orphans(service: Server) -> None:
    program = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "leasehold"]
    done = subprocess.run(
        [*program, "lock", "jobs/first", "--", *script("sleep 1000 & exit 3")],
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_SECONDS,
        env=clean_environment() | {"LEASEHOLD_URL": service.url},
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert service.is_free("jobs/first")


# Exit codes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (script("exit 255"), 255),
        (script("kill -KILL $$"), 128 + signal.SIGKILL),
        (script("kill -TERM $$"), 128 + signal.SIGTERM),
        (["no-such-command"], 127),
        (["./no-such-file"], 127),
        ([""], 127),
        (["/"], 126),
        (["/etc/passwd"], 126),
    ],
    ids=str,
)
def test_the_exit_code_is_that_of_the_command(service: Server, command: Sequence[str], code: int) -> None:
    ended = run("lock", "jobs/code", "--", *command, url=service.url)
    assert ended.code == code
    assert (ended.errors == "") == (code not in (126, 127))
    assert ended.errors.count("\n") <= 1
    assert service.is_free("jobs/code")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("jobs/a", "the command is missing; it follows --. Try 'leasehold lock --help'."),
        ("jobs/a --", "the command is missing; it follows --. Try 'leasehold lock --help'."),
        ("-- true", "the following arguments are required: NAME. Try 'leasehold lock --help'."),
        ("jobs/a true", "unrecognized arguments: true. Try 'leasehold lock --help'."),
        ("--tll=3 jobs/a -- true", "there is no option --tll; did you mean --ttl? Try 'leasehold lock --help'."),
        ("-E 256 jobs/a -- true", "must be an integer from 0 to 255"),
        ("-n --wait 3 jobs/a -- true", "not allowed with argument"),
        ("--ttl 0.5 jobs/a -- true", "ttl"),
        ("a//b -- true", "empty segment"),
        ("--url ftp://a jobs/a -- true", "the URL of a service is like"),
    ],
)
def test_wrong_usage_ends_with_125_and_runs_nothing(service: Server, arguments: str, line: str) -> None:
    ended = run("lock", *arguments.split(), url=service.url)
    assert (ended.code, ended.output) == (125, b"")
    assert line in ended.errors
    assert ended.errors.count("\n") == 1


def test_without_a_service_the_command_does_not_run() -> None:
    with free_port() as port:
        ended = run("lock", "-n", "--retry=0", "jobs/a", "--", "echo", "ran", url=f"http://127.0.0.1:{port}")
    assert (ended.code, ended.output) == (125, b"")
    assert "did not respond" in ended.errors


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["-n"], 75, 'leasehold: the lock \'jobs/held\' is held by {"host": "ä"}\n'),
        (["--wait=0"], 75, 'leasehold: the lock \'jobs/held\' is held by {"host": "ä"}\n'),
        (["--wait=0.1", "-E", "9"], 9, 'leasehold: the lock \'jobs/held\' is held by {"host": "ä"}\n'),
        (["-n", "-E0"], 0, ""),
    ],
    ids=str,
)
def test_a_lock_that_is_held_ends_it_with_a_code_of_its_own(
    service: Server, options: list[str], code: int, line: str
) -> None:
    lease = service.lease("jobs/held", ttl=600, owner={"host": "ä"})
    ended = run("lock", *options, "jobs/held", "--", "echo", "ran", url=service.url)
    assert (ended.code, ended.output, ended.errors) == (code, b"", line)
    service.release("jobs/held", lease["lease_id"])


def test_it_waits_for_the_lock(service: Server) -> None:
    lease = service.lease("jobs/waited", ttl=600)
    with LockCommand(service.url, "jobs/waited", ["echo", "ran"]) as waiting:
        until(lambda: service.waiters("jobs/waited") == 1)
        service.release("jobs/waited", lease["lease_id"])
        assert waiting.end() == (0, "ran\n", "")


def test_it_waits_longer_than_its_own_ttl(service: Server) -> None:
    """The time of the lease counts from before the request, so the lease is renewed before the command starts."""
    lease = service.lease("jobs/long", ttl=6)
    with LockCommand(service.url, "jobs/long --ttl 5", ["echo", "ran"]) as waiting:
        assert waiting.end() == (0, "ran\n", "")
    assert service.is_free("jobs/long")
    assert lease["ttl"] == 6


def test_ctrl_c_ends_the_wait(service: Server) -> None:
    lease = service.lease("jobs/interrupted", ttl=600)
    with LockCommand(service.url, "jobs/interrupted", ["echo", "ran"]) as waiting:
        until(lambda: service.waiters("jobs/interrupted") == 1)
        assert waiting.send(signal.SIGINT).end() == (-signal.SIGINT, "", "")
    service.release("jobs/interrupted", lease["lease_id"])


# Signals ------------------------------------------------------------------------------------------------------

PASSED_ON = [
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGRTMIN,
]


def test_signals_are_passed_on(service: Server) -> None:
    text = f"""
import os, signal
numbers = {[int(each) for each in PASSED_ON]}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print(os.getpid(), flush=True)
for _ in numbers:
    print(int(signal.sigwait(numbers)), flush=True)
"""
    with LockCommand(service.url, "jobs/signals", python(text)) as held:
        held.started()
        for number in PASSED_ON:
            held.send(number)
            assert held.line() == str(int(number))
        assert held.end() == (0, "", "")


def test_a_signal_that_ends_the_command_is_its_exit_code(service: Server) -> None:
    with LockCommand(service.url, "jobs/term", script(FOREVER)) as held:
        held.started().send(signal.SIGTERM)
        assert held.end() == (128 + signal.SIGTERM, "", "")
    assert service.is_free("jobs/term")

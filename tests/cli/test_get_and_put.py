"""`leasehold get` and `leasehold put`, and how all commands reach a service."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from commands import Ended, printed, run
from running import START_SECONDS, Server, clean_environment, free_port, running, until
from tokens import SECRET

EXACT = '{"big":18446744073709551615,"small":-9223372036854775808,"e":1e-300,"zero":-0.0,"text":"ü\\u0001"}'


@pytest.fixture(scope="module")
def service() -> Iterator[Server]:
    with running() as server:
        yield server


def code_and_line(ended: Ended) -> tuple[int, bytes, str]:
    return ended.code, ended.output, ended.errors


# Values -------------------------------------------------------------------------------------------------------


def test_a_value_is_printed_as_the_service_sends_it(service: Server) -> None:
    printed("put", "exact", EXACT, url=service.url)
    sent = service.client.get("/kv/exact?raw").content
    assert run("get", "exact", url=service.url).output == sent
    assert json.loads(sent) == json.loads(EXACT)


def test_an_entry_is_printed_as_the_service_sends_it(service: Server) -> None:
    service.put("exact", EXACT)
    assert run("get", "exact", "-o", "json", url=service.url).output == service.client.get("/kv/exact").content


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [(["[1, 2]"], ""), (["-"], "[1, 2]"), (["@{file}"], ""), (["--file", "{file}"], ""), (["--file", "-"], "[1, 2]")],
    ids=" ".join,
)
def test_a_value_comes_from_an_argument_a_file_or_standard_input(
    service: Server, tmp_path: Path, arguments: list[str], stdin: str
) -> None:
    (tmp_path / "value").write_text("[1, 2]")
    words = [each.format(file=tmp_path / "value") for each in arguments]
    printed("put", "given", *words, url=service.url, stdin=stdin.encode())
    assert printed("get", "given", url=service.url) == "[1,2]\n"


@pytest.mark.parametrize("value", ["-5", "-0.25", '"-x"', '"@x"', "null"])
def test_a_value_that_resembles_an_option_is_a_value(service: Server, value: str) -> None:
    printed("put", "odd", "--ttl", "keep", value, url=service.url)
    assert printed("get", "odd", url=service.url) == f"{value}\n"


def test_options_may_stand_anywhere(service: Server) -> None:
    printed("put", "--ttl=60", "spread", "--text", "a b", "--if-absent", url=service.url)
    assert printed("get", "-o", "raw", "spread", url=service.url) == '"a b"\n'


def test_text_becomes_a_string(service: Server) -> None:
    printed("put", "text", "--text", "-", url=service.url, stdin='a "b"\nü\\'.encode())
    assert service.value("text") == 'a "b"\nü\\'
    assert printed("get", "text", "--text", url=service.url) == 'a "b"\nü\\\n'


def test_a_value_that_is_no_string_is_printed_as_text_as_it_is(service: Server) -> None:
    service.put("no/text", '["a"]')
    assert printed("get", "no/text", "--text", url=service.url) == '["a"]\n'
    assert run("get", "no/text", "--text", "-o", "json", url=service.url).code == 2


def test_bytes_are_stored_and_printed_without_a_change(service: Server) -> None:
    content = bytes(range(256)) + b"\n\n"
    answer = json.loads(printed("put", "logo", "-", "--media", "image/png", url=service.url, stdin=content))
    assert (answer["media"], answer["size"]) == ("image/png", 258)
    assert run("get", "logo", url=service.url).output == content
    shown = json.loads(printed("get", "logo", "-o", "json", url=service.url))
    assert (shown["media"], len(shown["value"])) == ("image/png", 344)


def test_a_part_is_written_and_read(service: Server) -> None:
    printed("put", "parts", '{"a": {"b": 1.50}}', url=service.url)
    printed("put", "parts", "2", "--path", "/a/c", url=service.url)
    assert printed("get", "parts", "--path=/a", url=service.url) == '{"b":1.5,"c":2}\n'


def test_a_number_is_added(service: Server) -> None:
    service.put("sum?ttl=600", '{"n": 18446744073709551614}')
    answer = json.loads(printed("put", "sum", "--increment", "1", "--path=/n", url=service.url))
    assert (answer["value"], "expires_at" in answer) == (2**64 - 1, True)
    assert run("put", "sum", "--increment", "1", "--path=/n", url=service.url).code == 4


def test_a_table_shows_an_entry_without_control_characters(service: Server) -> None:
    service.put("row/\u2028", '"\\u009b31m \u202e"')
    title, row = printed("get", "row/\u2028", "-o", "table", url=service.url).split("\n", 1)
    assert title.split() == ["KEY", "REVISION", "UPDATED", "EXPIRES", "VALUE"]
    assert (row.startswith("row/\\u2028  "), row.endswith('  "\\x9b31m \\u202e"\n')) == (True, True)


# Conditions and waits -----------------------------------------------------------------------------------------


def test_a_write_depends_on_its_condition(service: Server) -> None:
    first = json.loads(printed("put", "conditional", "1", "--if-absent", url=service.url))
    assert run("put", "conditional", "2", "--if-absent", url=service.url).code == 4
    printed("put", "conditional", "2", "--if-match", str(first["revision"]), url=service.url)
    refused = run("put", "conditional", "3", "--if-match", str(first["revision"]), url=service.url)
    now = service.client.get("/kv/conditional").json()["revision"]
    assert code_and_line(refused) == (
        4,
        b"",
        f"leasehold: the entry is at another revision; it has revision {now}\n",
    )
    etag = service.client.get("/kv/conditional").headers["etag"]
    printed("put", "conditional", "4", "--if-match", etag, url=service.url)
    assert run("put", "conditional", "5", "--if-none-match=*", url=service.url).code == 4
    assert service.value("conditional") == 4


def test_an_unchanged_entry_ends_a_get_with_4(service: Server) -> None:
    etag = service.put("same", "1").headers["etag"]
    ended = run("get", "same", "-o", "json", "--if-none-match", etag, url=service.url)
    assert code_and_line(ended) == (4, b"", "leasehold: same has not changed\n")


@pytest.mark.parametrize("output", ["raw", "json", "table"])
@pytest.mark.parametrize("media", ["application/json", "application/octet-stream"])
def test_an_unchanged_entry_is_found_by_its_revision_in_each_format(service: Server, output: str, media: str) -> None:
    written = service.request("PUT", "/kv/unchanged", content=b"1", headers={"Content-Type": media})
    revision = written.json()["revision"]
    of_json = service.request("GET", "/kv/unchanged", headers={"Accept": "application/json"}).headers["etag"]
    as_stored = service.request("GET", "/kv/unchanged?raw", headers={"Accept": "*/*"}).headers["etag"]
    for tag in (str(revision), of_json, as_stored):
        ended = run("get", "unchanged", "-o", output, "--if-none-match", tag, url=service.url)
        assert code_and_line(ended) == (4, b"", "leasehold: unchanged has not changed\n")
    for tag in (str(revision - 1), f"{revision}.000000"):
        assert run("get", "unchanged", "-o", output, "--if-none-match", tag, url=service.url).code == 0


def test_a_get_waits_for_an_entry(service: Server) -> None:
    def write_when_it_waits() -> None:
        until(lambda: "waiting_reads 1" in service.client.get("/metrics").text)
        service.put("awaited", "1")

    writer = threading.Thread(target=write_when_it_waits)
    writer.start()
    assert printed("get", "awaited", "--wait", "100", url=service.url) == "1\n"
    writer.join()


def test_an_entry_expires_after_its_ttl(service: Server) -> None:
    assert "expires_at" in json.loads(printed("put", "brief", "1", "--ttl", "60.5", url=service.url))
    assert "expires_at" in json.loads(printed("put", "brief", "1", "--ttl", "keep", url=service.url))
    assert "expires_at" not in json.loads(printed("put", "brief", "1", url=service.url))


# The lease ----------------------------------------------------------------------------------------------------


def test_a_write_is_fenced_by_the_lease_in_the_environment(service: Server) -> None:
    lease = service.client.post("/locks/fence", json={"ttl": 600}).json()["lease_id"]
    environment = {"LEASEHOLD_LEASE": lease}
    printed("put", "fenced", "1", url=service.url, environment=environment)
    service.client.request("DELETE", "/locks/fence", json={"lease_id": lease})
    refused = run("put", "fenced", "2", url=service.url, environment=environment)
    assert code_and_line(refused) == (76, b"", "leasehold: the lease is not alive\n")
    assert service.value("fenced") == 1
    printed("put", "fenced", "3", "--lease=", url=service.url, environment=environment)
    assert service.value("fenced") == 3


# The service --------------------------------------------------------------------------------------------------


def test_the_url_may_be_an_option_or_follow_from_the_settings_of_a_service(service: Server) -> None:
    service.put("here", "1")
    host, port = service.address
    assert printed("get", "here", f"--url={service.url}/", url="http://127.0.0.1:1") == "1\n"
    settings = {"LEASEHOLD_HOST": host, "LEASEHOLD_PORT": str(port)}
    assert run("get", "here", environment=settings).output == b"1\n"


def test_a_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    secret = f"--auth-secret-file={tmp_path / 'secret'}"
    reader = run("token", secret, "--subject=a", "--permission=read").text.strip()
    (tmp_path / "token").write_text(f"{reader}\n")
    with running(arguments=[secret]) as server:
        ended = [
            run("get", "a", url=server.url),
            run("get", "a", url=server.url, environment={"LEASEHOLD_TOKEN": reader}),
            run("get", "a", url=server.url, environment={"LEASEHOLD_TOKEN_FILE": str(tmp_path / "token")}),
            run("get", "a", f"--token-file={tmp_path / 'token'}", url=server.url, environment={"LEASEHOLD_TOKEN": "x"}),
            run("put", "a", "1", url=server.url, environment={"LEASEHOLD_TOKEN": reader}),
            run("get", "a", "--token-file=/nope", url=server.url),
        ]
    assert [each.code for each in ended] == [77, 3, 3, 3, 77, 77]
    assert ended[-1].errors == "leasehold: there is no token: /nope cannot be read: No such file or directory\n"


def test_a_proxy_in_the_environment_is_not_used_for_this_machine(service: Server) -> None:
    service.put("near", "1")
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    assert printed("get", "near", url=service.url, environment=proxies) == "1\n"


def test_a_command_waits_while_the_service_restarts(tmp_path: Path) -> None:
    with free_port() as port, running(tmp_path / "d", environment={"LEASEHOLD_PORT": str(port)}) as server:
        server.put("a", "1")
        server.terminate()
        waiting = subprocess.Popen(
            [sys.executable, "-m", "leasehold", "get", "a", f"--url={server.url}", "--retry", str(START_SECONDS)],
            stdout=subprocess.PIPE,
            env=clean_environment(),
        )
        server.start()
        assert waiting.communicate(timeout=START_SECONDS)[0] == b"1\n"


# Errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("get absent", 3, "key does not exist"),
        ("get a --path /x", 3, "…"),
        ("put a {", 2, "the JSON ends too early"),
        ("put a", 2, "give one of these: an argument, - for standard input, or a file"),
        ("put a 1 --file x", 2, "give one of these: an argument, - for standard input, or a file"),
        ("put a @/nope", 1, "/nope cannot be read: No such file or directory"),
        ("put a 1 --ttl soon", 2, "argument --ttl: must be a number of seconds, or keep. Try 'leasehold put --help'."),
        ("put a 1 --if-absent --if-none-match 5", 2, "--if-absent and --if-none-match cannot be combined"),
        ("put a 1 --text --media text/plain", 2, "--text, --media and --increment cannot be combined"),
        ("put a 1 --media application/zip", 2, "…"),
        (
            "get a --wait nan",
            2,
            "argument --wait: must be a number of seconds, such as 30 or 0.5. Try 'leasehold get --help'.",
        ),
        ("get ../a", 2, "'../a' has an empty segment, or a segment . or .."),
        (
            "get a --url localhost:8080",
            2,
            "the URL of a service is like http://127.0.0.1:8080; a token is given in a file",
        ),
        (
            "get a --url http://u:hunter2@h",
            2,
            "the URL of a service is like http://127.0.0.1:8080; a token is given in a file",
        ),
        ("get a --url=", 2, "the URL of a service is like http://127.0.0.1:8080; a token is given in a file"),
        (
            "get a --url http://127.0.0.1:1 --retry 0",
            69,
            "http://127.0.0.1:1 did not respond: [Errno 111] Connection refused",
        ),
        ("get a -o xml", 2, "…"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(service: Server, arguments: str, code: int, line: str) -> None:
    service.put("a", "{}")
    ended = run(*arguments.split(), url=service.url)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (code, b"", 1)
    assert ended.errors.startswith("leasehold: ")
    if line != "…":
        assert ended.errors == f"leasehold: {line}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["get", "a\udcff"],
        ["get", "a", "--path", "/\udcff"],
        ["list", "\udcff"],
        ["put", "a", '"\udcff"'],
        ["put", "a", "1", "--if-match", "1\r\nX: y"],
        ["put", "a", "1", "--media", "image/\u00fc"],
        ["put", "a", "1", "--lease", "\u00fc"],
        ["delete", "--prefix", "\udcff"],
    ],
    ids=ascii,
)
def test_an_argument_that_cannot_be_sent_is_wrong_usage(service: Server, words: list[str]) -> None:
    """A lone surrogate in an argument is a byte that is not UTF-8."""
    ended = run(*words, url=service.url)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (2, b"", 1)


@pytest.mark.parametrize(
    "environment",
    [{"LEASEHOLD_TOKEN": "a b"}, {"LEASEHOLD_LEASE": "a\nb"}, {"LEASEHOLD_URL": "db"}, {"LEASEHOLD_PORT": "many"}],
    ids=str,
)
def test_a_wrong_variable_is_wrong_usage(environment: dict[str, str]) -> None:
    ended = run("put", "a", "1", "--retry=0", environment=environment)
    assert (ended.code, ended.output, ended.errors.count("\n")) == (2, b"", 1)


def test_a_table_is_utf8_in_every_locale(service: Server) -> None:
    service.put("locale", '"\u20ac"')
    environment = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    assert "€" in printed("get", "locale", "-o", "table", url=service.url, environment=environment)


def test_something_else_than_a_service_is_reported() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nNope")

        threading.Thread(target=answer).start()
        ended = run("get", "a", f"--url=http://127.0.0.1:{other.getsockname()[1]}")
    assert (ended.code, ended.errors) == (
        1,
        "leasehold: HTTP 404 is not a response of the service; is a proxy in between?\n",
    )


# Signals and pipes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_as_it_ends_other_programs(number: signal.Signals) -> None:
    with running() as server:
        command = [sys.executable, "-m", "leasehold", "get", "never", "--wait=1000", f"--url={server.url}"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=clean_environment()) as process:
            until(lambda: "waiting_reads 1" in server.client.get("/metrics").text)
            process.send_signal(number)
            assert process.wait(START_SECONDS) == -number
            assert process.stderr is not None
            assert process.stderr.read() == b""


def test_a_reader_that_has_ended_ends_a_command_without_a_word(service: Server) -> None:
    service.put("large", json.dumps("x" * 500_000))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "leasehold", "get", "large", f"--url={service.url}"]
        ended = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, check=False, env=clean_environment(), timeout=START_SECONDS
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("get streams > /dev/full", 1, "standard output cannot be written: No space left on device"),
        ("list streams > /dev/full", 1, "standard output cannot be written: No space left on device"),
        ("get streams >&-", 1, "standard output cannot be written: Bad file descriptor"),
        ("put streams - <&-", 2, "the body is empty"),
    ],
)
def test_streams_that_cannot_be_used_are_reported(service: Server, command: str, code: int, line: str) -> None:
    service.put("streams", "1")
    ended = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m leasehold {command}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
        env=clean_environment() | {"LEASEHOLD_URL": service.url},
    )
    assert (ended.returncode, ended.stderr) == (code, f"leasehold: {line}\n")


@contextlib.contextmanager
def in_a_terminal(*arguments: str) -> Iterator[TextIO]:
    """What a command shows whose output and errors are a terminal."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "leasehold", *arguments]
    with (
        subprocess.Popen(command, stdout=terminal, stderr=terminal, env=clean_environment()) as process,
        os.fdopen(controller, encoding="utf-8") as shown,
    ):
        os.close(terminal)
        try:
            yield shown
        finally:
            process.kill()


def test_a_terminal_is_not_sent_bytes(service: Server) -> None:
    service.client.put("/kv/media/image", content=b"a\xff\n", headers={"Content-Type": "image/png"})
    service.client.put("/kv/media/text", content=b"abc\n", headers={"Content-Type": "text/plain"})
    with in_a_terminal("get", "media/image", f"--url={service.url}") as shown:
        line = "leasehold: the value is 3 bytes of image/png: redirect the output to a file, or use -o json\n"
        assert shown.readline() == line
    with in_a_terminal("get", "media/text", f"--url={service.url}") as shown:
        assert shown.readline() == "abc\n"


def test_retries_are_shown_in_a_terminal_only() -> None:
    words = ["get", "a", "--url=http://127.0.0.1:1"]
    with in_a_terminal(*words, "--retry=300") as shown:
        assert shown.readline().startswith("leasehold: GET /kv/a: attempt 1 failed ")
    assert run(*words, "--retry=0.1").errors.count("\n") == 1

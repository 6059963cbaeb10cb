"""Runs the commands of a Markdown page in order, and compares their output with the page.

A fenced block of the language `console` shows a part of a terminal session:

    ```console
    $ curl localhost:8080/kv/users/ann?raw
    {"name":"Ann"}
    ```

Lines that begin with `$ ` are commands. One shell runs all commands of a page, in an empty folder. The lines below a
command are its complete output. In them `…` matches any text, and a line of `…` alone matches any number of lines. A
value that differs in each run (a time, a UUID, a `lease_id`, the incarnation in an ETag) matches values of its form.

A comment before a block says how to run it:

    <!-- terminal: service -->      run the block in a second terminal, until the end of the page or this comment:
    <!-- ctrl+c: service -->        interrupt the command in that terminal, and wait for its end
    <!-- fails -->                  the last command of the block exits with an error
    <!-- file: NAME -->             write the block, of any language, to a file of this name
    <!-- not run: REASON -->        skip the block; the reason is for readers of the source

Pages use port 8080. It is replaced by a free port in the commands and in the expected output.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PAGE_PORT: Final = "8080"
COMMAND_SECONDS: Final = 120.0
"""Longer than any command takes on a busy machine."""

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_REMARK: Final = re.compile(r"<!-- (.*?) -->")
_DIFFERING: Final = (
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"),
    re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    re.compile(r"(?<=\")[0-9a-f]{32}(?=\")"),
    re.compile(r"(?<=\d\.)[0-9a-f]{6}(?![0-9a-f])"),
    re.compile(r"(?<=\")[0-9a-f]{6}(?=\")"),
)
"""The forms of values that differ in each run."""


@dataclass(frozen=True)
class Block:
    """A fenced block. `remarks` are the comments directly before it; `line` is its first line in the page."""

    language: str
    text: str
    remarks: tuple[str, ...]
    line: int

    def remark(self, name: str) -> str | None:
        """The text after `name:` in a remark; "" for a remark that is the name alone."""
        for remark in self.remarks:
            found, _, rest = remark.partition(":")
            if found.strip() == name:
                return rest.strip()
        return None

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with its expected output."""
        command: str | None = None
        expected: list[str] = []
        lines = iter(self.text.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                assert command is not None, f"line {self.line}: the block begins with output"
                expected.append(line)
                continue
            if command is not None:
                yield command, "\n".join(expected)
            command, expected = line[2:], []
            while command.endswith("\\"):
                command += "\n" + next(lines)
        if command is not None:
            yield command, "\n".join(expected)


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, each with the comments between it and the text before it."""
    blocks = []
    end = 0
    for match in _FENCE.finditer(page):
        between = page[end : match.start()]
        last_paragraph = between.rstrip("\n").rpartition("\n\n")[2]
        blocks.append(
            Block(match[1], match[2], tuple(_REMARK.findall(last_paragraph)), page.count("\n", 0, match.start()) + 1)
        )
        end = match.end()
    return blocks


def is_as_expected(expected: str, printed: str) -> bool:
    """Whether `printed` matches the expected output of the page."""
    pattern = ""
    for line in expected.strip("\n").splitlines():
        pattern += r"(?:.*\n)*?" if line.strip() == "…" else _pattern_of(line.rstrip()) + r"[ \t]*\n"
    text = "".join(line.rstrip() + "\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch(pattern, text) is not None


def _pattern_of(line: str) -> str:
    pieces: list[str] = []
    position = 0
    differing = sorted(
        (match.start(), match.end(), shape.pattern) for shape in _DIFFERING for match in shape.finditer(line)
    )
    for begin, end, shape in differing:
        if begin >= position:
            pieces += (_literal(line[position:begin]), f"(?:{shape})")
            position = end
    return "".join((*pieces, _literal(line[position:])))


def _literal(text: str) -> str:
    return ".*".join(map(re.escape, text.split("…")))


class Terminal:
    """A shell in a folder. The end of the `with` block ends it and everything that it started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        (folder / ".curlrc").write_text("no-progress-meter\n")  # as in an interactive terminal
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**environment, "CURL_HOME": str(folder)},
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._printed: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._printed.append(line)
                self._news.notify_all()

    def run(self, command: str) -> tuple[str, int]:
        """Run a command to its end. Returns its output and its exit code."""
        mark = f"end-of-command-{time.monotonic_ns()}"
        start = self.start(f"{command}\nprintf '\\n%s %s\\n' {mark} $?")

        def is_over() -> bool:
            return any(line.startswith(mark) for line in self._printed[start:])

        self._await(is_over, command)
        *lines, end = self._printed[start:]
        return "".join(lines).removesuffix("\n"), int(end.split()[1])

    def start(self, command: str) -> int:
        """Start a command that may run on. Returns the number of lines printed before it."""
        assert self._process.stdin is not None
        start = len(self._printed)
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return start

    def await_print(self, expected: str, start: int) -> None:
        """Wait until the output from line `start` on is as expected."""
        self._await(lambda: is_as_expected(expected, "".join(self._printed[start:])), expected)

    def _await(self, is_there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + COMMAND_SECONDS
        with self._news:
            while not is_there():
                left = deadline - time.monotonic()
                assert left > 0, f"waited for: {what}\nprinted: {''.join(self._printed)}"
                self._news.wait(min(left, 1.0))

    def interrupt(self) -> None:
        """Press ctrl+c, and wait for the end of the running command."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for child in children:
            os.kill(int(child), signal.SIGINT)
        self.run("true")

    def close(self) -> None:
        """End the shell and everything in its session."""
        try:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(COMMAND_SECONDS)
        except ProcessLookupError:
            pass
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._reader.join(COMMAND_SECONDS)
            assert self._process.stdout is not None
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Reading:
    """Follows a page like a reader, in an empty folder with `environment`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], port: int) -> None:
        self._folder = folder
        self._environment = environment
        self._port = str(port)
        self._terminals: dict[str, Terminal] = {}

    def follow(self, page: str, *, in_a_clone: bool = False) -> int:
        """Run the blocks of a page. Returns the number of commands. Raises AssertionError with the line of a
        difference."""
        count = 0
        for block in blocks_of(page):
            if block.remark("not run") is not None or (block.remark("in a clone") is not None) is not in_a_clone:
                continue
            interrupted, file = block.remark("ctrl+c"), block.remark("file")
            if interrupted is not None:
                self._terminals[interrupted].interrupt()
            if file is not None:
                (self._folder / file).write_text(self._with_port(block.text))
            elif block.language == "console":
                count += self._run(block)
        return count

    def _run(self, block: Block) -> int:
        commands = [(self._with_port(command), self._with_port(expected)) for command, expected in block.commands()]
        assert commands, f"line {block.line}: the block has no command"
        beside = block.remark("terminal")
        if beside is not None:
            self._begin(beside, commands, block.line)
            return len(commands)
        terminal = self._terminal("")
        for number, (command, expected) in enumerate(commands, start=1):
            printed, code = terminal.run(command)
            assert is_as_expected(expected, printed), (
                f"line {block.line}: {command}\n--- expected\n{expected}\n--- printed\n{printed}"
            )
            fails = block.remark("fails") is not None and number == len(commands)
            assert (code != 0) is fails, f"line {block.line}: {command}\nexit code {code}\n{printed}"
        return len(commands)

    def _begin(self, name: str, commands: list[tuple[str, str]], line: int) -> None:
        terminal = self._terminal(name)
        *before, (last, expected) = commands
        for command, printed in before:
            assert is_as_expected(printed, terminal.run(command)[0]), f"line {line}: {command}"
        terminal.await_print(expected, terminal.start(last))

    def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            self._terminals[name] = Terminal(self._folder, self._environment)
        return self._terminals[name]

    def _with_port(self, text: str) -> str:
        return re.sub(rf"(?<![0-9]){PAGE_PORT}(?![0-9])", self._port, text)

    def close(self) -> None:
        for terminal in reversed(self._terminals.values()):
            terminal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

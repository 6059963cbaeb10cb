"""Make the synchronous client, and its tests, from the asynchronous ones.

    python clients/python/tools/make_sync.py            write them
    python clients/python/tools/make_sync.py --check    exit with 1 if what is there differs

A file is translated token by token, by the table below, and then formatted by ruff. A file named `runtime.py` or
`together.py` has a hand-written twin: it contains what cannot be translated, because tasks and threads differ.
"""

import difflib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = {
    ROOT / "src/leasehold_client/_async": ROOT / "src/leasehold_client/_sync",
    ROOT / "tests/asynchronous": ROOT / "tests/synchronous",
}
HAND_WRITTEN: Final = frozenset({"__init__.py", "runtime.py", "together.py"})
HEADER: Final = "# Made from `{source}` by tools/make_sync.py: edit that file.\n"
NAMES: Final = {
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aiter_raw": "iter_raw",
    "anext": "next",
    "aread": "read",
    "asynchronous": "synchronous",
    "_async": "_sync",
}
TYPES: Final = (
    # The coroutine functions that callers give, and those that they get.
    (re.compile(r"\bAwaitable\[(\w+)\]"), r"\1"),
    (re.compile(r"\bCoroutine\[object, object, (\w+)\]"), r"\1"),
    (re.compile(r"(, )?\b(Awaitable|Coroutine)\b(?=[,\n])"), ""),
    (re.compile(r"import , "), "import "),
)


def translated(text: str, source: str, made: Path) -> str:
    """The synchronous form of an asynchronous module."""
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    lines = text.splitlines(keepends=True)
    # From the end, so that the positions of the tokens before stay right.
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index]
        if token.type not in (tokenize.NAME, tokenize.STRING, tokenize.COMMENT):
            continue
        (first, start), (last, end) = token.start, token.end
        if token.string in ("async", "await"):
            end = tokens[index + 1].start[1]
            new = ""
        elif token.type == tokenize.NAME:
            new = synchronous_name(token.string)
        else:
            new = re.sub(r"\w+", lambda found: synchronous_name(found[0]), token.string)
        whole = "".join(lines[first - 1 : last])
        tail = len(lines[last - 1]) - end
        lines[first - 1 : last] = [whole[:start] + new + whole[len(whole) - tail :]] + [""] * (last - first)
    result = "".join(lines)
    for pattern, replacement in TYPES:
        result = pattern.sub(replacement, result)
    return formatted(HEADER.format(source=source) + result, made)


def synchronous_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    return name.removeprefix("Async") if re.match(r"Async[A-Z]", name) else name


def formatted(text: str, made: Path) -> str:
    """Formatted, with sorted imports, by the settings of the client."""
    for command in (["check", "--select=I", "--fix", "--quiet"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={made}", "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    differs = False
    for folder, made in FOLDERS.items():
        wanted = {
            path.name: translated(path.read_text(), f"{folder.name}/{path.name}", made / path.name)
            for path in sorted(folder.glob("*.py"))
            if path.name not in HAND_WRITTEN
        }
        present = {path.name: path.read_text() for path in made.glob("*.py") if path.name not in HAND_WRITTEN}
        for name in sorted(wanted.keys() | present.keys()):
            if wanted.get(name) == present.get(name):
                continue
            differs = True
            if is_check:
                print(*difflib.unified_diff(
                    present.get(name, "").splitlines(), wanted.get(name, "").splitlines(),
                    f"{made.name}/{name}", f"made from {folder.name}/{name}", lineterm="", n=1,
                ), sep="\n")  # fmt: skip
            elif name in wanted:
                (made / name).write_text(wanted[name])
            else:
                (made / name).unlink()
    return 1 if is_check and differs else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every command of the pages, run as a reader would run it, and every answer that they show."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from console import Block, Reading, blocks_of, is_as_expected
from programs import needs
from running import clean_environment

pytestmark = needs("curl", "jq", "openssl")

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT) for path in (ROOT / "README.md", ROOT / "examples/README.md", *(ROOT / "docs").rglob("*.md"))
)
LANGUAGES = {
    "console",
    "json",
    "javascript",
    "text",
    "python",
    "yaml",
    "ini",
    "nginx",
    "haproxy",
    "hcl",
    "apache",
    "caddy",
    "lighttpd",
    "sql",
    "http",
    "sh",
    "typescript",
}
"""What a block may be. Commands stand in `console` only, so that none is left out by its name."""


NEEDS = {Path("docs/terraform.md"): ("terraform",)}
"""What a page needs in addition to the programs that all pages need."""
OF_TERRAFORM = {"CHECKPOINT_DISABLE": "1", "TF_CLI_ARGS": "-no-color"}
"""Variables of a reader whose terminal has no colors, and who does not ask for newer versions."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands_of(page: Path) -> list[Block]:
    blocks = (block for block in blocks_of(text_of(page)) if block.remark("not run") is None)
    return [block for block in blocks if block.language == "console"]


def reader(folder: Path, port: int) -> Reading:
    """A reader who has installed the command and works in an empty folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment() | {"PATH": path, "HOME": str(folder), "LEASEHOLD_PORT": str(port)}
    environment |= OF_TERRAFORM
    return Reading(folder, environment, port)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[needs(*NEEDS[page])] if page in NEEDS else [])
        for page in PAGES
        if any(block.remark("in a clone") is None for block in commands_of(page))
    ],
    ids=str,
)
@pytest.mark.long
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    with reader(tmp_path, free_port()) as reading:
        assert reading.follow(text_of(page)) > 0


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A new clone in the home of a new user."""
    folder = tmp_path / "leasehold"
    for name in tracked_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.long
def test_the_commands_of_the_pages_for_a_clone_work_in_a_new_clone(clone: Path) -> None:
    """The commands install everything that they need, because a new user has nothing else.

    All pages in one test, because an installation takes most of the time: the first page that needs an environment in
    the clone makes one. Only the stores are new for each page.
    """
    pages = [page for page in PAGES if any(block.remark("in a clone") is not None for block in commands_of(page))]
    assert len(pages) > 1
    for page in pages:
        for file in clone.glob("data.json*"):
            file.unlink()
        port = free_port()
        environment = clean_environment() | {"LEASEHOLD_PORT": str(port), "HOME": str(clone.parent)}
        # Most modules that pip installs here are never imported. Those that are, Python compiles. pip takes this as the
        # value of its setting "compile".
        environment["PIP_NO_COMPILE"] = "0"
        try:
            with Reading(clone, environment, port) as reading:
                assert reading.follow(text_of(page), in_a_clone=True) > 0
        except Exception as error:
            error.add_note(f"in {page}; the pages after it were not read")
            raise


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_block_has_a_known_language(page: Path) -> None:
    for block in blocks_of(text_of(page)):
        assert block.language in LANGUAGES, f"{page} line {block.line}: {block.language or 'no language'}"
        assert block.language != "sh" or block.remark("file"), f"{page} line {block.line}: a script has a file"
        if block.language != "console":
            assert not any(line.startswith("$ ") for line in block.text.splitlines()), f"{page} line {block.line}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_command_is_outside_a_block_that_is_run(page: Path) -> None:
    outside = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    indented = [line.strip() for line in outside.splitlines() if line.startswith("    ")]
    commands = [line for line in indented if re.match(r"(\$ |curl |leasehold |pipx? |openssl |docker )", line)]
    assert commands == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_curl_prints_no_progress_meter_that_the_page_does_not_show(page: Path) -> None:
    """It prints one if its output is not the terminal. The terminals of these tests turn it off."""
    commands = [command for block in commands_of(page) for command, _ in block.commands()]
    assert [each for each in commands if re.search(r"curl (?!-\w*s)[^|)]*(\||>| -o )", each)] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_link_between_pages_has_an_existing_target(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text_of(page)):
        if "://" in target:
            continue
        other = (ROOT / page).parent / target if target else ROOT / page
        assert other.exists(), f"{page}: {target}"
        if anchor and other.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            slugs |= set(re.findall(r'<a id="([^"]+)">', other.read_text(encoding="utf-8")))
            assert anchor[1:] in slugs, f"{page}: {target}{anchor}"


@pytest.mark.parametrize(
    ("heading", "folder", "made"),
    [
        ("## Source layout", "src/leasehold", None),
        ("## The Python client", "clients/python/src/leasehold_client", "_sync/"),
        ("## The TypeScript client", "clients/typescript/src", None),
    ],
)
def test_the_source_layout_has_a_line_for_every_file(heading: str, folder: str, made: str | None) -> None:
    """`made`: the files in this folder are made from others, and need no lines."""
    layout = text_of(Path("docs/design.md")).partition(heading)[2].partition("```text\n")[2]
    folders: list[str] = []
    described: set[str] = set()
    for line in layout.partition("```")[0].splitlines()[1:]:
        name, _, purpose = line.strip().partition(" ")
        del folders[(len(line) - len(line.lstrip())) // 2 - 1 :]
        assert purpose.strip(), name
        if name.endswith("/"):
            folders.append(name)
        else:
            described.add("".join(folders) + name)
    source = ROOT / folder
    files = {path.relative_to(source).as_posix() for kind in ("*.py", "*.sql", "*.ts") for path in source.rglob(kind)}
    files = {name for name in files if made is None or not name.startswith(made)}
    # The line of a package describes its `__init__.py`, so that file needs no line of its own.
    assert described <= files
    assert {name for name in files - described if not name.endswith("__init__.py")} == set()


def test_values_that_differ_between_runs_match_values_of_the_same_form() -> None:
    shown = '{"key":"a","revision":3,"created_at":"2026-01-31T12:00:00.000001Z"}'
    assert is_as_expected(shown, '{"key":"a","revision":3,"created_at":"2027-02-01T00:00:00.000000Z"}')
    assert not is_as_expected(shown, '{"key":"a","revision":4,"created_at":"2027-02-01T00:00:00.000000Z"}')
    assert is_as_expected('ETag: "4.5f3a9c"', 'ETag: "4.000001"')
    assert not is_as_expected('ETag: "4.5f3a9c"', 'ETag: "5.000001"')
    assert is_as_expected("a\n…\nz", "a\nb\nc\nz")
    assert not is_as_expected("a\nz", "a\nb\nz")


def test_a_page_fails_if_a_command_prints_something_else(tmp_path: Path) -> None:
    page = "```console\n$ echo one\ntwo\n```\n"
    with reader(tmp_path, free_port()) as reading, pytest.raises(AssertionError, match="line 1: echo one"):
        reading.follow(page)


def test_a_page_fails_if_a_command_fails(tmp_path: Path) -> None:
    page = "text\n\n```console\n$ false\n```\n"
    with reader(tmp_path, free_port()) as reading, pytest.raises(AssertionError, match="exit code 1"):
        reading.follow(page)
    with reader(tmp_path, free_port()) as reading:
        assert reading.follow(page.replace("```console", "<!-- fails -->\n```console")) == 1

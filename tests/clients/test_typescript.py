"""The tests of the TypeScript client, each file in a process of its own, and the code of its pages."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import typescript
from leasehold_client.errors import CLASS_BY_CODE
from programs import NODE, needs
from running import Server, running

pytestmark = needs(NODE)

ROOT = Path(__file__).parents[2]
TESTS = sorted(path.name.removesuffix(".ts") for path in (typescript.FOLDER / "tests").glob("*.test.ts"))
PAGES = [typescript.FOLDER / "README.md", ROOT / "docs/typescript.md"]
URL = "http://127.0.0.1:8080"
LIMIT_SECONDS = 600.0
"""Longer than a file of tests takes, also on a busy machine."""


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    """What a command of Node.js prints. It and the processes that it has started end in any case."""
    process = subprocess.Popen(
        command,
        cwd=typescript.FOLDER,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        raise AssertionError(f"it did not end: {printed}") from None
    assert process.returncode == 0, printed
    return printed


def run_with_services(*command: str, environment: dict[str, str] | None = None) -> str:
    """The same for tests that start services."""
    typescript.compiled()
    with typescript.services() as (services, variables):
        try:
            return run(*command, environment=variables | (environment or {}))
        except AssertionError as error:
            error.add_note(f"the services: {services.log()}")
            raise


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.long
def test_the_tests_of_a_file_pass(name: str) -> None:
    printed = run_with_services("node", f"build/{name}.js")
    assert re.search(r"^# pass [1-9]", printed, re.MULTILINE), printed
    assert re.search(r"^# skipped 0$", printed, re.MULTILINE), printed


def test_the_adapter_passes_the_test_suite_of_keyv() -> None:
    vitest = ("node", "node_modules/vitest/vitest.mjs", "run", "build/keyv.spec.js")
    printed = run_with_services(*vitest, environment={"NO_COLOR": "1"})
    assert re.search(r"^ *Tests +\d+ passed \(\d+\)$", printed, re.MULTILINE), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_prints_what_its_comments_say(page: Path) -> None:
    """The blocks of a page are one program, whose types are checked, too."""
    blocks = re.findall(r"^```typescript\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    typescript.compiled()
    with running() as server:
        printed = run_page(page.stem, "\n".join(blocks), server)
    expected = [
        text for block in blocks for text in re.findall(r"^ *console\.log\(.*\); // (.*)$", block, re.MULTILINE)
    ]
    assert printed.splitlines() == expected


def run_page(name: str, text: str, server: Server) -> str:
    folder = typescript.FOLDER / "build/pages"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"{name}.ts"
    program.write_text(text.replace(URL, server.url))
    options = ["--target", "ES2022", "--module", "NodeNext", "--lib", "ES2022,ESNext.Disposable,DOM", "--types", "node"]
    run("node", str(typescript.COMPILER), "--strict", "--skipLibCheck", "--ignoreConfig", *options, str(program))
    return run("node", str(program.with_suffix(".js")))


def test_the_errors_have_the_codes_and_names_of_the_python_client() -> None:
    table = (typescript.FOLDER / "src/errors.ts").read_text().partition("const CLASS_BY_CODE")[2].partition("};")[0]
    classes = dict(re.findall(r"^  (\w+): (\w+),$", table, re.MULTILINE))
    assert classes == {code: error.__name__ for code, error in CLASS_BY_CODE.items()}


def test_a_package_contains_what_its_entrances_name() -> None:
    typescript.compiled()
    listed = run("npm", "pack", "--dry-run", "--json", "--ignore-scripts")
    files = set(re.findall(r'"path": "([^"]+)"', listed))
    assert {"package.json", "README.md"} <= files
    assert {f"dist/{name}.{kind}" for name in ("index", "keyv", "unstorage") for kind in ("js", "d.ts")} <= files
    assert all(name in ("package.json", "README.md") or re.fullmatch(r"dist/.*\.(d\.ts|js)", name) for name in files)

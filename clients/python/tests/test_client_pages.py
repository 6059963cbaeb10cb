"""The Python code of the pages runs, and prints what its comments say."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from running import running

from leasehold_client import Client

CLIENT = Path(__file__).parents[1]
PAGES = [CLIENT / "README.md", CLIENT.parents[1] / "docs/python.md"]
URL = "http://127.0.0.1:8080"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_prints_what_its_comments_say(page: Path) -> None:
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    with running() as server, contextlib.ExitStack() as clients:
        for block in blocks:
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):
                    exec(compile(block.replace(URL, server.url), str(page), "exec"), names)
            finally:
                # A later block may give the name of a client to another one.
                for client in {value for value in names.values() if isinstance(value, Client)}:
                    clients.callback(client.close)
            expected = re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE)
            assert printed.getvalue().splitlines() == expected

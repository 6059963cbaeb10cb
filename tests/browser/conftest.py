"""The browser of these tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from browsing import Visitor, chromium
from playwright.sync_api import BrowserContext


@pytest.fixture(scope="package")
def browser() -> Iterator[BrowserContext]:
    """Chromium. Not for the whole session: the event loop of its library would be in the way of other tests."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def visit(browser: BrowserContext) -> Iterator[Callable[..., Visitor]]:
    """Makes a user of a console: `visit(server.url)`. At the end of the test the browser must not have complained."""
    with ExitStack() as stack:

        def visitor(url: str, **options: Any) -> Visitor:
            made = Visitor(browser, url, **options)
            stack.callback(made.close)
            return made

        yield visitor

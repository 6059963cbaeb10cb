"""Chromium, driven by Playwright: tabs of the console, which must cause no error in the console of the browser.

To start a process for the pages of a site takes longer than most tests. So all tests of a browser share one context,
in which a page that stays open keeps this process. Each test has tabs of its own, and so a `sessionStorage` of its own.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    ViewportSize,
    WebError,
    expect,
    sync_playwright,
)
from programs import program
from running import ANSWER_SECONDS

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--process-per-site",  # all ports of 127.0.0.1 are one site
)
MILLISECONDS: Final = ANSWER_SECONDS * 1000
_OF_A_STATUS: Final = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """A context, whose first page is not for tests.

    An event loop runs in this thread meanwhile, so no test that needs another one may run.
    """
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        try:
            yield _context(browser)
        finally:
            browser.close()


def _launched(playwright: Playwright) -> Browser:
    expect.set_options(timeout=MILLISECONDS)
    return playwright.chromium.launch(executable_path=str(program("chromium")), args=list(FLAGS))


def _context(browser: Browser) -> BrowserContext:
    context = browser.new_context(
        locale="en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
        ignore_https_errors=True,  # the proxies of tests sign their certificates themselves
    )
    context.set_default_timeout(MILLISECONDS)
    first = context.new_page()
    first.route("**/*", lambda route: route.fulfill(content_type="text/html", body=""))
    first.goto("http://127.0.0.1/")
    return context


class Visitor:
    """A user with some tabs of one console. `faults`: what the browser has complained about.

    The browser reports each response of 400 or more as an error; `refused` has the statuses that a test expects.
    """

    def __init__(
        self,
        context: BrowserContext,
        url: str,
        *,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1200,
        height: int = 760,
    ) -> None:
        self.url = url
        self.refused: set[int] = set()
        self.faults: list[str] = []
        self.context: Final = context
        self._scheme: Final = scheme
        self._size: Final[ViewportSize] = {"width": width, "height": height}
        context.on("console", self._note)
        context.on("weberror", self._note_error)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        status = _OF_A_STATUS.match(message.text)
        if status is None or int(status[1]) not in self.refused:
            self.faults.append(f"{message.type}: {message.text}")

    def _note_error(self, error: WebError) -> None:
        self.faults.append(str(error.error))

    def tab(self, view: str = "keys") -> Page:
        """A new tab that shows a view, or an entry: `keys/a%2Fb`."""
        page = self.context.new_page()
        page.set_viewport_size(self._size)
        page.emulate_media(color_scheme=self._scheme)
        page.goto(f"{self.url}/console/#{view}")
        expect(page.locator("#stream")).not_to_have_text("")
        return page

    def close(self) -> None:
        """Leave the context as it was before."""
        for page in self.context.pages[1:]:
            page.close()
        self.context.remove_listener("console", self._note)
        self.context.remove_listener("weberror", self._note_error)
        self.context.unroute_all()
        self.context.clear_permissions()
        assert self.faults == []

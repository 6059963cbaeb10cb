"""Chromium, driven by Playwright: tabs of the console, which must cause no error in the console of the browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, expect, sync_playwright
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
)
MILLISECONDS: Final = ANSWER_SECONDS * 1000
_OF_A_STATUS: Final = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. An event loop runs in this thread meanwhile, so no test that needs another one may run."""
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright) -> Browser:
    expect.set_options(timeout=MILLISECONDS)
    return playwright.chromium.launch(executable_path=str(program("chromium")), args=list(FLAGS))


class Visitor:
    """A user with some tabs of one console. `faults`: what the browser has complained about.

    The browser reports each response of 400 or more as an error; `refused` has the statuses that a test expects.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1200,
        height: int = 760,
        takes_any_certificate: bool = False,
    ) -> None:
        self.url = url
        self.refused: set[int] = set()
        self.faults: list[str] = []
        self.context: BrowserContext = browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
            ignore_https_errors=takes_any_certificate,
        )
        self.context.set_default_timeout(MILLISECONDS)
        self.context.on("console", self._note)
        self.context.on("weberror", lambda error: self.faults.append(str(error.error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        status = _OF_A_STATUS.match(message.text)
        if status is None or int(status[1]) not in self.refused:
            self.faults.append(f"{message.type}: {message.text}")

    def tab(self, view: str = "keys") -> Page:
        """A new tab that shows a view, or an entry: `keys/a%2Fb`."""
        page = self.context.new_page()
        page.goto(f"{self.url}/console/#{view}")
        expect(page.locator("#stream")).not_to_have_text("")
        return page

    def close(self) -> None:
        self.context.close()
        assert self.faults == []

# Made from `_async/tokens.py` by tools/make_sync.py: edit that file.
"""The bearer token: a text, or a function that is asked for one again when it is refused, and before it expires."""

from __future__ import annotations

import time

from leasehold_client import errors
from leasehold_client.protocol.tokens import checked, seconds_of_use

from . import runtime


class Tokens:
    """The token that requests carry. Of many requests that need a new one, one asks the function for it.

    The others wait meanwhile, so the function must not use the same client.
    """

    def __init__(self, source: str | runtime.TokenSource | None) -> None:
        self._source = source
        self._token = checked(source) if isinstance(source, str) else None
        self._use_until: float | None = None
        self._asking = runtime.Lock()

    def current(self) -> str | None:
        """Raises TokenUnavailable."""
        if not callable(self._source) or self._is_usable():
            return self._token
        with self._asking:
            if not self._is_usable():
                self._ask(self._source)
            return self._token

    def replace(self, refused: str | None) -> bool:
        """Whether there is another token than the one that was refused. Raises TokenUnavailable."""
        if not callable(self._source):
            return False
        with self._asking:
            if self._token == refused:
                self._ask(self._source)
            return self._token != refused

    def _is_usable(self) -> bool:
        return self._token is not None and (self._use_until is None or runtime.clock() < self._use_until)

    def _ask(self, source: runtime.TokenSource) -> None:
        try:
            self._token = checked(runtime.ask(source))
        except Exception as error:
            raise errors.TokenUnavailable(f"the function for tokens failed: {error}") from error
        seconds = seconds_of_use(self._token, time.time())
        self._use_until = None if seconds is None else runtime.clock() + seconds

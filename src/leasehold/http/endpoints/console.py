"""The console: static files for browsers, at `/console/`, and the redirection of a browser from `/` to it.

The files are in `leasehold/console` and contain no data, so they need no token. The pages request all data from the
other routes, with the token of their user. To add a file, put it into that folder; `_TYPES` must have its suffix.

All addresses are relative, so the console also works behind a proxy that adds a prefix to all paths.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.requests import Request, percent_decode
from leasehold.http.responses import Response
from leasehold.http.routing.route import AsyncEndpoint, DocumentedResponse, Parameter, Route, Service

_FOLDER: Final = Path(__file__).parents[2] / "console"
_INDEX: Final = "index.html"
_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# Everything comes from this origin, and nothing in a page is run or styled except the files of the console. So a
# value that contains markup stays text, even if a module made a mistake.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_FIXED_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)


class _File(msgspec.Struct, frozen=True):
    content: bytes
    content_type: str
    etag: str


@cache
def _files() -> Mapping[str, _File]:
    """All files by their names. They are read once, by the first request."""
    return {path.name: _read(path) for path in _FOLDER.iterdir() if path.suffix in _TYPES}


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:16]}"')


async def console_file(request: Request, _service: Service) -> Response:
    """The file with the name in the path; without a name, the page."""
    try:
        file = _files().get(percent_decode(request.argument) or _INDEX)
    except ValueError:
        file = None
    if file is None:
        raise ServiceError("no_such_route", "the console has no such file")
    request.media = Media.BYTES
    headers = (("ETag", file.etag), *_FIXED_HEADERS)
    if _has_current(request, file.etag):
        return Response(304, None, headers=headers, has_own_etag=True)
    return Response(200, file.content, headers=headers, content_type=file.content_type, has_own_etag=True)


def _has_current(request: Request, etag: str) -> bool:
    """Whether If-None-Match has this ETag. The comparison is weak (RFC 9110, section 13.1.2): a proxy that compresses
    marks ETags as weak."""
    sent = request.headers.get(b"if-none-match", b"").decode("latin-1")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in sent.split(","))


async def to_console(request: Request, _service: Service) -> Response:
    return _redirection(request)


async def root(request: Request, _service: Service) -> Response:
    """302 to the console for a browser. For a program there is nothing at `/`."""
    if b"text/html" not in request.headers.get(b"accept", b"").lower():
        raise ServiceError("no_such_route", "no such path; see /openapi.json, or /console/ in a browser")
    return _redirection(request)


def _redirection(request: Request) -> Response:
    request.media = Media.BYTES
    headers = (("Location", "console/"),)
    return Response(302, b"See console/\n", headers=headers, content_type="text/plain; charset=utf-8")


def _page(pattern: str, endpoint: AsyncEndpoint, response: DocumentedResponse, *parameters: Parameter) -> Route:
    # `serves_bytes`: any header `Accept` is taken, as browsers send another one for each type of file.
    return Route(
        "GET",
        pattern,
        endpoint,
        response.description,
        None,
        (response,),
        parameters=parameters,
        serves_bytes=True,
        scope="server",
        is_described=False,
    )


_NAMESPACE: Final = Parameter("namespace", "The namespace that the console shows.", {"type": "string"})
"""For the scripts in the page (`namespaces.js`)."""

ROUTES = (
    _page(
        "/console/{file}",
        AsyncEndpoint(console_file),
        DocumentedResponse(200, "A file of the console.", etag=True),
        _NAMESPACE,
    ),
    _page("/console", AsyncEndpoint(to_console), DocumentedResponse(302, "To the console.")),
    _page("/", AsyncEndpoint(root), DocumentedResponse(302, "To the console.")),
)

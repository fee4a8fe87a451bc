"""GET / and /docs: a page to ask with, and the reference of the routes. Neither asks anything of any other host.

Their files are the same for everybody and say nothing of anybody, so that they need no token: a browser has none to
send when it opens a page. What they show they fetch from the routes, with the token that their reader types.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import Response

# Nothing but this server's own files: no inline script or style, no frame, no plugin, no other host.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked again each time, and 304 as long as it is the same.
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
FOLDER = "/page/"
PAGES = {"/": "index.html", "/docs": "reference.html"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page, as it is sent.

    Attributes:
        body: Its bytes.
        media_type: Its type.
        etag: Its identity, which a browser sends back to hear whether it has changed.
    """

    body: bytes
    media_type: str
    etag: str


def read_assets() -> Mapping[str, Asset]:
    """Every file of the page by the path that it is served at."""
    found = {}
    for file in files("gateway").joinpath("page").iterdir():
        suffix = PurePosixPath(file.name).suffix
        if suffix in TYPES:
            body = file.read_bytes()
            found[FOLDER + file.name] = Asset(body, TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found | {path: found[FOLDER + name] for path, name in PAGES.items()}


ASSETS = read_assets()

router = APIRouter(include_in_schema=False)


async def _asset(request: Request) -> Response:
    asset = ASSETS[request.scope["path"]]
    headers = HEADERS | {"ETag": asset.etag}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


for _path in ASSETS:
    router.add_api_route(_path, _asset, methods=["GET", "HEAD"])

"""Style sheets and scripts, as they are served: read once, under names that change with what is in them."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aiohttp import web

from app.api.compression import coding_for
from app.zstd import zstd

FOLDER = "/static/"
SERVED = ("theme.css", "style.css", "page.js", "vendor/htmx-4.0.1.min.js", "vendor/hx-sse-4.0.1.min.js")
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript"}
HASH_CHARS = 16
GZIP_LEVEL, ZSTD_LEVEL = 9, 19
HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "tallyhook",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, and the same in every coding."""

    name: str
    media_type: str
    bodies: dict[str | None, bytes]
    """By coding; None: as it is."""


@cache
def assets() -> dict[str, Asset]:
    """All that is served, by its name there."""
    return {asset.name: asset for asset in map(_asset, SERVED)}


@cache
def address_of(file: str) -> str:
    """Where a page finds a file of SERVED."""
    return FOLDER + _asset(file).name


@cache
def _asset(file: str) -> Asset:
    body = files("app.page").joinpath("static", file).read_bytes()
    stem, _, ending = file.rpartition("/")[2].rpartition(".")
    name = f"{stem}.{hashlib.sha256(body).hexdigest()[:HASH_CHARS]}.{ending}"
    bodies = {
        None: body,
        "gzip": gzip.compress(body, GZIP_LEVEL, mtime=0),
        "zstd": zstd.compress(body, level=ZSTD_LEVEL),
    }
    return Asset(name, MEDIA_TYPES[ending], bodies)


async def serve_asset(request: web.Request) -> web.Response:
    """One of them, for a year; 404 for any other name."""
    asset = assets().get(request.match_info["name"])
    if asset is None:
        return web.Response(status=404, text="there is no such file\n", headers={"Cache-Control": "no-store"})
    coding = coding_for(",".join(request.headers.getall("Accept-Encoding", [])))
    more = {"Content-Encoding": coding} if coding else {}
    return web.Response(
        body=asset.bodies[coding], content_type=asset.media_type, charset="utf-8", headers=HEADERS | more
    )

"""The smallest aiohttp app that answers. Run as a file, so that it imports aiohttp and nothing else."""

import os

from aiohttp import web


async def health(request: web.Request) -> web.Response:
    """It listens."""
    return web.Response(text="{}")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/healthz", health)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None)

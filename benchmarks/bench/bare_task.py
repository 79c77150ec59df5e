"""The handler that ours is compared with: `python -m benchmarks.bench.bare_task --port N`.

An aiohttp app with the server settings and the event loop of our own that reads the body of a task, validates
it by the same model and the same rules, and answers as ours does. It asks for no token and stores nothing.
"""

import argparse
import asyncio
import time

from aiohttp import web

from app.api.dialects.provider.models import (
    ProviderCredits,
    ProviderTask,
    ProviderTaskBody,
    ProviderTaskTaken,
)
from app.api.validate import parsed
from app.domain.engines.rules import check
from app.domain.provider_task import created_at
from app.domain.task import new_id
from app.web.server import handler_args, run


async def create(request: web.Request) -> web.Response:
    """Read, validate, answer."""
    body = parsed(ProviderTaskBody, await request.read())
    if check(body.taskType, body.payload):
        return web.Response(status=400)
    task_id = new_id(time.time_ns() // 1_000_000)
    head = ProviderTask(
        id=task_id,
        taskType=body.taskType,
        status="QUEUED",
        priority=body.priority,
        createdAt=created_at(task_id),
        latencyMs=None,
        idempotencyKey=body.idempotencyKey,
    )
    credits = ProviderCredits(creditsToCharge=4, creditsCharged=None)
    taken = ProviderTaskTaken(task=head, credits=credits)
    return web.Response(body=taken.model_dump_json().encode(), content_type="application/json")


async def health(_request: web.Request) -> web.Response:
    """It listens."""
    return web.Response(body=b"{}")


async def serve(port: int) -> None:
    """Serve until ended."""
    app = web.Application(handler_args=handler_args())
    app.add_routes([web.post("/v1/async/task", create), web.get("/healthz", health)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()

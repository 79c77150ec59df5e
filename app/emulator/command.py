"""The command line of the emulator: `tallyhook emulator`, or `python -m app.emulator`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from aiohttp import web

from .editions import EDITIONS
from .engine import Emulator
from .faults import FaultRates
from .options import DEFAULT_KEY, DEFAULT_SECRET, Options, Switches
from .plans import PLANS
from .pricing import PRICE_LISTS
from .server import app_of
from .setup import read_setup
from .validation import Leniency

_SHUTDOWN_S = 1.0


def _known(name: str, known: object) -> str:
    if not isinstance(known, dict) or name not in known:
        raise typer.BadParameter(
            f"{name!r} is not one of: {', '.join(known) if isinstance(known, dict) else ''}"
        )
    return name


def _rate(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise typer.BadParameter("a rate lies between 0 and 1")
    return value


def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 8090,
    edition: Annotated[
        str, typer.Option(help="2025, legacy or 2026.", callback=lambda v: _known(v, EDITIONS))
    ] = "2025",
    plan: Annotated[
        str, typer.Option(help="Plan of the organization.", callback=lambda v: _known(v, PLANS))
    ] = "starter",
    key: Annotated[list[str] | None, typer.Option(help="API key; may be repeated.")] = None,
    webhook_secret: Annotated[str, typer.Option(help="Signing secret of the deliveries.")] = DEFAULT_SECRET,
    no_signing: Annotated[bool, typer.Option("--no-signing", help="Send unsigned deliveries.")] = False,
    time_scale: Annotated[float, typer.Option(help="Emulated seconds per real second.", min=0.0)] = 1.0,
    concurrency: Annotated[int | None, typer.Option(help="Slots; default: the plan's.", min=1)] = None,
    rate_limit: Annotated[
        int | None, typer.Option(help="Requests per second; 0 for none; default: the edition's.", min=0)
    ] = None,
    credits: Annotated[int | None, typer.Option(help="Opening balance; default: the plan's.")] = None,
    prices: Annotated[
        str | None,
        typer.Option(
            help="Price list; default: the edition's.", callback=lambda v: v and _known(v, PRICE_LISTS)
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of answers, latencies and faults.")] = 0,
    fail: Annotated[float, typer.Option(help="Share of tasks that fail.", callback=_rate)] = 0.0,
    duplicate: Annotated[float, typer.Option(help="Share of deliveries sent twice.", callback=_rate)] = 0.0,
    drop: Annotated[float, typer.Option(help="Share of deliveries that never arrive.", callback=_rate)] = 0.0,
    shuffle: Annotated[
        float, typer.Option(help="Hold each delivery back by 0 to this, real seconds.", min=0.0)
    ] = 0.0,
    wrong_charge: Annotated[
        float, typer.Option(help="Share of tasks charged wrongly.", callback=_rate)
    ] = 0.0,
    lose_response: Annotated[
        float, typer.Option(help="Share of create calls whose answer is lost.", callback=_rate)
    ] = 0.0,
    grok: Annotated[
        bool | None, typer.Option("--grok/--no-grok", help="Whether Grok answers; default: on, off in 2026.")
    ] = None,
    delivery_timeout: Annotated[
        float, typer.Option(help="Real seconds per webhook attempt.", min=0.1)
    ] = 10.0,
    deliveries_in_flight: Annotated[int, typer.Option(help="Webhook requests at once.", min=1)] = 64,
    internal_retry: Annotated[
        float, typer.Option(help="Share of attempts that go back to the queue.", callback=_rate)
    ] = 0.02,
    queue_max: Annotated[int, typer.Option(help="Queued tasks per organization.", min=1)] = 100_000,
    book_lines: Annotated[int, typer.Option(help="Book lines kept past retention.", min=0)] = 200_000,
    credits_endpoint: Annotated[
        bool, typer.Option(help="Serve GET /v1/credits also in editions that had none.")
    ] = True,
    clear_queue: Annotated[
        bool, typer.Option("--clear-queue", help="Serve DELETE /v1/async/queue also in editions without it.")
    ] = False,
    organizations: Annotated[
        Path | None, typer.Option(help="JSON file with further organizations.", exists=True, dir_okay=False)
    ] = None,
    local_html: Annotated[
        bool, typer.Option("--local-html", help="HTML links lead to this process instead of the provider.")
    ] = False,
    test_keys_free: Annotated[
        bool, typer.Option("--test-keys-free", help="Do not bill sk_test_ keys.")
    ] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help="Ignore unknown request fields.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when listening, nothing else.")
    ] = False,
) -> None:
    """Run the provider locally: the async API, signed webhooks, its own books, and faults on request."""
    options = Options(
        edition=edition,
        plan=plan,
        keys=tuple(key) if key else (DEFAULT_KEY,),
        webhook_secret=None if no_signing else webhook_secret,
        time_scale=time_scale,
        concurrency=concurrency,
        requests_per_s=rate_limit,
        credits=credits,
        prices=prices,
        seed=seed,
        faults=FaultRates(
            fail=fail,
            duplicate=duplicate,
            drop=drop,
            shuffle_s=shuffle,
            wrong_charge=wrong_charge,
            lose_response=lose_response,
            internal_retry=internal_retry,
        ),
        switches=Switches(
            leniency=Leniency(unknown_fields=lenient),
            credits_endpoint=credits_endpoint,
            clear_queue=clear_queue,
            test_keys_free=test_keys_free,
        ),
        organizations=read_setup(organizations.read_bytes()) if organizations else (),
        local_html=local_html,
        grok=grok,
        delivery_timeout_s=delivery_timeout,
        deliveries_in_flight_max=deliveries_in_flight,
        queue_max=queue_max,
        book_lines_max=book_lines,
    )
    _run(options, host, port, json)


def _run(options: Options, host: str, port: int, as_json: bool) -> None:
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # not on Windows
        runner = asyncio.Runner()
    with runner:
        runner.run(serve(options, host, port, as_json))


async def serve(options: Options, host: str, port: int, as_json: bool) -> None:
    """Listen until SIGTERM or SIGINT, then end without waiting for deliveries."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    engine = Emulator(options)
    runner = web.AppRunner(app_of(engine), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0][1]
        url = f"http://{host}:{bound}"
        if options.local_html:
            engine.answers.html_base = f"{url}/_emulator/html"
        _announce(url, options, as_json)
        await stopped.wait()
    finally:
        await runner.cleanup()


def _announce(url: str, options: Options, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode({"event": "ready", "url": url, "key": options.keys[0]}).decode())
        return
    typer.echo(
        f"Emulator, edition {options.edition}, plan {options.plan}, listening on {url} "
        f"with key {options.keys[0]}. Books: {url}/_emulator/books. Stop with Ctrl-C."
    )

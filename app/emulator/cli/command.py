"""The command line of the emulator: `tallyhook emulator`, or `python -m app.emulator`."""

import asyncio
import contextlib
import gc
import signal
import socket
from pathlib import Path

import msgspec
import typer
from aiohttp import web

from app.emulator.billing.account import BillingError
from app.emulator.billing.organization_spec import read_setup
from app.emulator.checks.validation import Leniency
from app.emulator.cli import arguments
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import DEFAULT_KEY, DEFAULT_SECRET, Options, Switches
from app.emulator.http.control_token import token_for
from app.emulator.http.server import app_of

_SHUTDOWN_S = 1.0
_FREEZE_EVERY_S = 5.0
"""Left to the garbage collector, a hundred thousand tasks would now and then be traversed while every request
waits, which no provider does."""


def emulator(
    host: arguments.Host = "127.0.0.1",
    port: arguments.Port = 8090,
    edition: arguments.EditionName = None,
    plan: arguments.PlanName = "starter",
    key: arguments.Keys = None,
    webhook_secret: arguments.Secret = DEFAULT_SECRET,
    no_signing: arguments.NoSigning = False,
    time_scale: arguments.TimeScale = 1.0,
    concurrency: arguments.Slots = None,
    rate_limit: arguments.RateLimit = None,
    credits: arguments.Credits = None,
    prices: arguments.Prices = None,
    seed: arguments.Seed = 0,
    fail: arguments.Fail = 0.0,
    duplicate: arguments.Duplicate = 0.0,
    drop: arguments.Drop = 0.0,
    shuffle: arguments.Shuffle = 0.0,
    wrong_charge: arguments.WrongCharge = 0.0,
    lose_response: arguments.LoseResponse = 0.0,
    internal_retry: arguments.InternalRetry = 0.02,
    grok: arguments.Grok = None,
    delivery_timeout: arguments.DeliveryTimeout = 10.0,
    deliveries_in_flight: arguments.InFlight = 64,
    queue_max: arguments.QueueMax = 100_000,
    book_lines: arguments.BookLines = 200_000,
    credits_endpoint: arguments.CreditsEndpoint = True,
    switch: arguments.SwitchSettings = None,
    fault: arguments.FaultSettings = None,
    organizations: arguments.SetupFile = None,
    local_html: arguments.LocalHtml = False,
    lenient: arguments.Lenient = False,
    control_token: arguments.ControlToken = None,
    json: arguments.AsJson = False,
) -> None:
    """Run the provider locally: its API, signed webhooks, its own books, and faults on request."""
    faults = FaultRates(fail=fail, duplicate=duplicate, drop=drop, shuffle_s=shuffle)
    faults.wrong_charge, faults.lose_response = wrong_charge, lose_response
    faults.internal_retry = internal_retry
    switches = Switches(leniency=Leniency(unknown_fields=lenient), credits_endpoint=credits_endpoint)
    arguments.set_fields(switches, switch or [], "switch")
    arguments.set_fields(faults, fault or [], "fault")
    options = Options(plan=plan, prices=prices, seed=seed, faults=faults, switches=switches)
    options.edition, options.todays_prices = edition or options.edition, edition is None
    options.keys = tuple(key) if key else (DEFAULT_KEY,)
    options.webhook_secret = None if no_signing else webhook_secret
    options.time_scale, options.requests_per_s, options.grok = time_scale, rate_limit, grok
    options.concurrency, options.credits, options.queue_max = concurrency, credits, queue_max
    options.delivery_timeout_s, options.deliveries_in_flight_max = delivery_timeout, deliveries_in_flight
    options.book_lines_max, options.local_html = book_lines, local_html
    host = host.removeprefix("[").removesuffix("]")
    options.control_token = token_for(host, control_token)
    _listen(_engine(options, organizations), host, port, json)


def _engine(options: Options, organizations: Path | None) -> Emulator:
    """The emulator with the organizations of a file. Raises typer.BadParameter for a file that is none."""
    try:
        if organizations is not None:
            options.organizations = read_setup(organizations.read_bytes())
        return Emulator(options)
    except (msgspec.MsgspecError, BillingError) as problem:
        # Names out of the file, which a terminal must not obey.
        text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(problem))
        raise typer.BadParameter(f"{organizations}: {text}") from None
    except OSError as problem:
        raise typer.BadParameter(f"cannot read {organizations}: {problem.strerror}") from None


def _listen(engine: Emulator, host: str, port: int, as_json: bool) -> None:
    try:
        run(engine, host, port, as_json)
    except OSError as problem:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        remedy = "--port takes a free one above 1023, or 0; --host an address of this machine"
        typer.echo(f"Cannot listen on {place}: {problem.strerror}. {remedy}.", err=True)
        raise typer.Exit(1) from None


def run(engine: Emulator, host: str, port: int, as_json: bool) -> None:
    """Serve until a signal ends it, on uvloop where there is one. Raises OSError if it cannot listen."""
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # not on Windows
        runner = asyncio.Runner()
    with runner:
        runner.run(serve(engine, host, port, as_json))


async def serve(engine: Emulator, host: str, port: int, as_json: bool) -> None:
    """Listen until SIGTERM, SIGINT or SIGHUP, then end without waiting for deliveries."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ending_signals():
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    runner = web.AppRunner(app_of(engine), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await _site(runner, host, port).start()
        bound = runner.addresses[0][1]
        url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        if engine.options.local_html:
            engine.answers.html_base = f"{url}/_emulator/html"
        with contextlib.suppress(OSError):  # a closed stdout
            _announce(url, engine.options, as_json)
        while not stopped.is_set():
            gc.freeze()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FREEZE_EVERY_S):
                    await stopped.wait()
    finally:
        await runner.cleanup()


def _ending_signals() -> list[signal.Signals]:
    """SIGHUP only where the parent process has not ignored it, as nohup does."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return numbers


def _site(runner: web.AppRunner, host: str, port: int) -> web.BaseSite:
    """Where to listen; `::` means IPv4 too, which the event loop by itself would leave out."""
    if host != "::":
        return web.TCPSite(runner, host, port)
    both = socket.create_server(
        (host, port), family=socket.AF_INET6, dualstack_ipv6=socket.has_dualstack_ipv6()
    )
    return web.SockSite(runner, both)


def _announce(url: str, options: Options, as_json: bool) -> None:
    if as_json:
        ready = {"event": "ready", "url": url, "key": options.keys[0]}
        token = {} if options.control_token is None else {"control_token": options.control_token}
        typer.echo(msgspec.json.encode(ready | token).decode())
        return
    control = "" if options.control_token is None else f"#{options.control_token}"
    typer.echo(
        f"Emulator, edition {options.edition}, plan {options.plan}, listening on {url} "
        f"with key {options.keys[0]}. Its books and clock: {url}/_emulator/{control} . Stop with Ctrl-C."
    )

"""The parts that are not the provider's: clock, books, organizations, state, page, and the process itself."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from emulator_harness import LIVE_KEY, ROOT, refused_by_command, start_command

from app.emulator.engine.clock import Clock, iso
from app.emulator.engine.timeline import Timeline
from app.emulator.http.control_token import token_for
from app.emulator.http.server import create_app

CONTROL = [
    ("GET", "/_emulator/books"), ("GET", "/_emulator/clock"), ("POST", "/_emulator/clock"),
    ("GET", "/_emulator/faults"), ("POST", "/_emulator/faults"), ("DELETE", "/_emulator/faults"),
    ("POST", "/_emulator/availability"), ("GET", "/_emulator/state"), ("GET", "/_emulator/seconds"),
    ("GET", "/_emulator/organizations"), ("POST", "/_emulator/organizations"),
    ("POST", "/_emulator/organizations/nobody"),
]  # fmt: skip


async def test_clock_steps(emulate: Any) -> None:
    provider = await emulate()
    before = (await provider.get("/_emulator/clock", key=None)).body
    assert (before["now"], before["scale"]) == ("2025-01-15T12:00:00.000Z", 0)
    assert before["nextDue"] == "2025-02-15T12:00:00.000Z"
    after = await provider.control("clock", {"advance": 3600})
    assert after["now"] == "2025-01-15T13:00:00.000Z"
    assert (await provider.control("clock", {"scale": 50}))["scale"] == 50
    for wrong in ({"advance": -1}, {"scale": -1}, {"sideways": 1}, [], {"advance": "x"}):
        assert (await provider.post("/_emulator/clock", wrong, key=None)).status == 400


async def test_a_stopped_clock_that_starts_runs_what_was_due(emulate: Any) -> None:
    provider = await emulate()
    await provider.create()
    await provider.control("clock", {"scale": 5000})
    books = await provider.quiet()
    assert books["totals"]["completed"] == 1


def test_timeline_is_ordered_by_due_time_then_by_insertion() -> None:
    timeline, seen = Timeline(Clock(0.0, start_s=0.0)), []
    for due, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "z")):
        timeline.at(due, lambda now_s, name=name: seen.append((now_s, name)))  # type: ignore[misc]
    assert timeline.run_due(5.0) is False
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert timeline.next_due_s() == 9.0
    assert timeline.run_due(9.0, actions_max=0) is True


def test_clock_scales_and_jumps() -> None:
    real = 100.0
    clock = Clock(10.0, start_s=0.0, wall=lambda: 0.0, monotonic=lambda: real)
    real = 103.0
    assert clock.now() == 30.0
    assert clock.real_delay_s(20.0) == 2.0
    clock.rescale(0.0)
    real = 200.0
    assert clock.now() == 30.0
    assert clock.real_delay_s(1.0) == float("inf")
    clock.jump_to(99.0)
    assert clock.now() == 99.0
    assert iso(0.0015) == "1970-01-01T00:00:00.001Z"


async def test_books_of_an_unknown_organization(emulate: Any) -> None:
    provider = await emulate()
    assert (await provider.get("/_emulator/books?organization=nobody", key=None)).status == 400
    assert "tasks" not in (await provider.get("/_emulator/books?tasks=0", key=None)).body


async def test_control_needs_no_key_and_has_no_rate_limit(emulate: Any) -> None:
    provider = await emulate(requests_per_s=1, frozen_wall=True)
    for _ in range(5):
        reply = await provider.get("/_emulator/books", key=None)
        assert reply.status == 200
        assert reply.header("X-RateLimit-Limit") is None


async def test_organizations_at_run_time(emulate: Any) -> None:
    provider = await emulate()
    spec = {
        "name": "late",
        "plan": "lite",
        "keys": [{"key": LIVE_KEY, "edition": "2026"}],
        "webhookSecret": "whsec_x",
    }
    await provider.control("organizations", spec)
    await provider.create(key=LIVE_KEY)
    listed = (await provider.get("/_emulator/organizations", key=None)).body
    assert [item["name"] for item in listed] == ["default", "late"]
    assert listed[1]["keys"] == [{"key": LIVE_KEY, "edition": "2026"}]
    change = {"slots": 3, "prices": {"GOOGLE": 1}, "addKey": {"key": "sk_live_" + "3" * 32}}
    assert (await provider.control("organizations/late", change))["slots"]["max"] == 3
    for wrong in (
        {"nonsense": 1},
        {"plan": "none"},
        {"slots": 0},
        {"prices": {"X": 1}},
        {"prices": {"GOOGLE": -1}},
        {"addKey": {"key": "x", "edition": "1999"}},
        {"invalidateKey": "x"},
    ):
        assert (await provider.post("/_emulator/organizations/late", wrong, key=None)).status == 400, wrong
    assert (await provider.post("/_emulator/organizations/nobody", {"cancel": True}, key=None)).status == 400
    await provider.control("organizations/late", {"cancel": True})


async def test_status_page_and_state(emulate: Any) -> None:
    provider = await emulate()
    await provider.create()
    page = await provider.get("/_emulator/", key=None)
    assert page.status == 200
    assert b"/_emulator/state" in page.raw
    state = (await provider.get("/_emulator/state", key=None)).body
    assert state["organizations"][0]["slots"] == {"used": 1, "max": 50}
    assert state["edition"] == "2025"
    assert state["activeFaults"] == {}


async def test_the_page_is_told_which_faults_are_on(emulate: Any) -> None:
    provider = await emulate()
    rates = {"late": 0.1, "late_s": 30, "drop": 0.02, "slow_s": 9, "retry_after_s": 5}
    await provider.control("faults", rates)
    state = (await provider.get("/_emulator/state", key=None)).body
    assert state["activeFaults"] == {"late": 0.1, "late_s": 30, "drop": 0.02}
    await provider.control("faults", {"shuffle_s": 2, "late": 0, "error_500": 1, "unavailable_503": 0.5})
    state = (await provider.get("/_emulator/state", key=None)).body
    assert state["activeFaults"].keys() == {
        "drop",
        "shuffle_s",
        "error_500",
        "unavailable_503",
        "retry_after_s",
    }


async def start(*arguments: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    process = await start_command("--port", "0", "--json", *arguments)
    assert process.stdout is not None
    return process, json.loads(await asyncio.wait_for(process.stdout.readline(), 60))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_command_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    setup = tmp_path / "organizations.json"
    setup.write_text(json.dumps({"organizations": [{"name": "second", "keys": [{"key": LIVE_KEY}]}]}))
    process, ready = await start("--organizations", str(setup), "--edition", "2026")
    assert ready["event"] == "ready"
    async with aiohttp.ClientSession() as http:
        for key in (ready["key"], LIVE_KEY):
            async with http.get(
                ready["url"] + "/v1/credits", headers={"Authorization": f"Bearer {key}"}
            ) as reply:
                assert reply.status == 200
    process.send_signal(number)
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, output, errors) == (0, b"", b"")


async def test_command_alone_is_well_behaved() -> None:
    """One organization on Starter, the published key, no faults; a readable line instead of JSON."""
    process = await start_command("--port", "0")
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
    assert "sk_test_0123456789abcdef0123456789abcdef" in line
    assert "plan starter" in line
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize(
    "wrong", [["--edition", "1999"], ["--plan", "none"], ["--fail", "2"], ["--prices", "x"]]
)
async def test_command_refuses_nonsense(wrong: list[str]) -> None:
    errors = await refused_by_command(2, *wrong)
    assert wrong[0] in errors or "Invalid value" in errors


def test_emulator_imports_nothing_of_ours_but_itself() -> None:
    import ast

    for path in (ROOT / "app" / "emulator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                ours = name.split(".")[0] in {"app", "workers"}
                assert not ours or f"{name}.".startswith("app.emulator."), f"{path}: {name}"


async def test_command_takes_switches_and_faults() -> None:
    switches = ("--switch", "lookup-by-key", "--switch", "bill-canceled=never")
    process, ready = await start(*switches, "--fault", "error_500=1", "--fault", "seed=7")
    async with aiohttp.ClientSession() as http:
        async with http.get(ready["url"] + "/_emulator/faults") as reply:
            rates = (await reply.json())["rates"]
        headers = {"Authorization": f"Bearer {ready['key']}"}
        async with http.get(ready["url"] + "/v1/async/status", headers=headers) as reply:
            assert reply.status == 500
    assert (rates["error_500"], rates["seed"]) == (1.0, 7)
    process.terminate()
    await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0


@pytest.mark.parametrize(("host", "given"), [("127.0.0.1", "mine"), ("0.0.0.0", None)])
async def test_control_off_loopback_demands_a_token(host: str, given: str | None) -> None:
    """Every route of it; what is the provider's own stays as it is."""
    process, ready = await start("--host", host, *(["--control-token", given] if given else []))
    url, token = ready["url"].replace("0.0.0.0", "127.0.0.1"), ready["control_token"]
    assert token if given is None else token == given
    named = {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession() as http:
            for method, path in CONTROL:
                for headers in ({}, {"Authorization": "Bearer other"}):
                    async with http.request(method, url + path, headers=headers) as reply:
                        assert reply.status == 401, (method, path)
                async with http.request(method, url + path, headers=named) as reply:
                    assert reply.status in (200, 400), (method, path)
            for path, status in (("/_emulator/", 200), ("/openapi.json", 200), ("/v1/credits", 401)):
                async with http.get(url + path) as reply:
                    assert reply.status == status, path
    finally:
        process.terminate()
        await asyncio.wait_for(process.communicate(), 60)


def test_every_control_route_is_tried() -> None:
    app = create_app()
    registered = {
        (route.method, route.resource.canonical.replace("{name}", "nobody"))
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/_emulator/")
    }
    public = {("GET", "/_emulator/"), ("GET", "/_emulator/html/{link_id}/{page}")}
    assert {one for one in registered if one[0] != "HEAD"} - public == set(CONTROL)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0", "::", "10.0.0.7", "emulator", "LOCALHOST", "localhost.evil.test"]
)
def test_all_but_loopback_gets_a_token_of_its_own(host: str) -> None:
    assert token_for(host, None) != token_for(host, None)
    assert [token_for(name, None) for name in ("127.0.0.9", "::1", "localhost")] == [None] * 3


def test_settings_by_name() -> None:
    import typer

    from app.emulator.cli.arguments import set_fields
    from app.emulator.engine.options import Switches

    switches = Switches()
    set_fields(switches, ["wait-for-credits", "ladder_jitter=0.25", "credits_endpoint=off"], "switch")
    assert (switches.wait_for_credits, switches.ladder_jitter, switches.credits_endpoint) == (
        True,
        0.25,
        False,
    )
    set_fields(switches, ["concurrency-headers=both", "state_outside_us=ignored"], "switch")
    assert (switches.concurrency_headers, switches.leniency.state_outside_us) == ("both", True)
    set_fields(switches, ["state_outside_us=refused"], "switch")
    assert not switches.leniency.state_outside_us
    set_fields(switches, ["country-case=any"], "switch")
    assert (switches.leniency.country_case, switches.country_case) == (True, "any")
    unknown = ("concurrency-headers=x", "state_outside_us", "bill_canceled=now")
    for wrong in ("nonsense", "ladder-jitter=much", "leniency=x", *unknown):
        with pytest.raises(typer.BadParameter):
            set_fields(switches, [wrong], "switch")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "truncated"),
        ('{"organizations": [{"name": "default"}]}', "already"),
        ('{"organizations": 1}', "array"),
    ],
)
async def test_command_says_what_is_wrong_with_the_file(tmp_path: Path, text: str, reason: str) -> None:
    setup = tmp_path / "o.json"
    setup.write_text(text)
    assert reason in await refused_by_command(2, "--port", "0", "--organizations", str(setup))


async def test_command_says_that_a_port_is_taken() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    errors = await refused_by_command(1, "--port", str(port))
    server.close()
    await server.wait_closed()
    assert f"Cannot listen on 127.0.0.1:{port}" in errors

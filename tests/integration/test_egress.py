"""The way out, on real parts: a TLS server whose CA only the test knows, and a forward proxy."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.address.web import goes_straight
from app.bootstrap import open_provider, open_sync
from app.cli.doctor.configuration import check_settings
from app.cli.doctor.provider import check_provider, check_webhook
from app.config import ConfigError, Settings, load_settings
from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.domain.sync_call import SyncEnd
from app.notice_client import open_notice_client
from tests.servers.forward_proxy import forward_proxy
from tests.servers.tls import Authority, make_authority, tls_relay

NAME = "provider.test"
LOGIN = "tally:hush5ecret"
CREATED = {"success": True, "task": {"id": "t1", "status": "QUEUED"}, "credits": {"creditsToCharge": 5}}
SLOTS = {"queuedTasks": 0, "processingTasks": 0}
TASK = ClaimedTask(
    id="0197a0f0-0000-7000-8000-000000000001",
    run_id="r",
    attempt=1,
    idempotency_key="k.1",
    task_type="CHATGPT",
    payload_json='{"prompt":"p","country":"US"}',
    priority=1,
    credits_estimate=None,
    sends=1,
    first_sent_at_ms=0,
    claim="c",
)


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    """A provider of few words, and a receiver of notices."""

    async def answer(request: web.Request) -> web.Response:
        assert "Proxy-Authorization" not in request.headers
        if request.method == "GET":
            return web.json_response(SLOTS)
        return web.json_response(CREATED if "async" in request.path else {"success": True, "result": {}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, NAME)


def settings_for(url: str, **more: Any) -> Settings:
    return load_settings(
        _env_file=None,
        CLORO_API_KEY="sk_live_1",
        CLORO_BASE_URL=url,
        PUBLIC_URL=url,
        CLORO_WEBHOOK_SECRET="s",
        notice_url=f"{url}/notice?token=t",
        notice_secret="whsec_" + "A" * 32,
        **({"HTTP_PROXY": "", "HTTPS_PROXY": "", "NO_PROXY": ""} | more),
    )


async def reached(settings: Settings) -> list[bool]:
    """Whether create, a sync call, a notice, and both checks of the doctor got through."""
    poster = open_notice_client(settings)
    assert poster is not None
    async with open_provider(settings) as provider, poster:
        created = await provider.create(TASK)
        found = await poster.post("n1", 1, b"{}")
    sync = open_sync(settings, "default", timeout_s=60)
    asked = await sync.ask("CHATGPT", "{}")
    await sync.close()
    checks = [await check_provider(settings), await check_webhook(settings)]
    # A request that never left may be sent again under its key without a doubt.
    assert created.answer in (Answer.ACCEPTED, Answer.UNAVAILABLE), created
    assert asked.end in (SyncEnd.ANSWERED, SyncEnd.NOT_SENT), asked
    texts = [created.message, asked.message, found.error, *(one.detail + one.remedy for one in checks)]
    assert "hush5ecret" not in str(texts)
    ends = [created.answer is Answer.ACCEPTED, asked.end is SyncEnd.ANSWERED, found.status == 200]
    return [*ends, checks[0].state == "ok", "not with our secret" in checks[1].detail]


async def test_f25_a_private_ca_is_believed_where_it_is_set(server: TestServer, authority: Authority) -> None:
    async with tls_relay(server.port or 0, authority.server) as port:
        url = f"https://localhost:{port}"
        assert await reached(settings_for(url, ca_file=str(authority.ca_file))) == [True] * 5
        unknown = settings_for(url)
        assert await reached(unknown) == [False] * 5
        for check in (await check_provider(unknown), await check_webhook(unknown)):
            assert "TALLYHOOK_CA_FILE" in check.remedy


@pytest.mark.parametrize(
    ("names", "ends", "remedy"),
    [
        ((), datetime(2026, 1, 1, tzinfo=UTC), "renew its certificate and reload"),
        (("elsewhere.example",), None, "name this address"),
    ],
    ids=["run out", "of another name"],
)
async def test_f25_a_certificate_that_ran_out_is_named_with_its_remedy(
    server: TestServer, tmp_path: Path, names: tuple[str, ...], ends: datetime | None, remedy: str
) -> None:
    """By what asks as the provider does: the doctor, at the public address."""
    authority = make_authority(tmp_path, *names, ends=ends)
    async with tls_relay(server.port or 0, authority.server) as port:
        settings = settings_for(
            f"https://{'127.0.0.1' if names else 'localhost'}:{port}", ca_file=str(authority.ca_file)
        )
        for check in (await check_provider(settings), await check_webhook(settings)):
            assert check.state == "fault"
            assert remedy in check.remedy
            assert "TALLYHOOK_CA_FILE" not in check.remedy


async def test_f25_a_proxy_is_taken_by_every_client(server: TestServer, authority: Authority) -> None:
    async with forward_proxy(login=LOGIN) as proxy, tls_relay(server.port or 0, authority.server) as port:
        secure, plain = f"https://{NAME}:{port}", f"http://{NAME}:{server.port}"
        place = f"127.0.0.1:{proxy.port}"
        with_login = {"HTTPS_PROXY": f"http://{LOGIN}@{place}", "HTTP_PROXY": f"{LOGIN}@{place}"}
        for url, first in ((secure, f"CONNECT {NAME}:{port} "), (plain, f"POST {plain}/")):
            settings = settings_for(url, ca_file=str(authority.ca_file), **with_login)
            assert await reached(settings) == [True] * 5
            assert first in "\n".join(proxy.asked)
            assert "hush5ecret" not in repr(settings)
            proxy.asked.clear()
        # Who may open a tunnel is the proxy's; what goes through it is none of its business.
        assert not [head for head in proxy.heads if "sk_live_1" in head or "Bearer" in head]
        without = {"HTTPS_PROXY": f"http://{place}", "HTTP_PROXY": f"http://{place}"}
        refused = settings_for(secure, ca_file=str(authority.ca_file), **without)
        assert await reached(refused) == [False] * 5
        assert "check HTTPS_PROXY" in (await check_provider(refused)).remedy
        assert proxy.asked == []
        # This machine itself, and whoever NO_PROXY names, is reached without.
        here = settings_for(f"https://localhost:{port}", ca_file=str(authority.ca_file), **with_login)
        assert await reached(here) == [True] * 5
        named = settings_for(secure, ca_file=str(authority.ca_file), NO_PROXY=f".test:{port}", **with_login)
        assert await reached(named) == [False] * 5, "the name leads nowhere but by the proxy"
        assert proxy.asked == []


@pytest.mark.parametrize("port_of", ["nobody's", "silent end"])
async def test_f25_without_a_proxy_nothing_was_sent(port_of: str, server: TestServer) -> None:
    port = 1 if port_of == "nobody's" else server.port
    # A web server in a proxy's place refuses CONNECT; here it answers 200 to anything, and speaks no TLS.
    assert (
        await reached(settings_for("https://provider.test", HTTPS_PROXY=f"http://127.0.0.1:{port}"))
        == [False] * 5
    )


@pytest.mark.parametrize(
    ("url", "no_proxy", "straight"),
    [
        ("http://localhost:8090", "", True),
        ("http://127.0.0.9", "", True),
        ("http://[::1]:1", "", True),
        ("http://a.localhost", "", True),
        ("https://api.cloro.dev", "", False),
        ("https://api.cloro.dev", "*", True),
        ("https://api.cloro.dev", "cloro.dev", True),
        ("https://api.cloro.dev", ".cloro.dev", True),
        ("https://api.cloro.dev", "*.cloro.dev", True),
        ("https://api.cloro.dev", "API.CLORO.DEV", True),
        ("https://api.cloro.dev", "oro.dev", False),
        ("https://api.cloro.dev", "x.api.cloro.dev", False),
        ("https://api.cloro.dev", "cloro.dev:443", True),
        ("https://api.cloro.dev", "cloro.dev:80", False),
        ("https://api.cloro.dev:8443", "a, cloro.dev:8443", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3:9", "10.1.2.3:9", True),
        ("https://[fd00::5]:9", "fd00::/8", True),
        ("https://[fd00::5]:9", "[fd00::5]:9", True),
        ("https://[fd00::5]:9", "[fd00::5]:8", False),
        ("https://api.cloro.dev", "a b c", False),
        ("https://api.cloro.dev", ",,", False),
    ],
)
def test_f25_whom_no_proxy_names(url: str, no_proxy: str, straight: bool) -> None:
    assert goes_straight(url, no_proxy) is straight


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (
            "HTTPS_PROXY",
            "socks5://u:hush5ecret@h:1",
            "HTTPS_PROXY names a proxy that does not begin with http://",
        ),
        ("HTTPS_PROXY", "http://u:hush5ecret@h:port", "HTTPS_PROXY has a host or port that is none"),
        ("ca_file", "/no/such.pem", "TALLYHOOK_CA_FILE names no file that is there"),
        ("ca_file", __file__, "TALLYHOOK_CA_FILE names a file that cannot be read as certificates"),
    ],
)
def test_f25_what_is_wrong_is_reported(setting: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_for("https://provider.test", **{setting: value})
    assert words in str(caught.value)
    assert "hush5ecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("proxies", "found"),
    [
        ({"ALL_PROXY": "socks5://u:hush5ecret@h:1"}, ["ALL_PROXY"]),
        ({"all_proxy": "http://h:1"}, ["ALL_PROXY"]),
        ({"ALL_PROXY": "http://h:1", "HTTPS_PROXY": "http://h:1"}, []),
        ({"ALL_PROXY": "http://h:1", "NO_PROXY": ".test"}, []),
    ],
)
def test_f25_a_proxy_that_nobody_reads_is_reported(
    proxies: dict[str, str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None, CLORO_API_KEY="k", CLORO_BASE_URL="https://provider.test")
    checks = [check for check in check_settings(settings) if "proxy" in check.detail]
    assert [check.name for check in checks] == found
    assert "hush5ecret" not in repr(checks)


def test_f25_a_proxy_that_nobody_is_reached_by_is_not_judged() -> None:
    assert load_settings(
        _env_file=None, HTTP_PROXY="socks5://h:1", HTTPS_PROXY="socks5://h:1"
    ).embedded_provider

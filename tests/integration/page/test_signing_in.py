"""Who gets in: sessions on tokens, forms of ours and of others, headers; and what is in no address."""

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.page_session import LASTS_MS
from app.page.session import KNOWN_FOR_MS, TRIES_MAX, TRIES_WINDOW_MS
from app.services.access import create_token, revoke_token
from app.store.tables import page_sessions
from tests.integration.page.conftest import StartPage
from tests.integration.page.visiting import Visitor

CROSS = {
    "another site, as the browser says": {"Sec-Fetch-Site": "cross-site"},
    "another port of this host": {"Sec-Fetch-Site": "same-site"},
    "another origin": {"Origin": "http://evil.example"},
    "no origin that is told": {"Origin": "null"},
}


async def test_a_session_is_a_random_id_that_no_script_gets(visitor: Visitor) -> None:
    (cookie,) = visitor.cookies
    token = await visitor.api.token()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert not {cookie.value} & {token, token.rpartition("_")[2]}

    async def rows(connection: AsyncConnection) -> list[dict[str, object]]:
        return [dict(row) for row in (await connection.execute(sa.select(page_sessions))).mappings()]

    (row,) = await visitor.api.store.db.read(rows)
    assert cookie.value not in str(row)
    assert (await visitor.look("/")).status == 200


async def test_who_is_not_signed_in_is_asked_for_a_token_and_comes_back(stranger: Visitor) -> None:
    seen = await stranger.look("/?cursor=abc")
    assert (seen.status, seen.headers["Location"]) == (303, "/sign-in?next=/%3Fcursor%3Dabc")
    asked = await stranger.look(seen.headers["Location"])
    field = asked.tree.css_first("input[name=next]")
    assert field is not None and field.attributes["value"] == "/?cursor=abc"
    form = {"token": await stranger.api.token(), "next": "/?cursor=abc"}
    assert (await stranger.send("/sign-in", form)).headers["Location"] == "/?cursor=abc"
    assert (await stranger.look("/sign-in")).headers["Location"] == "/"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//evil.example/",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil",
            "",
            "javascript:alert(1)",
        ),
        *(
            "///evil.example",
            "/\r\nLocation: //evil.example",
            "/\u2028",
            "evil.example",
            " //evil.example",
            "\\/x",
        ),
    ],
)
async def test_nobody_is_sent_to_another_site(stranger: Visitor, path: str) -> None:
    form = {"token": await stranger.api.token(), "next": path}
    assert (await stranger.send("/sign-in", form)).headers["Location"] == "/"


async def test_a_wrong_token_is_refused_and_not_shown_again(stranger: Visitor) -> None:
    token = await stranger.api.token()
    wrong = f"{token[:-1]}{'1' if token[-1] == '0' else '0'}"
    for given in (wrong, "", "sk_live_0123456789", "é", "\x00"):
        seen = await stranger.send("/sign-in", {"token": given})
        assert (seen.status, stranger.cookies) == (403, [])
        assert "unknown, expired or revoked" in seen.text
        assert not given or given not in seen.body


async def test_an_id_that_was_planted_is_worth_nothing(stranger: Visitor) -> None:
    await stranger.sign_in("read")
    (planted,) = [cookie.value for cookie in stranger.cookies]
    await stranger.sign_in("operate")
    (made,) = [cookie.value for cookie in stranger.cookies]
    assert made != planted
    name = stranger.cookies[0].key
    stranger.api.client.session.cookie_jar.clear()
    for worthless in (planted, "A" * 43, "x", made + "A"):
        seen = await stranger.look("/", headers={"Cookie": f"{name}={worthless}"})
        assert seen.status == 303, worthless
    assert (await stranger.look("/", headers={"Cookie": f"{name}={made}"})).status == 200


async def test_a_session_ends_at_the_sign_out_for_whoever_has_its_id(visitor: Visitor) -> None:
    (cookie,) = visitor.cookies
    left = await visitor.act("/sign-out")
    assert (left.status, left.headers["Location"], visitor.cookies) == (303, "/sign-in", [])
    seen = await visitor.look("/", headers={"Cookie": f"{cookie.key}={cookie.value}"})
    assert seen.status == 303


async def test_a_session_ends_with_its_token_and_with_its_day(stranger: Visitor) -> None:
    api = stranger.api
    made = await create_token(api.store, "short", "read", None, now_ms=api.clock(), lasts_ms=60_000)
    assert made is not None
    await stranger.send("/sign-in", {"token": made[1]})
    assert (await stranger.look("/")).status == 200
    api.clock.advance(60_000)
    assert (await stranger.look("/")).status == 303
    await stranger.sign_in()
    await revoke_token(api.store, "operate ", now_ms=api.clock())
    api.clock.advance(KNOWN_FOR_MS)
    assert (await stranger.look("/")).status == 303
    await stranger.sign_in("read")
    api.clock.advance(LASTS_MS)
    assert (await stranger.look("/")).status == 303


async def test_who_tries_too_often_waits(stranger: Visitor) -> None:
    for _ in range(TRIES_MAX):
        assert (await stranger.send("/sign-in", {"token": "no"})).status == 403
    refused = await stranger.send("/sign-in", {"token": "no"})
    assert (refused.status, refused.headers["Retry-After"]) == (429, "60")
    await stranger.sign_in()  # who has a token may have their address in common with whoever tries
    stranger.api.clock.advance(TRIES_WINDOW_MS)
    assert (await stranger.send("/sign-in", {"token": "no"})).status == 403


@pytest.mark.parametrize("kind", CROSS)
async def test_a_form_of_another_site_is_refused(kind: str, stranger: Visitor) -> None:
    token = await stranger.api.token()
    seen = await stranger.send("/sign-in", {"token": token}, headers=CROSS[kind])
    assert (seen.status, stranger.cookies) == (403, [])
    await stranger.sign_in()
    assert (await stranger.act("/sign-out", headers=CROSS[kind])).status == 403
    assert (await stranger.look("/")).status == 200


async def test_a_form_needs_the_token_of_its_own_session(stranger: Visitor) -> None:
    await stranger.sign_in("read")
    before = (await stranger.look("/")).form_token
    await stranger.sign_in("operate")
    own = (await stranger.look("/")).form_token
    assert own != before
    for given in (before, "", own[:-1], "é"):
        assert (await stranger.send("/sign-out", {"form_token": given})).status == 403
    assert (await stranger.send("/sign-out", {})).status == 403
    json = {"json": {"form_token": own}}
    async with stranger.api.client.post("/sign-out", allow_redirects=False, **json) as response:
        assert response.status == 415
    assert (await stranger.send("/sign-out", {"form_token": own})).status == 303


async def test_behind_a_proxy_with_tls_a_cookie_keeps_to_it(stranger: Visitor) -> None:
    url = stranger.api.client.make_url("/")
    headers = {"Origin": f"https://{url.host}:{url.port}"}
    seen = await stranger.send("/sign-in", {"token": await stranger.api.token()}, headers=headers)
    assert "Secure" in seen.headers["Set-Cookie"]
    plain = await stranger.send("/sign-in", {"token": await stranger.api.token()})
    assert "Secure" not in plain.headers["Set-Cookie"]


@pytest.mark.parametrize("path", ["/", "/sign-in", "/no-such-page", "/?nonsense=1"])
async def test_every_page_keeps_others_out(path: str, reader: Visitor) -> None:
    headers = (await reader.look(path, headers={"Accept": "text/html"})).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "same-origin"


async def test_a_token_in_an_address_lets_nobody_in(stranger: Visitor) -> None:
    token = await stranger.api.token()
    for path in (f"/?token={token}", f"/sign-in?token={token}"):
        seen = await stranger.look(path)
        assert (seen.status in (200, 303), stranger.cookies) == (True, [])
        assert (await stranger.look("/")).status == 303


async def test_a_bearer_token_opens_the_api_and_a_cookie_does_not(reader: Visitor) -> None:
    assert (await reader.look("/v1/runs")).status == 401
    assert (await reader.api.ask("/v1/runs")).status == 200


async def test_who_sees_one_account_sees_no_other(stranger: Visitor) -> None:
    await stranger.api.run("of eu", account="eu")
    await stranger.api.run("of all")
    await stranger.sign_in("read", "eu")
    assert "of eu" in (text := (await stranger.look("/")).text) and "of all" not in text


async def test_the_rate_of_a_token_holds_here_too(start_page: StartPage, stranger: Visitor) -> None:
    slow = await start_page(stranger.api.store, api_rate_per_s=0.01)
    await slow.sign_in()
    seen = [(await slow.look("/")).status for _ in range(3)]
    assert 429 in seen

"""What the doctor says of each account's provider, and of the address that it is given."""

import hashlib
import hmac
import secrets

import aiohttp
import msgspec

from app.bootstrap import open_provider
from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks
from app.cli.doctor.configuration import in_which_file
from app.config import DEFAULT_ACCOUNT, Account, Settings
from app.domain.text import counted
from app.provider.egress import egress_to

CHALLENGE_PREFIX = "tallyhook-doctor."
"""What the receiver signs is never a delivery: no body begins like this (app.web)."""
WEBHOOK_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 4096


async def check_extra_accounts(settings: Settings) -> list[Check]:
    """Key, secret and address of every account of TALLYHOOK_ACCOUNTS, each under its name."""
    found = []
    for name, account in settings.all_accounts().items():
        if name == DEFAULT_ACCOUNT:
            continue
        if not account.webhook_secrets and not settings.allow_unsigned:
            remedy = "give it the webhook_secret that the provider's dashboard shows for it"
            detail = "has no webhook_secret in TALLYHOOK_ACCOUNTS; web will not start"
            found.append(Check(f"webhook secret of {name}", "fault", detail, remedy))
        found += [await check_provider(settings, name), await check_webhook(settings, name)]
    return found


def _account(settings: Settings, what: str, name: str) -> tuple[str, str, Account]:
    """What a check is called, where the key is set, and the account."""
    account = settings.all_accounts()[name]
    if name == DEFAULT_ACCOUNT:
        return what, "CLORO_API_KEY", account
    return f"{what} of {name}", f"the api_key of {name} in TALLYHOOK_ACCOUNTS", account


async def check_provider(
    settings: Settings, account: str = DEFAULT_ACCOUNT, *, clocks: Clocks | None = None
) -> Check:
    """The key is accepted."""
    name, key, chosen = _account(settings, "provider", account)
    url = chosen.base_url
    try:
        async with open_provider(settings, account) as provider:
            asked = clocks.ask() if clocks is not None else None
            got = await provider.get("/v1/async/status")
            is_providers = got.refusal.is_own or _queue_of(got.body) is not None
            if clocks is not None and asked is not None and is_providers and got.dated_ms is not None:
                # The header's seconds are whole: the middle of it.
                clocks.note("provider", got.dated_ms + 500, asked)
    except (OSError, TimeoutError) as error:
        if settings.embedded_provider and account == DEFAULT_ACCOUNT:
            remedy = (
                "run tallyhook up, which starts it with all the rest, or tallyhook emulator alone; for the "
                f"real provider set CLORO_API_KEY{in_which_file()}"
            )
            return Check(name, "fault", f"no emulator at {url}", remedy)
        detail = f"cannot reach {url}: {_reason(error)}"
        remedy = _way_remedy(error) or "check the network and CLORO_BASE_URL"
        return Check(name, "fault", detail, remedy)
    if got.status == 200 and (queue := _queue_of(got.body)) is not None:
        return Check(name, "ok", f"{url} accepts the key; {queue}")
    if not got.refusal.is_own:
        detail = f"something else answers in the provider's place at {url}: {got.refusal.message}"
        remedy = "check CLORO_BASE_URL, and the proxy, firewall or portal between here and the provider"
        return Check(name, "fault", detail, remedy)
    if got.status == 401:
        return Check(name, "fault", f"{url} refuses the API key (401)", f"check {key}")
    return Check(name, "warning", f"{url} answers {got.status}", "look at the provider's status page")


def _queue_of(body: bytes) -> str | None:
    """None: it is no answer of the provider's."""
    try:
        answer = msgspec.json.decode(body)
        return (
            f"{counted(answer['queuedTasks'], 'task')} queued, "
            f"{answer.get('processingTasks', '?')} processing"
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return None


async def check_webhook(settings: Settings, account: str = DEFAULT_ACCOUNT) -> Check:
    """Our own receiver answers at the address that the provider is given: only it can sign the challenge."""
    name, _, chosen = _account(settings, "webhook", account)
    url = chosen.webhook_url
    challenge = secrets.token_hex(16)
    timeout = aiohttp.ClientTimeout(total=WEBHOOK_TIMEOUT_S)
    egress = egress_to(settings.outbound, url)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=egress.connector()) as session,
            session.get(
                url, params={"challenge": challenge}, allow_redirects=False, **egress.how({})
            ) as response,
        ):
            status, body = response.status, await response.content.read(ANSWER_BYTES_MAX)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        remedy = _way_remedy(error) or (
            "run tallyhook up, or start tallyhook web, and check PUBLIC_URL, DNS, proxy and firewall between"
        )
        return Check(name, "fault", f"cannot reach {url}: {_reason(error)}", remedy)
    if status != 200:
        return Check(name, "fault", f"{url} answers {status}", "check what else listens there")
    if not chosen.webhook_secrets:
        return Check(name, "warning", f"{url} answers; without a secret it cannot prove to be ours")
    expected = challenge_answer(chosen.webhook_secrets[0], challenge)
    if not hmac.compare_digest(_answer_of(body), expected):
        remedy = "give web the same secret as here, the first one first, or check what else listens there"
        return Check(name, "fault", f"{url} answers, but not with our secret", remedy)
    return Check(name, "ok", f"{url} is ours")


def challenge_answer(secret: str, challenge: str) -> str:
    """What the receiver answers to a challenge, in hex."""
    return hmac.new(secret.encode(), (CHALLENGE_PREFIX + challenge).encode(), hashlib.sha256).hexdigest()


def _answer_of(body: bytes) -> str:
    """The answer as plain text, or as JSON {"answer": …}."""
    text = body.decode("ascii", "replace").strip()
    if text.startswith("{"):
        try:
            text = str(msgspec.json.decode(body)["answer"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return ""
    return text if text.isascii() else ""


_CERTIFICATES = {
    "certificate has expired": "renew its certificate and reload what ends TLS there, such as nginx; "
    "what could not be delivered meanwhile comes by poll",
    "certificate is not yet valid": "look at the clocks of this machine and of that one, then at it",
    "Hostname mismatch": "let its certificate name this host, or ask by a name that it has",
    "IP address mismatch": "let its certificate name this address, or ask by a name that it has",
}
"""What OpenSSL says of a certificate whose CA is known -> what to do."""


def _way_remedy(error: BaseException) -> str:
    """Where the way there is at fault: a certificate that has run out or that nobody knows, a proxy."""
    kind = error.__cause__ or error
    if (outdated := next((words for words in _CERTIFICATES if words in str(error)), None)) is not None:
        return _CERTIFICATES[outdated]
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "set TALLYHOOK_CA_FILE to the PEM file of the CA that signed its certificate"
    if isinstance(kind, aiohttp.ClientHttpProxyError | aiohttp.ClientProxyConnectionError):
        return "check HTTPS_PROXY or HTTP_PROXY, its user and password, and NO_PROXY"
    return ""


def _reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__

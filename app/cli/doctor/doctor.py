"""Looks at everything a real run needs, and says what to do about each fault. Changes nothing."""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import os
import secrets
import tempfile
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from app.address.web import goes_straight
from app.bootstrap import open_provider
from app.cli.doctor.ages import check_ages
from app.cli.doctor.balance import check_balance
from app.cli.doctor.check import Check as Check  # noqa: PLC0414 - callers have it from here
from app.cli.doctor.clocks import Clocks
from app.cli.doctor.redis import check_redis
from app.cli.doctor.replica import check_replica
from app.cli.doctor.scraped import check_scraped
from app.cli.store_access import answered, display_url, reachable_store
from app.config import DEFAULT_ACCOUNT, Account, Settings, unknown_settings
from app.domain.text import counted
from app.domain.time_format import DAY_MS
from app.errors import UserError
from app.notice_client import open_notice_client
from app.provider.egress import egress_to
from app.settings_text import ConfigError, Problem, read_dotenv, refuse_folder
from app.store.finish import steps_due
from app.store.migrate import is_migrated, newest_revision
from app.store.read.runs import STANDBY
from app.store.write.partitions import PartitionState
from app.views.workers import START_WORKER, workers_document

CHALLENGE_PREFIX = "tallyhook-doctor."
"""What the receiver signs is never a delivery: no body begins like this (app.web)."""
CHECK_TIMEOUT_S = 8.0
SQLITE_BUSY_MS = 3_000
"""For the lock of another process; a transaction of ours takes a tenth of that."""
TRIED_BYTES = 65_536
"""As large as a delivery is at most, but for the rarest: some room is always left over on a full disk."""
WEBHOOK_TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 4096
INBOX_SHOWN = 100
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - compared, not bound


async def examine(settings: Settings, clocks: Clocks | None = None) -> list[Check]:
    """Every check, in the order in which faults should be dealt with."""
    clocks = clocks or Clocks()
    receivers = await receiver_addresses(settings)
    # Where PUBLIC_URL is not set here, workers announce what `web` says of itself.
    addressed = settings if settings.public_url or not receivers else settings.reached_at(receivers[0])
    asked = await asyncio.gather(
        _in_time("database", check_database(settings, clocks)),
        _in_time("replica", check_replica(settings)),
        _in_time("upgrade", check_upgrade(settings)),
        _in_time("inbox", check_inbox(settings)),
        _in_time("redis", check_redis(settings, clocks)),
        _in_time("provider", check_provider(settings, clocks=clocks)),
        _in_time("balance", check_balance(settings)),
        _in_time("webhook", check_webhook(addressed)),
        _in_time("worker", check_worker(settings)),
        _in_time("ages", check_ages(settings, sqlite_busy_ms=SQLITE_BUSY_MS)),
        _in_time("processes", check_scraped(settings)),
        _in_time("further accounts", check_extra_accounts(addressed)),
    )
    return [
        *check_settings(settings),
        *check_configuration(settings, receivers),
        *check_notices(settings),
        *itertools.chain.from_iterable(asked),
        *clocks.checks(),
    ]


async def _in_time(name: str, check: Awaitable[Check | list[Check]]) -> list[Check]:
    """Each check alone: what hangs is reported as that, and keeps nobody from the others."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            found = await check
    except TimeoutError:
        remedy = "something accepts the connection and does not answer: look at it, and at what is before it"
        return [Check(name, "fault", f"no answer within {CHECK_TIMEOUT_S:g} s", remedy)]
    return [found] if isinstance(found, Check) else found


def check_notices(settings: Settings) -> list[Check]:
    """A worker does not start with settings of notices that cannot work."""
    try:
        open_notice_client(settings)
    except ConfigError as error:
        return [Check("notices", "fault", f"{error}; worker will not start", "correct it, or unset both")]
    return []


def document(checks: list[Check]) -> dict[str, Any]:
    """As --json prints it."""
    faults = [check for check in checks if check.state == "fault"]
    return {
        "healthy": not faults,
        "checks": [asdict(check) for check in checks],
        "next": next((check.remedy for check in faults if check.remedy), None),
    }


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


def wrong_settings(error: ConfigError) -> list[Check]:
    """What keeps every command from beginning: each wrong setting by its name."""
    problems = error.problems or (Problem("settings", str(error)),)
    return [Check(problem.setting, "fault", *problem.parted()) for problem in problems]


def check_settings(settings: Settings) -> list[Check]:
    """Variables that nobody reads, and settings that do not go well together."""
    names = [*os.environ, *read_dotenv(Path(".env"))]
    found = [
        Check(name, "warning", f"{name} is no setting of this version", remedy)
        for name, remedy in unknown_settings()
    ]
    found += _unread_proxies(settings, {name.upper() for name in names})
    return found + [Check(name, "warning", what, remedy) for name, what, remedy in settings.doubts()]


def _unread_proxies(settings: Settings, names: Collection[str]) -> list[Check]:
    """Proxies that other programs would take, where the provider is reached without one."""
    read = "HTTP_PROXY" if settings.base_url.startswith("http://") else "HTTPS_PROXY"
    if read in names or goes_straight(settings.base_url, settings.no_proxy):
        return []
    remedy = f"set {read} to http://HOST:PORT where requests must go by a proxy, else NO_PROXY"
    return [
        Check(name, "warning", f"{name} is not read: {settings.base_url} is reached without a proxy", remedy)
        for name in ("ALL_PROXY", "SOCKS_PROXY")
        if name in names
    ]


def check_configuration(settings: Settings, receivers: Sequence[str] = ()) -> list[Check]:
    """Key, secret and public address, as far as they can be judged without asking anybody."""
    if settings.embedded_provider:
        key = Check(
            "API key", "ok", "CLORO_API_KEY is not set: the local emulator stands in for the provider"
        )
    else:
        key = Check("API key", "ok", f"set, for {settings.base_url}")
    public_url = _check_public_url(settings, receivers)
    return [key, _check_secret(settings), public_url, *_check_receivers(settings, receivers)]


def _in_which_file() -> str:
    """Where a setting is written; not said where there is such a file."""
    return "" if Path(".env").exists() else "; tallyhook init writes a .env to set it in"


def _check_secret(settings: Settings) -> Check:
    name, count = "webhook secret", len(settings.webhook_secrets)
    if settings.allow_unsigned:
        remedy = "switch signing on at the provider, set CLORO_WEBHOOK_SECRET, unset TALLYHOOK_ALLOW_UNSIGNED"
        return Check(name, "warning", "TALLYHOOK_ALLOW_UNSIGNED: anybody can send us deliveries", remedy)
    if not count:
        remedy = "set CLORO_WEBHOOK_SECRET to the signing secret that the provider's dashboard shows"
        remedy += _in_which_file()
        return Check(name, "fault", "CLORO_WEBHOOK_SECRET is not set; web will not start", remedy)
    if not settings.cloro_webhook_secret:
        return Check(name, "ok", "the emulator's, which everybody knows")
    return Check(name, "ok", "set" if count == 1 else f"{count} set, as while rotating")


def _check_public_url(settings: Settings, receivers: Sequence[str]) -> Check:
    name, remedy = "public URL", "set PUBLIC_URL to the https address at which the provider reaches web"
    remedy += _in_which_file()
    url = settings.public_url or next(iter(receivers), settings.address_at(settings.port))
    says = "" if settings.public_url or not receivers else ", as web says"
    if settings.embedded_provider and not settings.public_url:
        return Check(name, "ok", f"not needed for the emulator; deliveries go to {url}{says}")
    parts = urlsplit(url)
    if settings.embedded_provider:
        return Check(name, "ok", url)
    if parts.hostname in LOOPBACK_HOSTS:
        unset = "nobody but this machine can reach" if settings.public_url else "PUBLIC_URL is not set, and"
        there = "" if settings.public_url else f"{says} is this machine"
        return Check(name, "fault", f"{unset} {url}{there}", remedy)
    if parts.scheme == "http":
        return Check(name, "warning", f"{url} is not encrypted", remedy)
    return Check(name, "ok", f"{url}{says}")


def _check_receivers(settings: Settings, receivers: Sequence[str]) -> list[Check]:
    """Workers send the provider to the PUBLIC_URL of their own; no line where no `web` says another one."""
    if not settings.public_url or not receivers or settings.public_url.rstrip("/") in receivers:
        return []
    detail = f"PUBLIC_URL is {settings.public_url} here, and web says that it is at {', '.join(receivers)}"
    remedy = "give web and every worker the same PUBLIC_URL, and start them again"
    return [Check("address of web", "warning", detail, remedy)]


async def receiver_addresses(settings: Settings) -> list[str]:
    """Where each `web` that runs says that it is reached; empty while the database cannot tell."""
    if not (settings.database_url or (settings.data_dir / "tallyhook.db").exists()):
        return []
    with contextlib.suppress(UserError, TimeoutError):  # reported by the check of the database
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            store = await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)
            try:
                if is_migrated(await answered(store.queries.schema_revision(), settings)):
                    told = await answered(store.health.receivers(), settings)
                    return [receiver.address for receiver in told if receiver.is_running]
            finally:
                await store.close()
    return []


async def check_database(settings: Settings, clocks: Clocks | None = None) -> Check:
    """Reachable, taking writes, at a schema that this code can work on, and keeping what it commits."""
    name = "database"
    if not settings.database_url and not (settings.data_dir / "tallyhook.db").exists():
        return _check_data_dir(name, settings)
    try:
        store = await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)
        try:
            revision = await answered(store.queries.schema_revision(), settings)
            if clocks is not None and not store.db.is_sqlite:  # whose clock is this machine's
                asked = clocks.ask()
                clocks.note("database", await answered(store.health.database_ms(), settings), asked)
            if (refused := await answered(store.queries.why_read_only(), settings)) is not None:
                return Check(name, "fault", *_read_only(refused, display_url(settings)))
            unsafe = await answered(store.queries.unsafe_settings(), settings)
            if is_migrated(revision):
                # Kept and taken away again: what is rolled back never meets a full disk.
                await answered(store.health.try_write(keep=True, bytes_wanted=TRIED_BYTES), settings)
        finally:
            await store.close()
    except UserError as error:
        return Check(name, "fault", error.message, error.remedy)
    if not is_migrated(revision):
        detail = f"{display_url(settings)} is at revision {revision}, needed is {newest_revision()}"
        if not settings.database_url:
            return Check(name, "ok", detail + "; the next command brings it there")
        return Check(name, "fault", detail, "run: tallyhook migrate")
    if unsafe:
        detail = f"{display_url(settings)} may forget what it has committed: {', '.join(unsafe)}"
        if "synchronous_commit=off" in unsafe:
            remedy = "set it on for this database or role: what it forgets was acknowledged"
            return Check(name, "fault", detail, remedy)
        return Check(name, "warning", detail, "set on what your storage does not make up for by itself")
    newer = "" if revision == newest_revision() else f", newer than the {newest_revision()} that this needs"
    return Check(name, "ok", f"{display_url(settings)} at revision {revision}{newer}")


def _check_place(name: str, data_dir: Path) -> Check:
    """Where the embedded database is to be made: something is made there, and taken away again."""
    there = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix="tallyhook-doctor-", dir=there)).rmdir()
    except OSError as error:
        detail = f"cannot make the embedded SQLite in {data_dir}: {error.strerror}"
        return Check(name, "fault", detail, "set TALLYHOOK_DATA_DIR to a directory that can be written to")
    return Check(name, "ok", "embedded SQLite; the first command makes it")


def _read_only(reason: str, url: str) -> tuple[str, str]:
    """(what is wrong, what to do about it)."""
    if reason == STANDBY:
        remedy = (
            "name the primary in DATABASE_URL, or all hosts with target_session_attrs=read-write; or promote "
            "this one"
        )
        return f"{url} is a standby (pg_is_in_recovery), which takes no writes", remedy
    remedy = (
        "reset it where it was set: ALTER DATABASE, ALTER ROLE or the server's own settings; a service that "
        "sets it by itself wants room on its disk first"
    )
    return f"{url} takes no writes: every transaction begins read-only ({reason})", remedy


def _check_data_dir(name: str, settings: Settings) -> Check:
    try:
        refuse_folder(settings.data_dir, str(settings.data_dir.absolute()))
    except ValueError as error:
        return Check(
            name, "fault", str(error).partition(": ")[0], "set TALLYHOOK_DATA_DIR to another directory"
        )
    return _check_place(name, settings.data_dir.absolute())


async def check_upgrade(settings: Settings) -> list[Check]:
    """Whether the database waits for the second half of an upgrade, or lacks partitions; else nothing."""
    if not (settings.database_url or (settings.data_dir / "tallyhook.db").exists()):
        return []
    try:
        store = await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)
        try:
            if not is_migrated(await answered(store.queries.schema_revision(), settings)):
                return []
            due = [step.name for step in await answered(steps_due(store.db), settings)]
            now = await answered(store.health.database_ms(), settings)
            state = await answered(store.partitions.partition_state(now), settings)
            grown = await answered(store.pruning.grown_since(now - DAY_MS), settings)
        finally:
            await store.close()
    except UserError:  # reported by the check of the database
        return []
    remedy = "run, when no process of the version before is left: tallyhook migrate --finish"
    found = [Check("upgrade", "warning", f"to be finished: {'; '.join(due)}", remedy)] if due else []
    return found + check_partitions(state) + [check_retention(settings.keep_days(), *grown)]


def check_retention(policy: Mapping[str, int], rows: int, body_bytes: int) -> Check:
    """What a day adds, and what takes it away again."""
    grown = f"the last day added {counted(rows, 'delivery', 'deliveries')}, {body_bytes / 1e6:,.1f} MB"
    if policy:
        kept = ", ".join(f"{kind} are kept for {counted(days, 'day')}" for kind, days in policy.items())
        return Check("retention", "ok", f"{grown}; {kept}")
    return Check("retention", "ok", f"{grown}; nothing is pruned: TALLYHOOK_KEEP_BODIES_DAYS is not set")


FIRST_DAYS = ("today", "tomorrow", "the day after tomorrow")
"""Days that should have their partition by now; a worker makes a week's."""


def check_partitions(state: PartitionState | None) -> list[Check]:
    """Nothing is lost without them: DEFAULT takes what has none, and is slow to be rid of again."""
    if state is None:
        return []
    faults = []
    if state.days_ahead + 1 < len(FIRST_DAYS):
        faults.append(f"{FIRST_DAYS[state.days_ahead + 1]} has none")
    if state.has_rows_in_default:
        faults.append("DEFAULT holds deliveries of days that have none")
    if not faults:
        return []
    remedy = "run tallyhook migrate, which makes them; a worker that runs does so days ahead"
    return [Check("partitions", "warning", "; ".join(faults), remedy)]


async def check_inbox(settings: Settings) -> list[Check]:
    """Deliveries that wait for a person, or that something holds up; no line where there are none."""
    if not (settings.database_url or (settings.data_dir / "tallyhook.db").exists()):
        return []
    try:
        store = await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)
        try:
            count = await answered(store.set_aside.set_aside_count(), settings)
            waiting = [
                row
                for row in await answered(store.set_aside.list_inbox(INBOX_SHOWN), settings)
                if row.state == "new"
            ]
        finally:
            await store.close()
    except UserError:
        return []
    parts = [f"{count} set aside"] if count else []
    parts += [f"{len(waiting)} held up: {waiting[0].error}"] if waiting else []
    remedy = "tallyhook inbox list says why; tallyhook inbox retry has them looked at again"
    return [Check("inbox", "warning", "; ".join(parts), remedy)] if parts else []


async def check_worker(settings: Settings) -> list[Check]:
    """Whether one runs; that none does is a fault where something waits for it."""
    if not (settings.database_url or (settings.data_dir / "tallyhook.db").exists()):
        return []
    try:
        store = await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)
        try:
            if not is_migrated(await answered(store.queries.schema_revision(), settings)):
                return []
            worker = await answered(workers_document(store), settings)
            now = await answered(store.health.database_ms(), settings)
            waiting = await answered(store.queries.waiting_count(), settings)
            due = await answered(store.queries.accounts_with_due(now), settings)
        finally:
            await store.close()
    except UserError:  # reported by the check of the database
        return []
    if worker["running"]:
        return [Check("worker", "ok", worker["message"])]
    detail, remedy = (worker["message"], f"{START_WORKER}; until then nothing is sent")
    if not (due or waiting):
        return [Check("worker", "warning", detail, remedy)]
    waits = [f"prompts of {len(due)} accounts" if len(due) > 1 else "prompts"] if due else []
    waits += [counted(waiting, "delivery", "deliveries")] if waiting else []
    return [Check("worker", "fault", f"{detail}, and {' and '.join(waits)} wait for one", remedy)]


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
                f"real provider set CLORO_API_KEY{_in_which_file()}"
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


def _way_remedy(error: BaseException) -> str:
    """Where the way there is at fault: a certificate that nobody knows, a proxy."""
    kind = error.__cause__ or error
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

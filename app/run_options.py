"""The options with which a file becomes a run: as given to `submit`, and stored with a schedule. Shared by
the command line and the workers; draws and prints nothing."""

import json
import re
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation

from app.config import DEFAULT_ACCOUNT, Settings
from app.domain.credits import ACCOUNT_CREDITS_MAX
from app.domain.relay.message import NewEndpoint, new_secret
from app.domain.text import sanitize
from app.domain.time_format import DurationError, parse_duration
from app.errors import USAGE, UserError
from app.prompts.reader import Defaults, Reading, split_include
from app.services.load import Duplicates, NewRun

NAME_CHARS_MAX = 200
"""Longer than any name that a person gives, and short enough for a table."""
DECIMALS_MAX = 6
NUMBER = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")
RESERVED = ("latest", "all", "none", "run", "-")
"""Words that stand for runs, or for none or any, where a command takes a run."""
RESERVED_NAMES = frozenset(RESERVED)
UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
BATCH_MAX = 500
"""Tasks that the provider takes in one call (C-G.3)."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options as text, unchecked; empty: not given."""

    task_type: str = ""
    country: str = ""
    priority: int = 1
    include: tuple[str, ...] = ()
    budget: str = ""
    strict: bool = False
    account: str = DEFAULT_ACCOUNT
    batch: int | None = None
    reuse_within: str = ""
    duplicates: str = Duplicates.KEEP
    encoding: str = ""
    delimiter: str = ""
    repeats: int = 1
    pause_failing_engines: bool = False
    webhook_url: str = ""
    """Of a schedule: where the results of its runs are posted to."""

    def defaults(self) -> Defaults:
        """For records whose own cells are blank."""
        return Defaults(
            task_type=self.task_type or None,
            country=self.country or None,
            priority=self.priority,
            include=tuple(part for text in self.include for part in split_include(text)),
            repeats=self.repeats,
        )

    def reading(self) -> Reading:
        """What is said about the bytes of the file."""
        return Reading(self.encoding or None, self.delimiter or None)

    def new_run(self, name: str, source: str) -> NewRun:
        """The run that these options make. Raises UserError for one that cannot be used."""
        if self.duplicates not in tuple(Duplicates):
            raise _bad("--duplicates", self.duplicates, f"use one of {', '.join(Duplicates)}")
        if self.batch is not None and not 1 <= self.batch <= BATCH_MAX:
            raise _bad("--batch", str(self.batch), f"use 1 to {BATCH_MAX}")
        return NewRun(
            name,
            source,
            budget=parse_budget(self.budget),
            strict=self.strict,
            account=self.account,
            batch_size=self.batch,
            reuse_within_ms=duration_option("--reuse-within", self.reuse_within),
            duplicates=Duplicates(self.duplicates),
            pause_failing_engines=self.pause_failing_engines,
            push_to=NewEndpoint(self.webhook_url, new_secret()) if self.webhook_url else None,
        )

    def to_json(self) -> str:
        """What differs from the defaults, as it is kept with a schedule."""
        plain = RunOptions()
        return json.dumps({k: v for k, v in asdict(self).items() if v != getattr(plain, k)})

    @classmethod
    def from_json(cls, text: str) -> "RunOptions":
        """The options of a schedule; ones that this version does not know are left out."""
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in json.loads(text).items() if name in known}
        if "include" in kept:
            kept["include"] = tuple(kept["include"])
        return cls(**kept)


def refuse_unknown_account(settings: Settings, account: str) -> None:
    """Raises UserError for an account whose key is not configured."""
    known = settings.all_accounts()
    if account not in known:
        raise UserError(
            "unknown_account",
            f"there is no account {account!r}",
            f"use one of {', '.join(known)}, or add its key to TALLYHOOK_ACCOUNTS",
            exit_code=USAGE,
        )


def parse_budget(text: str) -> Decimal | None:
    """Credits; None for an empty text. Raises UserError."""
    if not text:
        return None
    try:
        # Decimal also takes 1_000 and the digits of other scripts, which nobody means.
        budget = Decimal(text if NUMBER.fullmatch(text) else "nan")
    except InvalidOperation:
        budget = Decimal("nan")
    if not budget.is_finite() or budget <= 0:
        raise _bad("--budget", text, "write a number of credits above 0, such as 5000")
    if budget > ACCOUNT_CREDITS_MAX:
        raise _bad("--budget", text, f"use {ACCOUNT_CREDITS_MAX:,} at most; without it there is no limit")
    if -int(budget.as_tuple().exponent) > DECIMALS_MAX:
        raise _bad("--budget", text, f"use {DECIMALS_MAX} decimals at most")
    return budget


def refuse_unusable_name(option: str, name: str) -> None:
    """Raises UserError for a name that cannot be shown, or be given to another command."""
    if not name.strip():
        raise UserError("bad_option", f"{option} is empty", "give a name, or leave it out", exit_code=USAGE)
    if sanitize(name) != name or not name.isprintable():
        raise _bad(option, sanitize(name)[:NAME_CHARS_MAX], "use letters, digits and what can be seen")
    if name != name.strip():
        raise _bad(option, repr(name), "leave out the blanks around it")
    if len(name) > NAME_CHARS_MAX:
        raise _bad(option, f"of {len(name):,} characters", f"use {NAME_CHARS_MAX} at most")
    if name.lower() in RESERVED_NAMES:
        raise _bad(option, name, f"commands mean something else by it; so they do by {', '.join(RESERVED)}")
    if name.startswith("-") or UUID.fullmatch(name):
        raise _bad(option, name, "commands would take it for an option, or for the id of a run")


def refuse_not_utf8(path: str) -> None:
    """Raises UserError for a path that the database cannot hold, which is text."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        text = f"the name of {sanitize(path)} is not UTF-8"
        remedy = "rename it, or give it on standard input: tallyhook submit - <FILE"
        raise UserError("bad_option", text, remedy, exit_code=USAGE) from error


def duration_option(name: str, text: str) -> int | None:
    """Milliseconds; None for an empty text. Raises UserError that names the option."""
    if not text:
        return None
    try:
        return parse_duration(text)
    except DurationError as error:
        what, _, remedy = str(error).partition("; ")
        raise UserError("bad_option", f"{name}: {what}", remedy, exit_code=USAGE) from error


def _bad(name: str, value: str, remedy: str) -> UserError:
    return UserError("bad_option", f"{name} {value[:80]} cannot be used", remedy, exit_code=USAGE)

"""The options with which a file becomes a run: as they are given to `submit`, and kept with a schedule."""

import json
from dataclasses import asdict, dataclass, fields
from decimal import Decimal, InvalidOperation

from app.commands.user_error import USAGE, UserError
from app.config import DEFAULT_ACCOUNT, Settings
from app.domain.duration import DurationError, parse_duration
from app.promptfile import Defaults, split_include
from app.services.load import Duplicates, NewRun

BATCH_MAX = 500
"""Tasks that the provider takes in one call (C-G.3)."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a person gave, as text; empty: not given."""

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

    def defaults(self) -> Defaults:
        """For records whose own cells are blank."""
        return Defaults(
            task_type=self.task_type or None,
            country=self.country or None,
            priority=self.priority,
            include=tuple(part for text in self.include for part in split_include(text)),
        )

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
            "unknown_account", f"there is no account {account!r}",
            f"use one of {', '.join(known)}, or add its key to TALLYHOOK_ACCOUNTS", exit_code=USAGE,
        )  # fmt: skip


def parse_budget(text: str) -> Decimal | None:
    """Credits; None for an empty text. Raises UserError."""
    if not text:
        return None
    try:
        budget = Decimal(text)
    except InvalidOperation:
        budget = Decimal(-1)
    if not budget.is_finite() or budget <= 0 or -int(budget.as_tuple().exponent) > 6:
        raise UserError("bad_option", f"--budget {text} is not a number of credits above 0", exit_code=USAGE)
    return budget


def duration_option(name: str, text: str) -> int | None:
    """Milliseconds; None for an empty text. Raises UserError that names the option."""
    if not text:
        return None
    try:
        return parse_duration(text)
    except DurationError as error:
        raise UserError("bad_option", f"{name}: {error}", exit_code=USAGE) from error


def _bad(name: str, value: str, remedy: str) -> UserError:
    return UserError("bad_option", f"{name} {value} cannot be used", remedy, exit_code=USAGE)

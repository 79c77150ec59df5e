"""What the doctor says of an account's balance, and of what happens while nobody tells it."""

from app.bootstrap import now_ms, open_provider
from app.cli.doctor.check import Check
from app.config import Settings
from app.domain.credits import to_json_number
from app.domain.text import counted
from app.ports import BalanceEnd


async def check_balance(settings: Settings) -> list[Check]:
    """Whether the provider tells it, of the default account. Nothing is said where it refuses the key, which
    the check of the provider says."""
    name = "balance"
    async with open_provider(settings) as provider:
        answer = await provider.balance(now_ms())
    if answer.end is BalanceEnd.REFUSED:
        return []
    if answer.end is BalanceEnd.ABSENT:
        detail = "this edition does not tell it; runs pause when it says that there are no credits"
        return [Check(name, "ok", detail)]
    if answer.balance is not None:
        return [
            Check(
                name,
                "ok",
                f"{counted(to_json_number(answer.balance.remaining), 'credit')}; {_policy(settings)}",
            )
        ]
    remedy = "look at what stands between here and the provider, and at its status page"
    return [Check(name, "warning", f"nobody tells it ({answer.why}); {_policy(settings)}", remedy)]


def _policy(settings: Settings) -> str:
    if settings.balance_unknown == "send":
        return "while it is unknown, it is not looked at (TALLYHOOK_BALANCE_UNKNOWN=send)"
    return (
        f"while it is unknown, the last one counts for {settings.balance_age_max_s:g} s, and then nothing is "
        "sent (TALLYHOOK_BALANCE_UNKNOWN=wait)"
    )

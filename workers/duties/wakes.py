"""Sees to it that what is due is sent, by the rows alone and in every worker: that the queue took a wake does
not mean that a worker acts on it.
"""

from workers.context import Context
from workers.periodic import run_every
from workers.sending import start_sending


async def run_wakes(context: Context) -> None:
    """Look every few seconds until `context.stopping`."""
    due_before: set[str] = set()

    async def look() -> int:
        nonlocal due_before
        due_before = await wake_senders(context, due_before)
        return len(due_before)

    await run_every(
        look,
        name="wakes",
        every_s=context.settings.sweep_every_s,
        stopping=context.stopping,
        watch=context.signals,
    )


async def wake_senders(context: Context, due_before: set[str]) -> set[str]:
    """Wake senders if accounts have something due, and return those accounts. Where the queue does not take
    the wake, or an account was due before already, this process sends: a lease keeps out who is not needed.
    """
    due = set(await context.store.queries.accounts_with_due(context.clock())) & context.providers.keys()
    if due and (not await context.queue.wake_submit() or due & due_before):
        start_sending(context)
    return due

"""The command archive: days that are over go out to object storage, now."""

from typing import TYPE_CHECKING, Any

from app.cli.options import AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.config import Settings
    from app.services.archive import ArchivedDay
    from app.store import Store


def archive(as_json: AsJson = False) -> None:
    """Store the bodies of days that are over in TALLYHOOK_ARCHIVE_URL.

    Each block of some 64 MB is read back and compared before it counts. Nothing is deleted: prune does that,
    and only what is archived. A worker does the same by itself; killed anywhere, the next call goes on.
    """
    from app.cli.terminal import show

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        show(await archived(store, settings), as_json=as_json, draw=draw_archived)

    with_store(settings, work)


async def archived(store: "Store", settings: "Settings") -> dict[str, Any]:
    """Archive all that is due; the document. Raises UserError."""
    from app.bootstrap import now_ms, open_archive
    from app.domain.time_format import DAY_MS
    from app.services.archive import archive_days

    place = open_archive(settings)
    if place is None:
        raise UserError(
            "no_archive",
            "no archive is set",
            "set TALLYHOOK_ARCHIVE_URL to a folder or to s3://BUCKET/PREFIX",
        )
    until_ms = now_ms() - settings.archive_after_days * DAY_MS
    days = [
        _day_document(day)
        async for day in archive_days(store, place, until_ms=until_ms, days_max=DAYS_MAX, clock=now_ms)
    ]
    return {"archive": place.display, "after_days": settings.archive_after_days, "days": days}


DAYS_MAX = 3_660
"""Ten years."""


def _day_document(day: "ArchivedDay") -> dict[str, Any]:
    from app.domain.time_format import iso_utc

    return {
        "day": iso_utc(day.day_ms)[:10],
        "deliveries": day.deliveries,
        "blocks": day.blocks,
        "body_bytes": day.body_bytes,
        "block_bytes": day.block_bytes,
        "left_out": day.left_out,
        "unreadable": len(day.unreadable),
    }


def draw_archived(console: "Console", document: dict[str, Any]) -> None:
    """A line for each day."""
    from app.cli.tables import FittingTable
    from app.domain.text import counted

    if not document["days"]:
        after = document["after_days"]
        console.print(
            f"Nothing to archive: what may go is in {document['archive']}. A day goes when it is over for "
            f"{after} {'day' if after == 1 else 'days'}."
        )
        return
    table = FittingTable("day", box=None, pad_edge=False)
    for name in ("deliveries", "blocks", "bytes received", "bytes archived", "left out"):
        table.add_column(name, justify="right")
    for day in document["days"]:
        sizes = (f"{day[name]:,}" for name in ("body_bytes", "block_bytes"))
        table.add_row(
            day["day"], f"{day['deliveries']:,}", f"{day['blocks']:,}", *sizes, f"{day['left_out']:,}"
        )
    console.print(table)
    left = any(day["left_out"] for day in document["days"])
    rest = " What is left out is not settled yet, and follows." if left else ""
    console.print(f"Archived in {document['archive']}.{rest}")
    if damaged := sum(day["unreadable"] for day in document["days"]):
        console.print(
            f"{counted(damaged, 'body', 'bodies')} left out cannot be unpacked any more: damaged in the "
            "database. tallyhook verify names what is concerned."
        )


ARCHIVE_EXAMPLES = examples(
    "TALLYHOOK_ARCHIVE_URL=s3://bodies/tallyhook tallyhook archive", "tallyhook archive --json | jq .days"
)

"""A schedule as a JSON document."""

import json
from typing import Any

from app.domain.time_format import display_duration, iso_utc
from app.relay_options import url_without_query
from app.store.read.set_aside import DEFAULT_ACCOUNT
from app.store.write.schedules import ScheduleRow
from app.views.runs import Document


def account_of(options: Any) -> str:
    """Whose credits a schedule spends, by its options as the document has them; empty: they are not ours."""
    account = options.get("account", DEFAULT_ACCOUNT) if isinstance(options, dict) else ""
    return str(account)


def schedule_document(row: ScheduleRow) -> Document:
    """A schedule as its row says; times in ISO 8601, UTC."""
    try:
        options = json.loads(row.options)
        if isinstance(options, dict) and "webhook_url" in options:
            options["webhook_url"] = url_without_query(options["webhook_url"])
    except ValueError:
        options = row.options  # not ours; the others are listed all the same
    return {
        "id": row.id,
        "name": row.name,
        "source": row.source,
        "every": display_duration(row.every_ms),
        "state": "enabled" if row.enabled else "paused",
        "next_at": iso_utc(row.next_at_ms),
        "options": options,
        "last_error": row.last_error,
    }

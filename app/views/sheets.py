"""All that is known of an account, as one JSON document: where it stands in its cycle, its audit, what lies
ahead. What takes long to add up is read here once, by whoever audits, and kept for the page.
"""

import json
from collections.abc import Mapping

from app.services.audit import Audited
from app.services.forecast import SlotsOf, look_ahead
from app.store import Store
from app.store.write.account_sheets import AccountSheet
from app.views.accounts import audit_document, plan_document
from app.views.forecast import forecast_document

BURN_HOURS = 24
INTERVALS_MAX = 50
"""Of an audit: the newest, and of these only those in which something moved."""


async def make_sheet(
    store: Store, found: Audited, *, provider: SlotsOf | None, rate_per_s: float | None
) -> AccountSheet:
    """The sheet of an account that was just audited. `provider` is asked for its slots."""
    account, now_ms = found.account, found.at_ms
    seen = await look_ahead(store, account, provider=provider, rate_per_s=rate_per_s, now_ms=now_ms)
    document = {"plan": None, "audit": _audit(found), "forecast": forecast_document(seen, None)}
    if found.position is not None:
        burned = await store.charges.burn(account, now_ms - BURN_HOURS * 3_600_000)
        balance = await store.audits.last_snapshot(account, now_ms)
        document["plan"] = plan_document(
            found.position, balance, burned, burn_hours=BURN_HOURS, now_ms=now_ms
        )
    return AccountSheet(account, now_ms, json.dumps(document))


def _audit(found: Audited) -> Mapping[str, object]:
    document = audit_document(found)
    moved = [i for i in document["intervals"] if i["actual"] or i["ours_lowest"] or i["unexplained"]]
    return document | {"intervals": moved[-INTERVALS_MAX:], "intervals_seen": len(document["intervals"])}

"""A certificate: what a run's books say of it, whether it is complete, and hashes of all. Reads only."""

from typing import TYPE_CHECKING

from app.domain.evidence.certificate import Document
from app.domain.evidence.completeness import certify as make_certificate
from app.ports import Clock

if TYPE_CHECKING:
    from app.store import Store


async def certify(store: "Store", run_id: str, *, clock: Clock) -> Document:
    """The certificate of a run as it is now."""
    totals, facts = await store.certificates.total_run(run_id)
    return make_certificate(totals, facts, clock())

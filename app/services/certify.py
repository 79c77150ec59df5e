"""A certificate: what a run's books say of it, whether it is complete, and hashes of all. Reads only."""

from typing import Protocol

from app.domain.evidence.certificate import Document, RunFacts, RunTotals
from app.domain.evidence.completeness import certify as make_certificate
from app.ports import Clock


class CertifyStore(Protocol):
    """What certifying needs of the store."""

    async def tally_run(self, run_id: str) -> tuple[RunTotals, RunFacts]: ...


async def certify(store: CertifyStore, run_id: str, *, clock: Clock) -> Document:
    """The certificate of a run as it stands at this moment."""
    tally, facts = await store.tally_run(run_id)
    return make_certificate(tally, facts, clock())

"""The report and the certificate of a run, as the commands of these names make them."""

from app.api.native.certificate_model import Certificate
from app.api.native.report_model import RunReport
from app.api.native.runs import RunParams
from app.api.native.visible import visible_run
from app.api.route import Call, Route
from app.domain.access import Scope
from app.services.certify import certify
from app.views.report import full_report_document

FINDINGS = 100


async def get_report(call: Call[RunParams, None]) -> RunReport:
    """The books of a run."""
    timed = await visible_run(call, call.params.run_id)
    least = call.parts.settings.usable_chars_min
    full = await call.reads.reports.full_report(timed.run, FINDINGS, least)
    return RunReport.model_validate(full_report_document(full, least))


async def get_certificate(call: Call[RunParams, None]) -> Certificate:
    """What a run comes to, with hashes."""
    timed = await visible_run(call, call.params.run_id)
    return Certificate.model_validate(await certify(call.store, timed.run.id, clock=call.parts.clock))


ROUTES = (
    Route(
        "GET",
        "/v1/runs/{run_id}/report",
        get_report,
        "Show the books of a run: what its credits bought, by engine, country and day",
        {200: RunReport},
        scope=Scope.READ,
        group="evidence",
        params=RunParams,
        is_long=True,
    ),
    Route(
        "GET",
        "/v1/certificates/{run_id}",
        get_certificate,
        "Certify a run: inputs, ends, sums and hashes",
        {200: Certificate},
        scope=Scope.READ,
        group="evidence",
        params=RunParams,
        is_long=True,
        of_the_moment={"made_at": True},
    ),
)

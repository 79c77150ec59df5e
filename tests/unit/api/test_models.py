"""What the API says of documents that are made elsewhere: every field of theirs, no float for credits."""

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from app.api.native.certificate_model import Certificate, CertifiedEnds
from app.api.native.report_model import ReportVerdicts, RunReport
from app.api.native.results import SEQ_MAX, ResultsParams
from app.api.openapi import openapi_document
from app.api.table import ROUTES
from app.domain.evidence.certificate import RunFacts, RunTotals
from app.domain.evidence.completeness import certify
from app.domain.task import TaskState
from app.domain.verdicts import Verdict

NOW_MS = 1_800_000_000_000


def test_a_certificate_is_given_as_it_is() -> None:
    totals = RunTotals(ends=Counter(completed=2), verdicts=Counter(matched=2), sums={"post": Decimal("7.5")})
    totals.unknown = 1
    facts: dict[str, Any] = {"source_sha256": None, "state": "finished", "bad_lines": 0, "begun_ms": NOW_MS}
    names: dict[str, Any] = {
        "id": "01a0f4c2-c400-7751-88ed-3c56269c1082",
        "name": "r",
        "account": "default",
        "source": "-",
    }
    for pruned_ms in (None, NOW_MS):
        run = RunFacts(**names, **facts, findings={"unknown": 1}, entries=2, pruned_at_ms=pruned_ms)
        document = certify(totals, run, NOW_MS)
        assert json.loads(Certificate.model_validate(document).model_dump_json()) == document
        assert ("pruned" in document) == (pruned_ms is not None)


def test_states_and_verdicts_are_all_there() -> None:
    assert set(ReportVerdicts.model_fields) == set(Verdict)
    assert set(CertifiedEnds.model_fields) == set(TaskState)
    assert set(TaskState) <= set(RunReport.model_fields)


def test_the_document_says_what_every_field_is() -> None:
    """Bounds are in the words of JSON Schema, and no answer of ours may have fields that it does not name."""
    schemas = openapi_document(ROUTES)["components"]["schemas"]
    found = Counter(key for schema in schemas.values() for key in _keys(schema))
    assert not {"ge", "le", "gt", "lt"} & set(found)
    assert schemas["NewRunBody"]["properties"]["batch"]["anyOf"][0]["maximum"] == 500
    for name in ("RunReport", "Certificate", "AccountForecast"):
        assert schemas[name]["additionalProperties"] is False
        assert "number" not in _kinds_of_credits(name, schemas)


def _keys(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [key for each in schema for key in _keys(each)]
    if not isinstance(schema, dict):
        return []
    return [*schema, *(key for each in schema.values() for key in _keys(each))]


def _kinds_of_credits(name: str, schemas: dict[str, Any]) -> str:
    """Types of all fields that may be credits: everything but the rates of tasks."""
    fields = schemas[name]["properties"]
    return json.dumps([field for key, field in fields.items() if key != "tasks_per_hour"])


def test_a_stream_goes_on_behind_any_number_that_its_bounds_allow() -> None:
    run_id = "01a0f4c2-c400-7751-88ed-3c56269c1082"
    asked = ResultsParams.model_validate({"run_id": run_id, "after": str(SEQ_MAX)})
    assert asked.after == SEQ_MAX
    with pytest.raises(ValidationError):
        ResultsParams.model_validate({"run_id": run_id, "after": str(SEQ_MAX + 1)})

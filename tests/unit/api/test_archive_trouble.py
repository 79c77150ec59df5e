"""What the API says when an answer is archived and the archive does not give it."""

import pytest
import structlog

from app.api.dispatch import problem_of
from app.ports import BlockDamaged, ObjectsRefused, ObjectsUnavailable


@pytest.mark.parametrize(
    "error", [ObjectsUnavailable("503"), ObjectsRefused("s3://b: no", "see to it"), BlockDamaged("cut off")]
)
def test_an_archive_that_does_not_answer_is_no_fault_of_the_service(error: Exception) -> None:
    with structlog.testing.capture_logs() as lines:
        problem = problem_of(error)
    assert problem.kind.status == 503
    assert "archive" in str(problem.detail) and "s3://" not in str(problem.detail)
    assert [(line["event"], line["log_level"]) for line in lines] == [("api_archive_unavailable", "warning")]

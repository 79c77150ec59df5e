"""What is said of a body that is not as its model: where it is wrong, and what to write instead."""

import json
from typing import Any

import pytest

from app.api.dialects.batch.models import BatchCreate
from app.api.mcp.prompts import NewRunFields
from app.api.native.bulk_changes import ConfirmBody, NewBulkChange
from app.api.native.control import RetryBody
from app.api.native.new_run import NewRunBody
from app.api.problems import Problem
from app.api.validate import parsed, read_values

PROMPTS = {"prompts": ["a"]}
BATCH = {"input_file_id": "f", "endpoint": "/v1/monitor/gemini", "completion_window": "24h"}


def faults(model: Any, given: Any) -> list[tuple[str | None, str, str]]:
    """Field, code and remedy of each."""
    with pytest.raises(Problem) as caught:
        parsed(model, json.dumps(given).encode())
    return [(error.field, error.code, error.remedy) for error in caught.value.errors]


@pytest.mark.parametrize(
    ("model", "given", "field", "code", "remedy"),
    [
        (NewRunBody, {"prompts": ["x", 1.5]}, "prompts.1", "string_type", "write a string or an object"),
        (NewRunBody, {"prompts": []}, "prompts", "too_short", "give 1 or more"),
        (NewRunBody, {}, "prompts", "missing", "add it, it is needed"),
        (NewRunBody, [], None, "model_type", "write an object"),
        (NewRunBody, PROMPTS | {"priority": 11}, "priority", "less_than_equal", "write 10 or less"),
        (
            NewRunBody,
            PROMPTS | {"duplicates": "x"},
            "duplicates",
            "literal_error",
            "use 'keep', 'merge' or 'error'",
        ),
        (
            NewRunBody,
            PROMPTS | {"name": "x" * 201},
            "name",
            "string_too_long",
            "shorten it to 200 characters",
        ),
        (RetryBody, {"states": ["completed"]}, "states.0", "literal_error", ""),
        (RetryBody, {"states": []}, "states", "too_short", "give 1 or more"),
        (NewBulkChange, {"verb": "pause", "filter": {"state": "x"}}, "filter.state", "literal_error", ""),
        (NewBulkChange, {"verb": "pause", "filter": {"colour": 1}}, "filter.colour", "unknown_field", ""),
        (BatchCreate, BATCH | {"metadata": {"k" * 65: ""}}, "metadata.(not a name)", "string_too_long", ""),
        (BatchCreate, BATCH | {"metadata": {"k": 5}}, "metadata.k", "string_type", "write a string"),
    ],
)
def test_a_fault_is_named_by_its_place_in_what_was_given(
    model: Any, given: Any, field: str | None, code: str, remedy: str
) -> None:
    ((where, what, said),) = faults(model, given)
    assert (where, what) == (field, code)
    assert said == remedy or (said and not remedy)


def test_of_a_value_that_may_be_of_several_kinds_its_own_is_judged() -> None:
    with pytest.raises(Problem) as caught:
        read_values(NewRunFields, {"prompts": [{"prompt": "x", "country": "no code"}]})
    assert [error.field for error in caught.value.errors] == ["prompts.0.country"]


@pytest.mark.parametrize("wrong", [{"priority": True}, {"priority": "1"}, {"strict": 1}, {"strict": "true"}])
def test_a_value_of_json_is_of_the_kind_that_its_schema_names(wrong: dict[str, Any]) -> None:
    assert [field for field, _, _ in faults(NewRunBody, PROMPTS | wrong)] == list(wrong)


def test_a_whole_number_of_json_may_have_a_point() -> None:
    assert parsed(NewRunBody, json.dumps(PROMPTS | {"priority": 5.0}).encode()).priority == 5


@pytest.mark.parametrize("credits", [1.5, True, "1e3", "0.0000001", "NaN", "-1"])
def test_credits_are_exact(credits: Any) -> None:
    ((field, _, remedy),) = faults(ConfirmBody, {"matched": 1, "credits": credits})
    assert field == "credits"
    assert remedy

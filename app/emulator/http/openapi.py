"""The OpenAPI document of what is served, built from the same tables that serve it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from app.emulator.checks.task_body import IDEMPOTENCY_CHARACTERS_MAX
from app.emulator.checks.validation import PROMPT_CHARACTERS_MAX
from app.emulator.data.editions import Edition
from app.emulator.data.engine_table import ENGINES, TASK_TYPES, Engine
from app.emulator.data.places import COUNTRIES_IN_ORDER, MODELS, STATES

Schema = dict[str, Any]

_REF = "#/components/schemas/"
_INTEGER: Schema = {"type": "integer"}
_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}


@cache
def document(edition: Edition) -> bytes:
    """OpenAPI 3.1 as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Provider emulator", "version": edition.name},
            "security": [{"key": []}],
            "paths": _paths(edition),
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": _schemas(edition),
            },
        }
    )


def _object(properties: Schema, required: tuple[str, ...] = (), *, closed: bool = False) -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if closed:
        schema["additionalProperties"] = False
    return schema


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _answers(edition: Edition, ok: Schema, *refusals: int) -> Schema:
    answers: Schema = {"200": {"description": "Success", "content": _json(ok)}}
    for status in (401, 429, 500, 503, *refusals):
        answers[str(status)] = {"description": "Refused", "content": _json({"$ref": f"{_REF}Error"})}
    return answers


def _paths(edition: Edition) -> Schema:
    invalid = edition.invalid_task_status
    paths: Schema = {
        "/v1/async/task": {
            "post": {
                "requestBody": {"required": True, "content": _json({"$ref": f"{_REF}TaskRequest"})},
                "responses": _answers(edition, {"$ref": f"{_REF}TaskCreated"}, invalid, 403, 409),
            }
        },
        "/v1/async/task/{taskId}": {
            "get": {
                "parameters": [
                    {"name": "taskId", "in": "path", "required": True, "schema": {"type": "string"}}
                ],
                "responses": _answers(edition, {"$ref": f"{_REF}TaskStatus"}, 404),
            }
        },
        "/v1/async/status": {"get": {"responses": _answers(edition, {"$ref": f"{_REF}QueueStatus"})}},
        "/v1/credits": {"get": {"responses": _answers(edition, {"$ref": f"{_REF}Credits"}, 404)}},
        "/v1/countries": {"get": _countries(edition)},
        "/v1/states": {"get": _states(edition)},
    }
    if edition.batch:
        items = {"type": "array", "items": {"$ref": f"{_REF}TaskRequest"}, "minItems": 1, "maxItems": 500}
        paths["/v1/async/task/batch"] = {
            "post": {
                "requestBody": {"required": True, "content": _json(items)},
                "responses": _answers(edition, {"$ref": f"{_REF}BatchCreated"}, invalid),
            }
        }
    if edition.clear_queue:
        paths["/v1/async/queue"] = {
            "delete": {"responses": _answers(edition, {"$ref": f"{_REF}QueueCleared"})}
        }
    if edition.goto:
        paths["/v1/monitor/google/goto"] = {"post": _goto(edition)}
    for task_type, engine in ENGINES.items():
        paths[f"/v1/monitor/{engine.path}"] = {"post": _monitor(edition, task_type)}
    paths["/v1/monitor/google-news"] = paths["/v1/monitor/google/news"]
    paths["/v1/tasks/{taskId}"] = paths["/v1/async/task/{taskId}"]
    if edition.run_endpoint:
        paths["/v1/task"] = paths["/v1/async/task"]
        for path in ("/v1/run", "/v1/monitor"):
            paths[path] = {"post": _monitor(edition, "Run")}
    return paths


def _monitor(edition: Edition, task_type: str) -> Schema:
    answers = _answers(edition, {"$ref": f"{_REF}Result"}, 400, 403, 499, *edition.extra_monitor_statuses)
    integer = {"schema": {"type": "string", "pattern": "^-?[0-9]+$"}}
    names = [f"{edition.concurrency_header}-{part}" for part in ("Limit", "Current", "Remaining")]
    names += ["X-Credits-Remaining", "X-Credits-Charged"]
    answers["200"]["headers"] = dict.fromkeys(names, integer)
    body = {"required": True, "content": _json({"$ref": f"{_REF}{task_type}"})}
    return {"requestBody": body, "responses": answers}


def _goto(edition: Edition) -> Schema:
    url = {"type": "string", "format": "uri", "pattern": "^https?://(www\\.)?google\\.com/(goto|url)\\?"}
    body = {"required": True, "content": _json(_object({"url": url}, ("url",), closed=True))}
    return {
        "requestBody": body,
        "responses": _answers(edition, _object({"url": _STRING}, ("url",)), 400, 502),
    }


def _countries(edition: Edition) -> Schema:
    models = [name for name in MODELS if name != "aioverview" or edition.aioverview_model]
    parameter = {"name": "model", "in": "query", "schema": {"enum": models}}
    codes = {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}$"}}
    return {"parameters": [parameter], "responses": _answers(edition, codes, 400, 404)}


def _states(edition: Edition) -> Schema:
    country = {"type": "string", "pattern": "^[A-Z]{2}$"}
    parameter = {"name": "country", "in": "query", "required": True, "schema": country}
    state = _object({"code": _STRING, "name": _STRING}, ("code", "name"))
    return {"parameters": [parameter], "responses": _answers(edition, {"type": "array", "items": state}, 400)}


def _error_schema(edition: Edition) -> Schema:
    if edition.string_errors:
        properties = {"success": {"const": False}, "error": _STRING, "retry_after": _INTEGER}
        return _object(properties, ("success", "error"))
    inner = _object(
        {"code": _STRING, "message": _STRING, "timestamp": {"type": "string", "format": "date-time"}},
        ("code", "message", "timestamp"),
    )
    return _object({"success": {"const": False}, "error": inner}, ("error",))


def _task_schemas(edition: Edition) -> Schema:
    task: Schema = {
        "id": {"type": "string", "format": "uuid"},
        "taskType": {"enum": list(TASK_TYPES)},
        "status": {"enum": ["QUEUED", "PROCESSING", "COMPLETED", "FAILED"]},
        "createdAt": {"type": "string", "format": "date-time"},
        "idempotencyKey": {"type": ["string", "null"]},
    }
    if edition.priority_in_task:
        task["priority"] = _INTEGER
    if edition.latency_in_task:
        task["latencyMs"] = {"type": ["integer", "null"]}
    credits = _object(
        {"creditsToCharge": _INTEGER, "creditsCharged": {"type": ["integer", "null"]}},
        ("creditsToCharge", "creditsCharged"),
    )
    head = {"task": _object(task, tuple(task), closed=True), "credits": credits}
    request = {
        "taskType": {"enum": list(TASK_TYPES)},
        "payload": {"type": "object"},
        "priority": {"type": "integer", "minimum": 1, "maximum": 10},
        "idempotencyKey": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_CHARACTERS_MAX},
        "webhook": _object({"url": {"type": "string", "format": "uri"}}, ("url",), closed=True),
    }
    variants = [
        {"properties": {"taskType": {"const": task_type}, "payload": {"$ref": f"{_REF}{task_type}"}}}
        for task_type in TASK_TYPES
    ]
    return {
        "TaskRequest": _object(request, ("taskType", "payload"), closed=True) | {"oneOf": variants},
        "TaskCreated": _object({"success": {"const": True}, **head}, ("success", "task", "credits")),
        "TaskStatus": _object({**head, "response": {"type": "object"}}, ("task", "credits")),
        "BatchCreated": _object(
            {
                "success": {"const": True},
                "summary": _object(dict.fromkeys(("total", "succeeded", "failed"), _INTEGER)),
                "results": {"type": "array", "items": {"type": "object"}},
            },
            ("success", "summary", "results"),
        ),
    }


def _schemas(edition: Edition) -> Schema:
    slots = _object({"used": _INTEGER, "max": _INTEGER}, ("used", "max"))
    status: Schema = {"queuedTasks": _INTEGER, "processingTasks": _INTEGER, "concurrency": slots}
    if edition.priority_breakdown:
        level = _object({"priority": _INTEGER, "count": _INTEGER}, ("priority", "count"))
        status["priorityBreakdown"] = {"type": "array", "items": level}
    credits: Mapping[str, Schema] = {
        "remaining": _INTEGER,
        "perCycle": {"type": ["integer", "null"]},
        "cycleResetsAt": {"type": ["string", "null"], "format": "date-time"},
    }
    schemas: Schema = {
        "Error": _error_schema(edition),
        "Result": _object({"success": {"const": True}, "result": {"type": "object"}}, ("success", "result")),
        "QueueStatus": _object(status, tuple(status)),
        "QueueCleared": _object({"success": {"const": True}, "cleared": _INTEGER}, ("success", "cleared")),
        "Credits": _object(dict(credits), tuple(credits)),
        **_task_schemas(edition),
    }
    for task_type, engine in ENGINES.items():
        schemas[task_type] = _payload(engine, edition)
    if edition.run_endpoint:
        models = {"enum": [engine.path for engine in ENGINES.values()]}
        schemas["Run"] = _object({"model": models})
    return schemas


def _payload(engine: Engine, edition: Edition) -> Schema:
    text = {"type": "string", "minLength": 1, "maxLength": PROMPT_CHARACTERS_MAX}
    properties: Schema = {
        engine.subject: text | ({"pattern": "\\S"} if engine.url else {}),
        "country": {"enum": list(COUNTRIES_IN_ORDER)},
        "include": _object(dict.fromkeys(sorted(engine.taken_include), _BOOLEAN), closed=True),
    }
    properties |= dict.fromkeys(sorted(engine.flags), _BOOLEAN)
    if engine.devices:
        properties["device"] = {"enum": list(engine.devices)}
    if engine.paged:
        properties["pages"] = {"type": "integer", "minimum": 1, "maximum": edition.pages_max}
    if engine.google_family:
        properties["hl"] = {"type": "string", "minLength": 1}
        properties["gl"] = {"type": "string", "pattern": "^[A-Za-z]{2}$"}
    if engine.located:
        properties |= {
            "location": {"type": "string", "minLength": 1},
            "uule": {"type": "string", "minLength": 1},
        }
    for name in sorted(engine.sent_texts):
        properties[name] = {"type": "string", "minLength": 1}
    if engine.url:
        properties["url"] = {"type": "string", "format": "uri"}
    if engine.state and edition.state:
        properties["state"] = {"enum": sorted(STATES)}
    required = () if engine.url else (engine.subject,)
    if edition.default_country is None and not engine.google_family:
        required = (*required, "country")
    return _object(properties, required, closed=True)

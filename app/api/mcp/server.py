"""The protocol: tools listed and called, by the official package. Imported late, for that takes a second.

What went wrong an agent reads as the result of its call, with field and remedy, so that it can correct it.
"""

import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any

import structlog
from aiohttp import web
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool
from pydantic import BaseModel

from app.api.mcp.asking import Asking, Perform
from app.api.mcp.bridge import call_asgi
from app.api.mcp.table import TOOLS
from app.api.mcp.tool import Tool
from app.api.problems import INTERNAL, NOT_FOUND, UNAVAILABLE, Problem
from app.domain.access import Scope
from app.ports import StoreUnavailable

log = structlog.get_logger(__name__)
# It may quote what agents send, which holds prompts; what matters of a call is logged here.
logging.getLogger("mcp").setLevel(logging.CRITICAL)

ASKING = "tallyhook.asking"
INSTRUCTIONS = (
    "Tallyhook sends batches of prompts to AI engines and search through one account, and accounts for every "
    "credit. To ask something: estimate_run, then create_run with max_credits, then watch_run until it is "
    "finished, then run_report and get_results. Credits cost money: never raise max_credits without asking "
    "the person. Ids are UUIDs, as tools give them."
)
_TOOLS = {tool.name: (tool, tool.route) for tool in TOOLS}


def agent_server(perform: Perform, asking_of: Callable[[Any], Asking]) -> Server[Any]:
    """The server of all tools. `asking_of`: whose a request is, from what its transport attached to it."""

    async def list_tools(context: Any, _params: PaginatedRequestParams | None) -> ListToolsResult:
        scope = asking_of(context.request).caller.scope
        return ListToolsResult(tools=[listed(tool) for tool in TOOLS if scope.includes(tool.scope)])

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        asking = asking_of(context.request)
        with structlog.contextvars.bound_contextvars(request_id=asking.request_id):
            return await _called(perform, asking, params)

    return Server(
        "tallyhook",
        version=version("tallyhook"),
        title="Tallyhook",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


@functools.cache
def listed(tool: Tool) -> ListedTool:
    """A tool as it is listed."""
    reads = tool.scope is Scope.READ
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.params.model_json_schema(),
        output_schema=tool.result.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=reads,
            # Nothing is ever deleted; what is spent is spent once.
            destructive_hint=False if reads else tool.action is not None,
            idempotent_hint=tool.is_idempotent,
            open_world_hint=not reads,
        ),
    )


async def _called(perform: Perform, asking: Asking, params: CallToolRequestParams) -> CallToolResult:
    tool, route = _TOOLS.get(params.name, (None, None))
    try:
        if tool is None or route is None:
            known = ", ".join(_TOOLS)
            raise Problem(NOT_FOUND, f"there is no tool of this name: use one of {known}")
        values = dict(params.arguments or {})
        result = await perform(route, asking.caller, values, asking.request_id, is_gone=asking.is_gone)
    except Problem as problem:
        return _error(problem, asking.request_id)
    except StoreUnavailable as error:
        log.warning("api_store_unavailable", error=type(error).__name__)
        return _error(
            Problem(UNAVAILABLE, "the database does not answer: try again later"), asking.request_id
        )
    except Exception as error:
        log.exception("api_request_failed", error=type(error).__name__)
        bug = Problem(INTERNAL, "please report it with the request id; the log has the rest")
        return _error(bug, asking.request_id)
    log.info("agent_tool_called", tool=tool.name)
    return _result(result)


def _result(model: BaseModel) -> CallToolResult:
    text = model.model_dump_json()
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=json.loads(text))


def _error(problem: Problem, request_id: str) -> CallToolResult:
    lines = [f"{problem.kind.title} {problem.detail}"]
    lines += [f"- {error.field or 'all'}: {error.remedy} ({error.code})" for error in problem.errors]
    lines.append(f"code: {problem.kind.code}; request id: {request_id}")
    # An agent has the schema of the tool, and nothing else of ours.
    said = "\n".join(lines).replace("/openapi.json", "the tool's schema")
    return CallToolResult(content=[TextContent(type="text", text=said)], is_error=True)


class Running:
    """The server, ready to answer over HTTP."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def answer(self, request: web.Request, body: bytes, asking: Asking) -> web.Response:
        """One message. Whatever protocol version it speaks, it is answered on its own, by any process."""
        response = await call_asgi(self._manager.handle_request, request, body, {ASKING: asking})
        if response.status == 400 and isinstance(response.body, bytes):
            response.body = _without_what_was_sent(response.body)
        return response


def _without_what_was_sent(body: bytes) -> bytes:
    """The package tells what is no message with all that stands there, which may be a prompt: its first line
    says enough."""
    try:
        document = json.loads(body)
        document["error"]["message"] = document["error"]["message"].partition("\n")[0]
    except (ValueError, LookupError, TypeError):
        return body
    return json.dumps(document).encode()


@contextlib.asynccontextmanager
async def running(perform: Perform) -> AsyncIterator[Running]:
    """Ends in the task that began it."""
    manager = StreamableHTTPSessionManager(
        agent_server(perform, lambda request: request.scope[ASKING]),
        json_response=True,
        stateless=True,
        # Looked at before, by rules that know our names (app.api.mcp.hosts).
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    async with manager.run():
        yield Running(manager)

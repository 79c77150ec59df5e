"""All tools, in the order in which they are listed."""

from app.api.mcp import creating, results, retrying, runs
from app.api.mcp.tool import Tool

TOOLS: tuple[Tool, ...] = (*creating.TOOLS, *runs.TOOLS, *results.TOOLS, *retrying.TOOLS)

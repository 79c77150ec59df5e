"""A synchronous call and its answer as a JSON document; the figures are those of the books."""

from app.services.sync_call import SyncResult
from app.store.read.exports import Row
from app.store.read.runs import RunReport
from app.views.export_rows import row_document
from app.views.runs import Document, run_document


def sync_call_document(row: Row, report: RunReport, result: SyncResult, task_type: str) -> Document:
    """`row` and `report`: the one task of the call's run as it is exported, and the books of that run."""
    task, answer = row_document(row), result.answer
    return {
        "run": run_document(report.run),
        "task_id": result.task_id,
        "task_type": task_type,
        "state": task["state"],
        "verdict": task["verdict"],
        "calls": result.calls,
        "credits": {
            "estimate": task["credits_estimate"],
            "charged": task["credits_charged"],
            "unknown": bool(report.unknown),
        },
        "slots": {"limit": answer.slots, "used": answer.slots_used},
        "error": None
        if task["error_code"] is None
        else {"code": task["error_code"], "message": task["error_message"] or answer.message},
        "answer": task["response"] if task["state"] == "completed" else None,
    }

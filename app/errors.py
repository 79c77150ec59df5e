"""Mistakes and outages that a person can do something about: a sentence and its remedy, never a traceback.
Imports nothing of ours."""

from collections.abc import Sequence

FAILED = 1
USAGE = 2
STORED = 3
"""The request is stored, but something after it failed: not to be repeated."""
BUG = 70
INTERRUPTED = 130
INTERRUPTED_CODE = "interrupted"


class UserError(Exception):
    """Ends a command, or what else a person began. `code` is for programs, text and remedy are for people."""

    def __init__(
        self,
        code: str,
        message: str,
        remedy: str = "",
        *,
        details: Sequence[object] = (),
        exit_code: int = FAILED,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.details = list(details)
        """What to choose from, or what else was wrong; texts or JSON objects."""
        self.exit_code = exit_code

    @property
    def is_interruption(self) -> bool:
        """A signal ended the command; nothing went wrong."""
        return self.code == INTERRUPTED_CODE

    def document(self) -> dict[str, object]:
        """As --json prints it."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.remedy:
            error["remedy"] = self.remedy
        if self.details:
            error["details"] = self.details
        return {"error": error}


def interrupted(message: str, remedy: str) -> UserError:
    """A signal ended a command: what became of what it did, and how to go on."""
    return UserError(INTERRUPTED_CODE, message, remedy, exit_code=INTERRUPTED)

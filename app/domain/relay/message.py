"""A message of the relay: one event of a task or of a run, for one endpoint. Pure.

May not do I/O, read a clock or log.
"""

import base64
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Scheme(StrEnum):
    """How an endpoint's messages are worded and signed."""

    STANDARD = "standard"  # Standard Webhooks 1.0
    PROVIDER = "provider"  # as the provider's own webhooks (C-I)


class EndpointState(StrEnum):
    """What is done for an endpoint."""

    ACTIVE = "active"
    SET_ASIDE = "set_aside"  # it failed for too long: messages wait until a person puts it back
    CLOSED = "closed"  # its runs are over and everything was taken


FINISHED = "finished"
"""The event of a run; those of a task are the states in which its work ends (domain.task.TaskState)."""


Position = tuple[int, int]
"""(due_at_ms, id) of a message: the order in which they are posted."""
START: Position = (-(1 << 62), 0)


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """Where the results of a run are to be posted."""

    url: str
    secret: str
    scheme: Scheme = Scheme.STANDARD
    token_id: str = ""
    """Whose it is: two tokens never share a secret. Empty: the command line's."""
    is_secret_given: bool = False
    """An endpoint of this URL that is there already takes the secret; else it keeps its own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as its row says, while a worker has it."""

    id: str
    account: str
    url: str
    scheme: Scheme
    secrets: tuple[str, ...]
    """The current one first; a second one for as long as the receiver may take to change it."""
    rests: int
    """How often it rested since it last took a message."""
    failing_since_ms: int | None
    """Of the first failure since then; null: it took the last one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message that is due."""

    id: int
    kind: str
    """FINISHED, or the state in which the task's work ended."""
    at_ms: int
    run_id: str
    task_id: str | None
    """Null: about the run."""
    attempt: int
    tries: int
    """Before this one."""
    about: dict[str, Any]
    """What is known of the task, or of the run, by column; `response` the JSON text of the answer."""

    @property
    def webhook_id(self) -> str:
        """The same at each try, so that a receiver may keep each message once. Without a dot, which
        separates it from the time in what is signed."""
        about = (self.task_id or self.run_id).replace("-", "")
        number = self.attempt if self.task_id else self.at_ms
        return f"msg_{about}_{number}_{self.kind}"


def new_secret() -> str:
    """`whsec_` and the base64 of 32 random bytes: usable in either scheme."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

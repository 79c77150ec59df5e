"""Whether the provider itself answers, or something in its place does, as one process sees it.

What a gateway, a proxy or a firewall says is absence: nothing is decided by it. Nor by the provider's own
word that it serves no such address, method or version: that is about all tasks alike. It is borne with pauses
that grow, then by a single request at a time; and when it goes on, somebody must look.
"""

from dataclasses import dataclass, field

from app.domain.run_reason import ReasonCode, RunReason
from app.domain.send_outcome import backoff_s

IN_A_ROW = 8
"""Answers of something else, none of the provider's between them, before all sending of the account rests:
one page among good answers is no outage."""


REST_MAX_MS = 3_700_000
"""The longest wait that anybody asks for, and our own on top."""


@dataclass(slots=True)
class Silence:
    """Calls of one kind that did not reach its API, since one last did."""

    since_ms: int | None = None
    count: int = 0
    page: str = ""

    def answered(self) -> None:
        """The provider itself answered."""
        self.since_ms, self.count = None, 0

    def unheard(self, page: str, now_ms: int) -> None:
        """Something else did."""
        self.since_ms = now_ms if self.since_ms is None else self.since_ms
        self.count += 1
        self.page = page

    def lasts(self, now_ms: int, pause_after_ms: int) -> bool:
        """It has gone on for so long that the runs pause."""
        return self.count > 1 and self.since_ms is not None and now_ms - self.since_ms >= pause_after_ms


@dataclass(slots=True)
class Reachability:
    """What one process knows of one account's way to the provider."""

    pause_after_ms: int = 60_000
    sends: Silence = field(default_factory=Silence)
    polls: Silence = field(default_factory=Silence)
    rest_until_ms: int = 0
    """Nothing is sent before this."""
    rests: int = 0
    is_admitted: bool = False
    """A request was sent, and the account was not refused with it or since. Before that one request is enough
    to find out."""
    batch_max: int | None = None
    """Tasks in one request, since something in between found more too large; None: it never did."""

    @property
    def is_away(self) -> bool:
        """One request at a time is enough to find out whether it is back."""
        return self.sends.count >= IN_A_ROW

    def resting_ms(self, now_ms: int) -> int:
        """How much longer nothing is sent; 0: it may be. A clock that was set back makes no rest longer."""
        left_ms = self.rest_until_ms - now_ms
        return left_ms if 0 < left_ms <= REST_MAX_MS else 0

    def note_send(self) -> None:
        """The provider itself answered a create call."""
        self.sends.answered()
        self.rests, self.rest_until_ms = 0, 0

    def rest(self, now_ms: int, jitter: float, asked_s: float | None) -> float:
        """Begin a rest, each longer than the last; its seconds."""
        self.rests += 1
        wait_s = backoff_s(self.rests, jitter, asked_s)
        self.rest_until_ms = now_ms + round(wait_s * 1000)
        return wait_s

    def send_reason(self) -> RunReason:
        """Why runs pause that cannot be sent."""
        return RunReason(
            ReasonCode.PROVIDER_AWAY,
            "what is sent does not reach the provider's API: the address is wrong, or something else answers "
            f"({self.sends.page}); tried again every few minutes",
        )

    def poll_reason(self) -> RunReason:
        """Why runs pause of which everything is sent, and nothing can be asked about."""
        return RunReason(
            ReasonCode.POLLS_UNANSWERED,
            "polls do not reach the provider's API: the address is wrong, or something else answers "
            f"({self.polls.page}); they go on",
        )

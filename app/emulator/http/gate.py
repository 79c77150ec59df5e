"""What every request passes first: authentication, then the rate limit (C-C, C-D.4)."""

import re

from app.emulator.billing.organizations import ApiKey
from app.emulator.engine import errors
from app.emulator.engine.emulator import Emulator
from app.emulator.http.rate_limits import HourlyBuckets, SecondWindows, hourly_message

_SCHEME = "Bearer "
_SHAPE = re.compile(r"^sk_(?:live|test)_[0-9A-Fa-f]{32}$")


class Gate:
    """Recognizes keys and counts requests. Unauthenticated requests are counted nowhere (C-L row L16)."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self.seconds = SecondWindows()
        self._hours = HourlyBuckets()

    def authenticate(self, header: str | None) -> ApiKey:
        """The key of a request, or one of the three 401s (C-C)."""
        if header is None or not header.startswith(_SCHEME):
            raise errors.missing_key()
        secret = header[len(_SCHEME) :].strip()
        if not secret:
            raise errors.missing_key()
        key = self._emulator.registry.keys.get(secret)
        if key is None:
            raise errors.unknown_key() if _SHAPE.match(secret) else errors.malformed_key()
        if key.invalid_from_s is not None and self._emulator.clock.now() >= key.invalid_from_s:
            raise errors.unknown_key()
        return key

    def count_request(self, key: ApiKey, endpoint: str, headers: dict[str, str]) -> None:
        """Count one request and write its rate headers, or refuse it (C-D.2, rows B7 to B10)."""
        edition, clock = key.edition, self._emulator.clock
        limit = self._emulator.options.requests_per_s
        if edition.requests_per_h and limit is None:
            left, wait_s = self._hours.take(key.secret, edition.requests_per_h, clock.now())
            self._write(headers, edition.requests_per_h, left)
            if left < 0:
                refusal = errors.rate_limited()
                refusal.message, refusal.retry_after_s = hourly_message(wait_s), wait_s
                raise refusal
            return
        if limit is None:
            limit = edition.requests_per_s
        if limit == 0:
            return
        bucket = f"{key.secret} {endpoint}" if edition.rate_per_endpoint else key.secret
        left = self.seconds.take(bucket, limit, clock.wall())
        self._write(headers, limit, left)
        if left < 0:
            raise errors.rate_limited()

    @staticmethod
    def _write(headers: dict[str, str], limit: int, left: int) -> None:
        headers["X-RateLimit-Limit"] = str(limit)
        headers["X-RateLimit-Remaining"] = str(max(0, left))

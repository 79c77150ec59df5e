"""`/v1/credits`, `/v1/countries`, `/v1/states` (C-E.6, C-G.7)."""

import re

import msgspec

from app.emulator.checks.validation import options_text
from app.emulator.data import places
from app.emulator.engine import errors
from app.emulator.engine.emulator import Emulator
from app.emulator.http.exchange import Exchange

_COUNTRY = re.compile(r"^[A-Z]{2}$")


class ReferenceRoutes:
    """Free answers that touch no task."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    async def credits(self, exchange: Exchange) -> bytes:
        """GET /v1/credits, up to 60 emulated seconds old (C-E.6, row B22)."""
        edition = exchange.key.edition
        if not (edition.credits_endpoint or self._emulator.options.switches.credits_endpoint):
            raise errors.route_not_found(exchange.request.path)
        account = exchange.key.organization.account
        return msgspec.json.encode(account.as_credits(self._emulator.clock.now()))

    async def countries(self, exchange: Exchange) -> bytes:
        """GET /v1/countries: a bare array, in the order of the English names (C-G.7, row B51)."""
        model = exchange.request.query.get("model")
        if model is None:
            return msgspec.json.encode(places.COUNTRIES_IN_ORDER)
        known = tuple(
            name for name in places.MODELS if name != "aioverview" or exchange.key.edition.aioverview_model
        )
        if model not in known:
            raise errors.validation_failed(400, [{"field": "model", "message": options_text(known)}])
        offered = places.offered(model)
        return msgspec.json.encode([code for code in places.COUNTRIES_IN_ORDER if code in offered])

    async def states(self, exchange: Exchange) -> bytes:
        """GET /v1/states: 51 for US, none elsewhere; the country is required (C-G.7)."""
        country = exchange.request.query.get("country")
        if country is None:
            message = "Invalid input: expected string, received undefined"
            raise errors.validation_failed(400, [{"field": "country", "message": message}])
        if not _COUNTRY.match(country):
            message = "Invalid string: must match pattern /^[A-Z]{2}$/"
            raise errors.validation_failed(400, [{"field": "country", "message": message}])
        listed = places.STATES.items() if country == "US" else ()
        return msgspec.json.encode([{"code": code, "name": name} for code, name in listed])

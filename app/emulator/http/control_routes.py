"""`/_emulator/*`: clock, faults, books, organizations and state. No key, no rate limit; not part of the
contract."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from functools import wraps
from typing import Any

import msgspec
from aiohttp import web

from app.emulator.billing.account import BillingError
from app.emulator.billing.books import books
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.billing.organizations import Organization
from app.emulator.data.engine_table import ENGINES
from app.emulator.engine.clock import iso
from app.emulator.engine.emulator import Emulator
from app.emulator.engine.faults import FaultRates, refuse_rate
from app.emulator.http.exchange import Front, RawHandler, answer
from app.emulator.http.sync_calls import SyncCalls


class ControlError(Exception):
    """A control request that makes no sense; its text is the reason."""


_BAD_REQUEST_ERRORS = (
    ControlError,
    BillingError,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    ArithmeticError,
)


def _json(
    handler: Callable[[Any, web.Request], Awaitable[Any]],
) -> Callable[[Any, web.Request], Awaitable[Any]]:
    """Encode what a handler returns; errors in the request become 400."""

    @wraps(handler)
    async def handle(self: Any, request: web.Request) -> web.StreamResponse:
        try:
            return answer(200, msgspec.json.encode(await handler(self, request)))
        except _BAD_REQUEST_ERRORS as error:
            return answer(400, msgspec.json.encode({"error": str(error)}))

    return handle


async def _body(request: web.Request) -> dict[str, Any]:
    raw = await request.read()
    body = msgspec.json.decode(raw) if raw else {}
    if not isinstance(body, dict):
        raise ControlError("the body must be an object")
    return body


class ControlRoutes:
    """Handlers that steer the process."""

    def __init__(self, emulator: Emulator, front: Front, calls: SyncCalls) -> None:
        self._emulator = emulator
        self._front = front
        self._calls = calls

    def routes(self) -> list[tuple[str, str, RawHandler]]:
        """Method, path, handler."""
        return [
            ("GET", "/_emulator/books", self.books),
            ("GET", "/_emulator/clock", self.clock),
            ("POST", "/_emulator/clock", self.move_clock),
            ("GET", "/_emulator/faults", self.faults),
            ("POST", "/_emulator/faults", self.change_faults),
            ("DELETE", "/_emulator/faults", self.no_faults),
            ("POST", "/_emulator/availability", self.availability),
            ("GET", "/_emulator/state", self.state),
            ("GET", "/_emulator/seconds", self.seconds),
            ("GET", "/_emulator/organizations", self.organizations),
            ("POST", "/_emulator/organizations", self.add_organization),
            ("POST", "/_emulator/organizations/{name}", self.change_organization),
        ]

    def _organization(self, name: str) -> Organization:
        organization = self._emulator.organizations.get(name)
        if organization is None:
            raise ControlError(f"no organization named {name}")
        return organization

    @_json
    async def books(self, request: web.Request) -> Any:
        """The statement of one organization, task by task unless `tasks=0`."""
        name = request.query.get("organization", self._emulator.options.organization)
        with_tasks = request.query.get("tasks", "1") != "0"
        return books(self._organization(name), self._emulator.clock.now(), with_tasks=with_tasks)

    @_json
    async def clock(self, request: web.Request) -> Any:
        """Emulated time, its speed, and when the next thing is due."""
        clock, due_s = self._emulator.clock, self._emulator.timeline.next_due_s()
        return {
            "now": iso(clock.now()),
            "scale": clock.scale,
            "nextDue": None if due_s is None else iso(due_s),
            "scheduled": len(self._emulator.timeline),
        }

    @_json
    async def move_clock(self, request: web.Request) -> Any:
        """`{"scale": x}` changes the speed (0 stops), `{"advance": seconds}` steps through all that falls
        due."""
        body = await _body(request)
        if body.keys() - {"scale", "advance"}:
            raise ControlError("known fields are scale and advance")
        scale, seconds = body.get("scale"), body.get("advance", 0)
        if (scale is not None and float(scale) < 0) or float(seconds) < 0:
            raise ControlError("time does not run backwards")
        if scale is not None:
            self._emulator.clock.rescale(float(scale))
            self._emulator.timeline.rearm()
        if seconds:
            await self._emulator.advance(float(seconds))
        clock = self._emulator.clock
        return {"now": iso(clock.now()), "scale": clock.scale}

    @_json
    async def faults(self, request: web.Request) -> Any:
        """All rates, and how often each request fault has struck."""
        return {"rates": asdict(self._emulator.options.faults), "injected": dict(self._front.faults.injected)}

    @_json
    async def change_faults(self, request: web.Request) -> Any:
        """Set some rates; tasks that exist keep the fate they have."""
        body = await _body(request)
        known = {field.name for field in fields(FaultRates)}
        if body.keys() - known:
            raise ControlError(f"unknown faults: {', '.join(sorted(body.keys() - known))}")
        for name, value in body.items():
            if name == "seed" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ControlError(f"{name} must be a number that is not negative")
            refuse_rate(name, value)
        rates = self._emulator.options.faults
        for name, value in body.items():
            setattr(rates, name, value)
        return {"rates": asdict(rates)}

    @_json
    async def no_faults(self, request: web.Request) -> Any:
        """Well-behaved from now on."""
        rates = self._emulator.options.faults
        for field in fields(FaultRates):
            setattr(rates, field.name, 0.0 if field.name == "internal_retry" else field.default)
        return {"rates": asdict(rates)}

    @_json
    async def availability(self, request: web.Request) -> Any:
        """`{"CHATGPT": ["CZ"]}`: countries that engines have stopped serving; replaces the earlier
        list."""
        body = await _body(request)
        if body.keys() - ENGINES.keys():
            raise ControlError(f"unknown task types: {', '.join(sorted(body.keys() - ENGINES.keys()))}")
        self._emulator.withdrawn.clear()
        pairs = [(name, str(code)) for name, codes in body.items() for code in codes]
        self._emulator.withdrawn.update(pairs)
        return {"withdrawn": sorted(self._emulator.withdrawn)}

    @_json
    async def state(self, request: web.Request) -> Any:
        """What the status page shows."""
        emulator = self._emulator
        now_s = emulator.clock.now()
        return {
            "now": iso(now_s),
            "scale": emulator.clock.scale,
            "edition": emulator.edition.name,
            "organizations": [
                books(organization, now_s, with_tasks=False) | {"queued": organization.queued_tasks}
                for organization in emulator.organizations.values()
            ],
            "deliveries": list(emulator.deliveries.recent)[::-1],
            "syncCalls": list(self._calls.recent)[::-1],
            "activeFaults": emulator.options.faults.active(),
            "faults": {name: count for name, count in self._front.faults.injected.items() if count},
        }

    @_json
    async def seconds(self, request: web.Request) -> Any:
        """Requests in each past second, as the rate limit counted them: the Unix second and how many."""
        return list(self._front.gate.seconds.seconds)

    @_json
    async def organizations(self, request: web.Request) -> Any:
        """Names, plans and keys."""
        registry = self._emulator.registry
        return [
            {
                "name": organization.name,
                "plan": organization.account.plan.name,
                "account": organization.account.name,
                "slots": organization.slots,
                "keys": [
                    {"key": key.secret, "edition": key.edition.name}
                    for key in registry.keys.values()
                    if key.organization is organization
                ],
            }
            for organization in self._emulator.organizations.values()
        ]

    @_json
    async def add_organization(self, request: web.Request) -> Any:
        """Create an organization from the same description that `--organizations` takes."""
        spec = msgspec.json.decode(await request.read(), type=OrganizationSpec)
        return books(self._emulator.registry.add(spec), self._emulator.clock.now(), with_tasks=False)

    @_json
    async def change_organization(self, request: web.Request) -> Any:
        """`plan`, `cancel`, `topUp`, `prices`, `webhookSecret` (null turns signing off), `slots`, `addKey`,
        `invalidateKey`: each as the provider's dashboard or sales team would do it."""
        organization = self._organization(request.match_info["name"])
        for name, value in (await _body(request)).items():
            self._change(organization, name, value)
        return books(organization, self._emulator.clock.now(), with_tasks=False)

    def _change(self, organization: Organization, name: str, value: Any) -> None:
        registry = self._emulator.registry
        if name == "plan":
            registry.change_plan(organization, value)
        elif name == "cancel":
            organization.account.cancel()
        elif name == "topUp":
            registry.top_up(organization, int(value))
        elif name == "prices":
            registry.override_prices(organization, value)
        elif name == "webhookSecret":
            organization.webhook_secret = None if value is None else str(value)
        elif name == "slots":
            registry.set_slots(organization, None if value is None else int(value))
        elif name == "addKey":
            registry.add_key(organization, msgspec.convert(value, KeySpec))
        elif name == "invalidateKey":
            registry.invalidate_key(str(value))
        else:
            raise ControlError(f"unknown field {name}")

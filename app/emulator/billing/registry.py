"""Who is who: organizations, accounts and keys, and what changes them (C-C, C-F)."""

from collections.abc import Callable
from functools import partial

import msgspec

from app.emulator.billing.account import Account, BillingError
from app.emulator.billing.organization_spec import KeySpec, OrganizationSpec
from app.emulator.billing.organizations import ApiKey, Organization
from app.emulator.billing.pricing import PLANS, PRICE_LISTS, PriceList
from app.emulator.data.editions import EDITIONS, Edition, at_todays_prices
from app.emulator.engine.clock import Clock
from app.emulator.engine.options import Options
from app.emulator.engine.timeline import Timeline

_INVALIDATION_LAG_S = 60.0
"""An invalidated key may work that long (C-C)."""
_DAY_S = 86_400.0


class Registry:
    """All tenants of the process. `on_capacity` is called when slots or credits of an organization may
    have grown."""

    def __init__(
        self,
        options: Options,
        clock: Clock,
        timeline: Timeline,
        on_capacity: Callable[[Organization, float], None],
    ) -> None:
        self._options = options
        self._clock = clock
        self._timeline = timeline
        self._on_capacity = on_capacity
        named = EDITIONS[options.edition]
        self.edition = at_todays_prices(named) if options.todays_prices else named
        self.organizations: dict[str, Organization] = {}
        self.keys: dict[str, ApiKey] = {}
        self._price_cache: dict[tuple[str, str], PriceList] = {}
        self.add(self._default_spec())
        for spec in options.organizations:
            self.add(spec)

    def _default_spec(self) -> OrganizationSpec:
        options = self._options
        return OrganizationSpec(
            name=options.organization,
            plan=options.plan,
            keys=tuple(KeySpec(key=secret) for secret in options.keys),
            slots=options.concurrency,
            webhook_secret=options.webhook_secret,
            price_list=options.prices,
            credits=options.credits,
        )

    def add(self, spec: OrganizationSpec) -> Organization:
        """Create an organization with its keys, on a new account or on another organization's (C-F)."""
        if spec.name in self.organizations:
            raise BillingError(f"there is already an organization named {spec.name}")
        account = self._shared(spec) if spec.shares_plan_of is not None else self._subscribe(spec)
        organization = Organization(
            spec.name,
            account,
            slots=spec.slots,
            webhook_secret=spec.webhook_secret,
            queue_max=self._options.queue_max,
            archive_max=self._options.book_lines_max,
        )
        if spec.price_list is not None and spec.price_list not in PRICE_LISTS:
            raise BillingError(f"unknown price list {spec.price_list}")
        organization.price_list = spec.price_list
        organization.price_overrides = dict(spec.prices)
        self.organizations[spec.name] = organization
        for key in spec.keys:
            self.add_key(organization, key)
        return organization

    def _subscribe(self, spec: OrganizationSpec) -> Account:
        if spec.plan not in PLANS:
            raise BillingError(f"unknown plan {spec.plan}")
        now_s = self._clock.now()
        subscribed_s = now_s if spec.subscribed_at is None else spec.subscribed_at.timestamp()
        if subscribed_s > now_s:
            raise BillingError("a subscription cannot start in the future")
        account = Account(
            spec.name,
            PLANS[spec.plan],
            self.edition,
            subscribed_s=subscribed_s,
            now_s=now_s,
            credits=spec.credits,
        )
        self._timeline.at(account.cycle.ends_s, partial(self._renew, account))
        return account

    def _shared(self, spec: OrganizationSpec) -> Account:
        owner = self.organizations.get(spec.shares_plan_of or "")
        if owner is None:
            raise BillingError(f"no organization named {spec.shares_plan_of}")
        account = owner.account
        if account.plan.kind not in ("contract", "self_serve"):
            raise BillingError(f"plan {account.plan.name} cannot be shared by several organizations")
        self._check_split(account, spec.name, spec.slots)
        return account

    def _check_split(self, account: Account, name: str, slots: int | None) -> None:
        """The parts of a shared plan's slots are agreed on beforehand and cannot exceed the plan (C-F)."""
        others = [
            other for other in self.organizations.values() if other.account is account and other.name != name
        ]
        if not others:
            return
        if slots is None or any(other.slots_share is None for other in others):
            raise BillingError("each organization on a shared plan needs its part of the slots")
        if slots + sum(other.slots_share or 0 for other in others) > account.slots:
            raise BillingError(f"the parts exceed the plan's {account.slots} slots")

    def add_key(self, organization: Organization, spec: KeySpec) -> ApiKey:
        """One more key; rotation is adding one and invalidating another (C-C)."""
        if spec.edition is not None and spec.edition not in EDITIONS:
            raise BillingError(f"unknown edition {spec.edition}")
        edition = EDITIONS[spec.edition] if spec.edition is not None else self.edition
        free = spec.free
        if free is None:
            free = self._options.switches.test_keys_free and spec.key.startswith("sk_test_")
        key = self.keys[spec.key] = ApiKey(spec.key, organization, edition, free=free)
        return key

    def invalidate_key(self, secret: str) -> None:
        """An invalidated key goes on working for up to a minute (C-C)."""
        if secret not in self.keys:
            raise BillingError("no such key")
        self.keys[secret].invalid_from_s = self._clock.now() + _INVALIDATION_LAG_S

    def set_slots(self, organization: Organization, slots: int | None) -> None:
        """Another part of a shared plan's slots, or an override."""
        if slots is not None and slots < 1:
            raise BillingError("an organization needs at least one slot")
        self._check_split(organization.account, organization.name, slots)
        organization.slots_share = slots
        self._on_capacity(organization, self._clock.now())

    def prices(self, organization: Organization, edition: Edition) -> PriceList:
        """The list an organization pays by: its own or its edition's, with its overrides (C-E.5, C-F)."""
        name = organization.price_list or edition.prices
        if not organization.price_overrides:
            return PRICE_LISTS[name]
        cached = self._price_cache.get((organization.name, name))
        if cached is None:
            base = {**PRICE_LISTS[name].base, **organization.price_overrides}
            cached = msgspec.structs.replace(PRICE_LISTS[name], base=base)
            self._price_cache[organization.name, name] = cached
        return cached

    def override_prices(self, organization: Organization, prices: dict[str, int]) -> None:
        """Per-model deals of an organization, from now on (C-F)."""
        unknown = prices.keys() - PRICE_LISTS[self.edition.prices].base.keys()
        if unknown:
            raise BillingError(f"unknown task types: {', '.join(sorted(unknown))}")
        if any(price < 0 for price in prices.values()):
            raise BillingError("a price cannot be negative")
        organization.price_overrides = dict(prices)
        for key in [key for key in self._price_cache if key[0] == organization.name]:
            del self._price_cache[key]

    def change_plan(self, organization: Organization, plan_name: str) -> None:
        """Upgrade at once, downgrade with the next cycle; slots as the kind of plan has it (C-F, row B42)."""
        if plan_name not in PLANS:
            raise BillingError(f"unknown plan {plan_name}")
        account, plan, now_s = organization.account, PLANS[plan_name], self._clock.now()
        if plan.credits < account.plan.credits:
            account.downgrade(plan)
            return
        account.upgrade(plan, now_s)
        if plan.kind == "contract":
            wait_s = self.edition.provisioning_days * _DAY_S
            self._timeline.at(now_s + wait_s, partial(self._provision, account))
        else:
            self._provision(account, now_s)
        self._capacity_changed(account, now_s)

    def _provision(self, account: Account, now_s: float) -> None:
        account.slots = account.plan.concurrency
        self._capacity_changed(account, now_s)

    def top_up(self, organization: Organization, credits: int) -> None:
        """Only the older edition mentions topping up (row B43)."""
        if not self.edition.top_up:
            raise BillingError("this edition has no top-up; upgrade or wait for the next cycle")
        organization.account.top_up(credits, self._clock.now())
        self._capacity_changed(organization.account, self._clock.now())

    def _renew(self, account: Account, now_s: float) -> None:
        account.renew()
        self._timeline.at(account.cycle.ends_s, partial(self._renew, account))
        self._capacity_changed(account, now_s)

    def _capacity_changed(self, account: Account, now_s: float) -> None:
        for organization in self.organizations.values():
            if organization.account is account:
                self._on_capacity(organization, now_s)

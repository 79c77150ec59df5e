"""Every alert fires by the metrics of real processes that meet its fault, and is silent before and after it.

Each act brings a fault about, waits, takes it away, and waits again; all the while every process is scraped.
What was scraped goes through `promtool test rules` with the alerts as they are shipped. Acts that share their
processes are played one after the other, and three such companies side by side.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import StartValkey
from tests.e2e import timelapse
from tests.e2e.alerts import credits, late, parts, provider
from tests.e2e.alerts.drill import Act, opened
from tests.servers.postgres import PostgresServer

needs_promtool = pytest.mark.skipif(
    timelapse.PROMTOOL is None,
    reason="no promtool here: `apt-get install prometheus`, or PROMTOOL=/path/of/promtool, to run this",
)
COMPANIES: dict[str, tuple[Act, ...]] = {
    "parts": (
        parts.no_worker,
        parts.leases_locked,
        parts.duty_fails,
        parts.results_locked,
        parts.strangers,
        parts.database_away,
        parts.commits_slow,
        parts.redis_hangs,
        parts.loop_late,
        parts.clock_off,
        credits.credits_end,
    ),
    "provider": (
        provider.old_secret,
        provider.provider_fails,
        provider.rate_refused,
        provider.no_deliveries,
        provider.deliveries_lost,
        late.long_faults,
    ),
    "drift": (credits.drift,),
}
ONLY = tuple(filter(None, os.environ.get("ACTS", "").split(",")))
"""Names of acts, to play some alone."""


def test_each_alert_has_its_act() -> None:
    acts = [act for company in COMPANIES.values() for act in company]
    assert sorted(alert for act in acts for alert in act.alerts) == sorted(timelapse.rules())


@needs_promtool
@pytest.mark.debian
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("company", COMPANIES)
async def test_every_alert_fires_by_its_fault_and_clears_after_it(
    company: str, postgres: PostgresServer, postgres_template: str, start_valkey: StartValkey, tmp_path: Path
) -> None:
    acts = [act for act in COMPANIES[company] if not ONLY or act.name in ONLY]
    if not acts:
        pytest.skip("none of its acts is in ACTS")
    async with opened(postgres, postgres_template, start_valkey(appendonly=False), tmp_path) as drill:
        for act in acts:
            drill.act = act
            await act.play(drill)
        assert not drill.wrong, "\n".join(drill.wrong)

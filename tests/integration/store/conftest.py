"""What several tests of the store share."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.servers.proxy import Proxy


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """Before PostgreSQL; `through` has its URL."""
    port = sa.make_url(postgres_url).port
    assert port is not None
    with Proxy(port) as started:
        yield started

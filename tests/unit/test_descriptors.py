"""The limit on files and sockets is raised as far as it may be; where that is too low, the log says so."""

import resource
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from app.descriptors import WANTED, allowed_descriptors


@pytest.fixture(autouse=True)
def _limits_as_before() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_low_soft_limit_is_raised() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (WANTED, hard))
    with capture_logs() as logs:
        assert allowed_descriptors() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > WANTED
    assert not logs


def test_a_low_hard_limit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody but root could raise a hard limit again.
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with capture_logs() as logs:
        assert allowed_descriptors() == 64
    assert [(line["event"], line["allowed"]) for line in logs] == [("descriptors_short", 64)]

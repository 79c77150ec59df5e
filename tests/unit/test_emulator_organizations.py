"""The emulator's file of organizations."""

import msgspec
import pytest

from app.emulator.billing.organization_spec import read_setup


def test_f13_a_name_given_twice_is_refused() -> None:
    twice = b'{"organizations": [{"name": "a", "keys": [{"key": "sk_test_1", "free": true, "free": false}]}]}'
    with pytest.raises(msgspec.ValidationError, match="'free' is given twice"):
        read_setup(twice)
    (one,) = read_setup(twice.replace(b', "free": false', b""))
    assert one.keys[0].free is True

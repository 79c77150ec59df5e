"""Ids and idempotency keys."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.task import idempotency_key, new_id, parse_idempotency_key

MILLIS = st.integers(0, (1 << 48) - 1)
BITS = st.integers(0, (1 << 80) - 1)


@given(MILLIS, BITS)
def test_an_id_is_a_uuid_of_version_7(now_ms: int, bits: int) -> None:
    text = new_id(now_ms, bits)
    parsed = UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, "specified in RFC 4122")
    assert parsed.int >> 80 == now_ms
    assert parsed.int & (1 << 62) - 1 == bits & (1 << 62) - 1


@given(MILLIS, MILLIS, BITS, BITS)
def test_ids_are_ordered_by_their_time(a_ms: int, b_ms: int, a_bits: int, b_bits: int) -> None:
    if a_ms < b_ms:
        assert new_id(a_ms, a_bits) < new_id(b_ms, b_bits)


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id(1) for _ in range(1_000)}) == 1_000


def test_the_example_of_rfc_9562() -> None:
    # Appendix A.6: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F
    assert new_id(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(MILLIS, BITS, st.integers(1, 999_999))
def test_a_key_leads_back_to_its_attempt(now_ms: int, bits: int, attempt: int) -> None:
    task_id = new_id(now_ms, bits)
    assert parse_idempotency_key(idempotency_key(task_id, attempt)) == (task_id, attempt)


KEY = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "1",
        ".1",
        KEY,
        f"{KEY}.",
        f"{KEY}.x",
        f"{KEY}.-1",
        f"{KEY}.1.1",
        f"{KEY}.1234567",
        f"{KEY[:-1]}.1",
        f"{KEY}0.1",
        f"{KEY.upper()}.1",
        f"{KEY.replace('-', '_')}.1",
        f"{KEY}.١",
        f"{'g' + KEY[1:]}.1",
        f"{KEY[:8]}0{KEY[9:]}.1",
        f" {KEY}.1",
        f"{KEY}.1\n",
        "run-42:item-7",
        f"{KEY.replace('-', '')}0000.1",
    ],
)
def test_keys_of_others_are_not_ours(key: str) -> None:
    assert parse_idempotency_key(key) is None


@given(st.text(max_size=60))
def test_any_text_is_taken(key: str) -> None:
    found = parse_idempotency_key(key)
    assert found is None or len(found[0]) == 36

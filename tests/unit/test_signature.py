"""Signatures: the vectors and the freshness cases of contract C-I.4, and whatever strangers may send."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.provider.signature import RefusalReason, Refused, Verified, answer_challenge, sign, verify

SECRET = "whsec_test_0123456789abcdef0123456789abcdef"
SIGNED_S = 1748419200
V1 = (
    '{"task":{"id":"b27a21e1-7c39-4aa2-a347-23e828c426f9","taskType":"CHATGPT","status":"COMPLETED",'
    '"priority":5,"createdAt":"2025-05-28T07:59:12.345Z","latencyMs":41230,"idempotencyKey":"run-42:item-7"},'
    '"credits":{"creditsToCharge":7,"creditsCharged":7},"response":{"model":null,"text":"Café — ok",'
    '"sources":[]}}'
).encode()
V1_HEX = "0ba195369522a3512b0247caae898da4fd7ad7b0fcff659c75249f7a56b3fc84"
V2 = (
    b'{"task":{"id":"11111111-2222-4333-8444-555555555555","taskType":"GOOGLE","status":"FAILED","priority":1,'
    b'"createdAt":"2025-05-28T08:00:00.000Z","latencyMs":null,"idempotencyKey":null},"credits":'
    b'{"creditsToCharge":9,"creditsCharged":0},"response":{"error":{"code":"INTERNAL_SERVER_ERROR",'
    b'"message":"Task failed after max retries"}}}'
)
VECTORS = [
    pytest.param(SECRET, SIGNED_S, V1, V1_HEX, id="V1"),
    pytest.param(
        SECRET, SIGNED_S, V2, "1bbbed844ad29fee2871bd0062fbab9c780784f3fd6996bd34c5e87a63fed94f", id="V2"
    ),
    pytest.param(
        SECRET, SIGNED_S, b"", "9e6647462f792eea9868a9dd434836cecc1ec81e01d864ca0e3a909276208c3e", id="V3"
    ),
    pytest.param(
        "whsec_abc",
        1700000000,
        b'{"a":1}',
        "3b843bacfb18cc5554542fdcc84d815b399c52758e508a6fcecf0a2af4efea2b",
        id="V4",
    ),
]


def check(
    signature: str | None, timestamp: str | None = str(SIGNED_S), **changes: object
) -> Verified | Refused:
    arguments: dict = {"secrets": [SECRET], "body": V1, "now_s": SIGNED_S, "window_s": 300, **changes}
    return verify(
        arguments["secrets"],
        timestamp,
        signature,
        arguments["body"],
        arguments["now_s"],
        arguments["window_s"],
    )


@pytest.mark.parametrize(("secret", "signed_s", "body", "hexed"), VECTORS)
def test_vectors(secret: str, signed_s: int, body: bytes, hexed: str) -> None:
    assert sign(secret, str(signed_s), body) == f"v1={hexed}"
    for header in (f"v1={hexed}", hexed):  # GT accepts the bare hex too
        found = verify([secret], str(signed_s), header, body, signed_s, 300)
        assert found == Verified(signed_s, 0)


def test_the_vectors_are_the_contract_s() -> None:
    assert len(V1) == 311
    assert len(V2) == 330


@pytest.mark.parametrize(
    "hexed",
    [
        pytest.param(
            "799face57e06a96c3cf47d7b33fc5a4fe642e49e209b3ab3b8c4c99a833010c9", id="prefix stripped"
        ),
        pytest.param("3847e162deb260ebb894fd109ca62ab9de8ed0ce5cb5eb17f7c81c5fedb11ca8", id="body alone"),
        pytest.param(
            "10e185611492aadd1acbb5b08bcfe56eefe31620325605b096549854871058cd", id="other timestamp"
        ),
        pytest.param(
            "41b83d8c1a07c30aedfef6e0d892d62d081ce8bf760ab6195aee2bab42d81043", id="newline appended"
        ),
        pytest.param("ee90d777d2fe10dba4cf6258863a097ba067e64d8c9c0c5d392d4a8ef6f113ae", id="dumped again"),
        pytest.param(
            "7f8a110208f16ca265079f3a01f013c8ae11a51d22064257bd2a298a0030d6bf", id="compact, escaped"
        ),
    ],
)
def test_wrong_variants_do_not_verify(hexed: str) -> None:
    assert check(f"v1={hexed}") == Refused(RefusalReason.MISMATCH, SIGNED_S)


def test_a_body_dumped_again_does_not_verify() -> None:
    again = json.dumps(json.loads(V1)).encode()
    assert len(again) == 344
    assert check(f"v1={V1_HEX}", body=again) == Refused(RefusalReason.MISMATCH, SIGNED_S)


@pytest.mark.parametrize(
    ("now_s", "fresh"),
    [(1748419200, True), (1748419500, True), (1748419501, False), (1748418900, True), (1748418899, False)],
)
def test_freshness_to_the_second(now_s: int, fresh: bool) -> None:
    expected = Verified(SIGNED_S, 0) if fresh else Refused(RefusalReason.STALE, SIGNED_S)
    assert check(f"v1={V1_HEX}", now_s=now_s) == expected


def test_a_forgery_with_an_old_timestamp_is_not_taken_for_a_wrong_clock() -> None:
    assert check("v1=" + "0" * 64, now_s=SIGNED_S + 10_000) == Refused(RefusalReason.MISMATCH, SIGNED_S)


def test_each_of_several_secrets_is_known_by_its_place() -> None:
    for index, secret in enumerate(("whsec_new", "whsec_old")):
        header = sign(secret, str(SIGNED_S), V1)
        assert check(header, secrets=["whsec_new", "whsec_old"]) == Verified(SIGNED_S, index)
    assert check(sign("whsec_gone", str(SIGNED_S), V1), secrets=["whsec_new", "whsec_old"]) == Refused(
        RefusalReason.MISMATCH, SIGNED_S
    )
    assert check(f"v1={V1_HEX}", secrets=[]) == Refused(RefusalReason.MISMATCH, SIGNED_S)


@pytest.mark.parametrize(
    ("timestamp", "signature", "reason"),
    [
        (None, f"v1={V1_HEX}", RefusalReason.MISSING_HEADERS),
        (str(SIGNED_S), None, RefusalReason.MISSING_HEADERS),
        ("", "", RefusalReason.MISSING_HEADERS),
        (f"+{SIGNED_S}", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        (f" {SIGNED_S}", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        (f"{SIGNED_S}.0", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        ("1_748_419_200", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        ("-1748419200", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        ("١٧٤٨٤١٩٢٠٠", f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        ("9" * 5_000, f"v1={V1_HEX}", RefusalReason.BAD_TIMESTAMP),
        (str(SIGNED_S), f"v2={V1_HEX}", RefusalReason.BAD_SCHEME),
        (str(SIGNED_S), f"sha256={V1_HEX}", RefusalReason.BAD_SCHEME),
        (str(SIGNED_S), f"V1={V1_HEX}", RefusalReason.BAD_SCHEME),
        (str(SIGNED_S), "v1=", RefusalReason.MISMATCH),
        (str(SIGNED_S), f"v1={V1_HEX[:-1]}", RefusalReason.MISMATCH),
        (str(SIGNED_S), f"v1={V1_HEX}0", RefusalReason.MISMATCH),
        (str(SIGNED_S), f"v1={V1_HEX.upper()}", RefusalReason.MISMATCH),
        (str(SIGNED_S), "v1=" + "é" * 64, RefusalReason.MISMATCH),
        (str(SIGNED_S), "v1=\udcff\ud800", RefusalReason.MISMATCH),
    ],
)
def test_odd_headers(timestamp: str | None, signature: str | None, reason: RefusalReason) -> None:
    found = check(signature, timestamp)
    assert isinstance(found, Refused)
    assert found.reason is reason


@given(st.none() | st.text(), st.none() | st.text(), st.binary(max_size=100))
def test_nothing_a_stranger_sends_raises_or_verifies(
    timestamp: str | None, signature: str | None, body: bytes
) -> None:
    assert isinstance(check(signature, timestamp, body=body), Refused)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=10**11), st.integers(-300, 300))
def test_what_is_signed_verifies(body: bytes, signed_s: int, late_s: int) -> None:
    header = sign(SECRET, str(signed_s), body)
    found = verify([SECRET], str(signed_s), header, body, signed_s + late_s, 300)
    assert found == Verified(signed_s, 0)


@given(st.text(alphabet="0123456789abcdef", min_size=16, max_size=64))
def test_the_answer_to_a_challenge_signs_no_delivery(challenge: str) -> None:
    # The only text that could make the two messages equal is a timestamp that is not one.
    proof = answer_challenge(SECRET, challenge)
    assert sign(SECRET, "tallyhook-doctor", challenge.encode()) == f"v1={proof}"
    assert verify([SECRET], "tallyhook-doctor", f"v1={proof}", challenge.encode(), 0, 300) == Refused(
        RefusalReason.BAD_TIMESTAMP
    )

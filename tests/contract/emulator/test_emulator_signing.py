"""C-I.3 and C-I.4: the emulator's own signer against the published vectors and their wrong variants."""

import hashlib
import json

import pytest

from app.emulator.engine.webhooks import signature, signed_headers

SECRET = "whsec_test_0123456789abcdef0123456789abcdef"
STAMP = "1748419200"
V1 = (
    '{"task":{"id":"b27a21e1-7c39-4aa2-a347-23e828c426f9","taskType":"CHATGPT","status":"COMPLETED","priority":5,'
    '"createdAt":"2025-05-28T07:59:12.345Z","latencyMs":41230,"idempotencyKey":"run-42:item-7"},'
    '"credits":{"creditsToCharge":7,"creditsCharged":7},'
    '"response":{"model":null,"text":"Café — ok","sources":[]}}'
).encode()
V2 = (
    b'{"task":{"id":"11111111-2222-4333-8444-555555555555","taskType":"GOOGLE","status":"FAILED","priority":1,'
    b'"createdAt":"2025-05-28T08:00:00.000Z","latencyMs":null,"idempotencyKey":null},'
    b'"credits":{"creditsToCharge":9,"creditsCharged":0},'
    b'"response":{"error":{"code":"INTERNAL_SERVER_ERROR","message":"Task failed after max retries"}}}'
)


def digest(secret: str, stamp: str, body: bytes) -> str:
    return signature(secret, stamp, body).removeprefix("v1=")


def test_vector_bodies_are_the_published_ones() -> None:
    assert (len(V1), len(V2)) == (311, 330)
    assert (
        hashlib.sha256(V1).hexdigest() == "eb8a07f167c242db7c877dd8ab68b916dab53d8d903ec9762b5a3da9324b5955"
    )
    assert (
        hashlib.sha256(V2).hexdigest() == "1faadfc4247e031ad05d2b613ccde5553d5c80671b7cbc996876e6dcde3fe798"
    )


@pytest.mark.parametrize(
    ("secret", "stamp", "body", "expected"),
    [
        (SECRET, STAMP, V1, "0ba195369522a3512b0247caae898da4fd7ad7b0fcff659c75249f7a56b3fc84"),
        (SECRET, STAMP, V2, "1bbbed844ad29fee2871bd0062fbab9c780784f3fd6996bd34c5e87a63fed94f"),
        (SECRET, STAMP, b"", "9e6647462f792eea9868a9dd434836cecc1ec81e01d864ca0e3a909276208c3e"),
        (
            "whsec_abc",
            "1700000000",
            b'{"a":1}',
            "3b843bacfb18cc5554542fdcc84d815b399c52758e508a6fcecf0a2af4efea2b",
        ),
    ],
    ids=["V1", "V2", "V3", "V4"],
)
def test_vectors(secret: str, stamp: str, body: bytes, expected: str) -> None:
    assert digest(secret, stamp, body) == expected


def test_wrong_variants_give_the_published_wrong_digests() -> None:
    import hmac

    loaded = json.loads(V1)
    compact = json.dumps(loaded, separators=(",", ":")).encode()
    wrong = {
        "799face57e06a96c3cf47d7b33fc5a4fe642e49e209b3ab3b8c4c99a833010c9": digest(SECRET[6:], STAMP, V1),
        "3847e162deb260ebb894fd109ca62ab9de8ed0ce5cb5eb17f7c81c5fedb11ca8": hmac.digest(
            SECRET.encode(), V1, "sha256"
        ).hex(),
        "10e185611492aadd1acbb5b08bcfe56eefe31620325605b096549854871058cd": digest(SECRET, "1748419201", V1),
        "41b83d8c1a07c30aedfef6e0d892d62d081ce8bf760ab6195aee2bab42d81043": digest(SECRET, STAMP, V1 + b"\n"),
        "ee90d777d2fe10dba4cf6258863a097ba067e64d8c9c0c5d392d4a8ef6f113ae": digest(
            SECRET, STAMP, json.dumps(loaded).encode()
        ),
        "7f8a110208f16ca265079f3a01f013c8ae11a51d22064257bd2a298a0030d6bf": digest(SECRET, STAMP, compact),
    }
    right = digest(SECRET, STAMP, V1)
    for expected, got in wrong.items():
        assert got == expected != right


def test_i2_headers() -> None:
    task_id = "b27a21e1-7c39-4aa2-a347-23e828c426f9"
    assert signed_headers(SECRET, task_id, 1, 1748419200.9, V1) == {
        "X-Cloro-Timestamp": STAMP,
        "X-Cloro-Signature": "v1=0ba195369522a3512b0247caae898da4fd7ad7b0fcff659c75249f7a56b3fc84",
        "X-Cloro-Webhook-Id": f"{task_id}-1",
    }


def test_i2_unsigned_deliveries_carry_none_of_the_headers() -> None:
    assert signed_headers(None, "x", 1, 0.0, b"") == {}

"""The form of a token, and the order of scopes."""

from hypothesis import given
from hypothesis import strategies as st

from app.domain.access import NAME_BYTES, SECRET_BYTES, Scope, hash_of, is_same, make_token, prefix_of


@given(
    st.binary(min_size=NAME_BYTES, max_size=NAME_BYTES),
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
def test_a_token_keeps_every_bit_and_is_one_word(name: bytes, secret: bytes) -> None:
    token = make_token(name, secret)
    assert len(token) == len(make_token(bytes(NAME_BYTES), bytes(SECRET_BYTES)))
    assert token.replace("_", "").isalnum()
    prefix = prefix_of(token)
    assert prefix is not None
    assert token.startswith(f"{prefix}_")
    assert is_same(token, hash_of(token))
    changed = bytes([secret[0] ^ 128]) + secret[1:]
    assert not is_same(make_token(name, changed), hash_of(token))


def test_what_is_no_token_has_no_prefix() -> None:
    token = make_token(bytes(NAME_BYTES), bytes(SECRET_BYTES))
    for text in ("", "thk_", token[:-1], token + "0", f" {token}", token.replace("thk", "sk"), f"{token}\n"):
        assert prefix_of(text) is None


def test_each_scope_includes_those_before_it() -> None:
    assert [[str(other) for other in Scope if scope.includes(other)] for scope in Scope] == [
        ["read"],
        ["read", "submit"],
        ["read", "submit", "operate"],
    ]

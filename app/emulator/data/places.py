"""Countries, what each engine offers, and US states: data of the provider, read once (C-K.10, C-G.7)."""

from importlib import resources

import msgspec


class _Places(msgspec.Struct, frozen=True):
    as_of: str
    countries: dict[str, str]
    not_offered: dict[str, list[str]]
    states: dict[str, str]


_PLACES = msgspec.json.decode(
    resources.files("app.emulator").joinpath("data", "places.json").read_bytes(), type=_Places
)

COUNTRIES = frozenset(_PLACES.countries)
COUNTRIES_IN_ORDER = tuple(_PLACES.countries)
"""The documented example lists codes by English country name, so answers keep the order of the data file."""
STATES = _PLACES.states
_OFFERED = {model: COUNTRIES - frozenset(codes) for model, codes in _PLACES.not_offered.items()}
MODELS = tuple(sorted(_OFFERED))


def offered(model: str) -> frozenset[str]:
    """Country codes in which an engine answers; Google News follows Google (C-K.10)."""
    return _OFFERED.get(model, COUNTRIES)

"""Seeded draws: a pure function of (seed, number, purpose), so that no order of arrival can change an
outcome."""

import zlib

_MASK = (1 << 64) - 1
_UNIT = 1.0 / (1 << 53)


def purpose(name: str) -> int:
    """A constant that keeps draws for different purposes independent of each other."""
    return zlib.crc32(name.encode()) << 20


def word(seed: int, number: int, salt: int) -> int:
    """64 well mixed bits (the splitmix64 finalizer); about a microsecond, where hashlib costs several."""
    x = (seed * 0x9E3779B97F4A7C15 + number * 0xD1342543DE82EF95 + salt + 0x632BE59BD9B4E019) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def draw(seed: int, number: int, salt: int) -> float:
    """Uniform in [0, 1)."""
    return (word(seed, number, salt) >> 11) * _UNIT

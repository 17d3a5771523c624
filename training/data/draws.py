"""Numbers that follow from what they are drawn for, on every machine: the seeds of all draws."""

import hashlib


def number_of(text: str, size: int = 8) -> int:
    """A number of `size` bytes that follows from a text (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "big")


def seed_of(*parts: object) -> int:
    """A seed below 2^63 that follows from these values."""
    return number_of("\0".join(map(str, parts))) >> 1

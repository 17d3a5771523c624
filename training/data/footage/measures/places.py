"""Which frames of a shot a measure looks at, by their numbers from the shot's first."""

from collections.abc import Sequence

SHARES = (0.1, 0.5, 0.9)  # the original's, of a shot's length


def at_shares(total: int, shares: Sequence[float] = SHARES) -> list[int]:
    """The frames at these shares of a shot of `total` frames, ascending, each once; a picture's only one."""
    return sorted({min(int(share * total), total - 1) for share in shares}) if total > 0 else []


def every(total: int, stride: int, count: int) -> list[int]:
    """Frame 0 and every `stride`-th behind it, `count` of them at most, as many as a shot of `total` frames has."""
    return list(range(0, total, stride))[:count]

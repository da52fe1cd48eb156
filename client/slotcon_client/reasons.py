"""Why an image has no features, as served models say it."""

from __future__ import annotations

OK, EMPTY, UNKNOWN, TOO_LARGE, DAMAGED, NOT_SERVED = range(6)
REASONS = (
    "ok",
    "empty",
    "no known image format",
    "too many pixels",
    "damaged",
    "not served: send it as an 8-bit PNG",
)


def reason_of(code: int) -> str:
    """A code as text; a newer model may have codes that are not known here.

    Example:
        >>> reason_of(0), reason_of(99)
        ('ok', 'reason 99')
    """
    return REASONS[code] if 0 <= code < len(REASONS) else f"reason {code}"

"""Numbers as the text of a table's cells. Undefined ones are "-"; those over seeds are mean ± half of an interval."""

import math

from acrn_jax.report import published
from acrn_jax.results import Estimate, Value


def mean(value: Value) -> float | None:
    """The number itself, or an estimate's mean."""
    return value.mean if isinstance(value, Estimate) else value


def finite(value: Value) -> bool:
    """Whether there is a number to show."""
    number = mean(value)
    return number is not None and math.isfinite(number)


def number(value: Value, digits: int = 3, factor: float = 1.0) -> str:
    """A number times `factor`; of an estimate with half of its interval."""
    if not finite(value):
        return "-"
    text = f"{factor * mean(value):.{digits}f}"
    if isinstance(value, Estimate) and math.isfinite(value.half_width):
        text += f" ± {factor * value.half_width:.{digits}f}"
    return text


def percent(value: Value) -> str:
    """A fraction in per cent."""
    return number(value, 1, 100.0)


def percent_over_repeats(value: Value, std: float | None) -> str:
    """As `percent`, with the standard deviation over a protocol's repeats where the value is not over seeds."""
    return percent(value) + (f" ± {100 * std:.1f}" if finite(std) and not isinstance(value, Estimate) else "")


def printed(value: float | None) -> str:
    """A number in per cent already, as publications print it."""
    return number(value, 1)


def signed_percent(value: float | None) -> str:
    """A difference of fractions in per cent, with its sign."""
    return f"{100 * value:+.1f}" if finite(value) else "-"


def count(value: int | None) -> str:
    """A count, thousands apart."""
    return "-" if value is None else f"{value:,}"


def attribute(name: str) -> str:
    """The literature's name of a PETA attribute; other names as they are."""
    return published.DISPLAY.get(name, name)

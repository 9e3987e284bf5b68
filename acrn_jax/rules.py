"""What a key of the config may hold, written as an annotation of the record's field that takes it.

    @dataclasses.dataclass(frozen=True)
    class Augment:
        enlarge: Annotated[float, number(1)]
        flip: Share

`of(Augment)` gives the rule of each key. A plain `bool`, `str` or `str | None` needs no annotation.
"""

import dataclasses
import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple


class Rule(NamedTuple):
    """Of one key: whether a value fits, and the end of the sentence for one that does not."""

    fits: Callable[[Any], bool]
    wanted: str


def one_of(*names: Any) -> Rule:
    return Rule(lambda value: value in names, f"known: {', '.join(map(str, names))}")


def number(least: float = 0, below: float = math.inf, *, most: float = math.inf, above: float = -math.inf) -> Rule:
    """A finite number in [least, below), at most `most` and above `above`."""
    limits = [f"above {above:g}" if above > -math.inf else f"of at least {least:g}"]
    limits += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)

    def fits(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and least <= value < below
            and above < value <= most
            and math.isfinite(value)
        )

    return Rule(fits, f"it must be a number {' and '.join(limits)}")


def whole(least: int = 0, most: int | None = None) -> Rule:
    limit = f"of at least {least}" + (f" and at most {most}" if most else "")

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= (most or math.inf)

    return Rule(fits, f"it must be a whole number {limit}")


def several(rule: Rule, count: int | None = None) -> Rule:
    """A list or tuple whose entries all fit."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and all(map(rule.fits, value))
            and len(value) == (len(value) if count is None else count)
        )

    return Rule(fits, f"it must be a list{f' of {count}' if count else ''}; each entry: {rule.wanted}")


def maybe(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.fits(value), f"{rule.wanted} (or None)")


TEXT = Rule(lambda value: isinstance(value, str) and bool(value), "it must be a text")
FLAG = Rule(lambda value: isinstance(value, bool), "it must be True or False")
PLAIN = {str: TEXT, bool: FLAG, str | None: maybe(TEXT)}

Share = Annotated[float, number(0, most=1)]  # between 0 and 1
NotNegative = Annotated[float, number()]
Positive = Annotated[float, number(above=0)]
Count = Annotated[int, whole(1)]
CountOrZero = Annotated[int, whole()]
Flag = Annotated[bool, FLAG]


def of(record: type, prefix: str = "", *, plain: Mapping[Any, Rule] = PLAIN) -> dict[str, Rule]:
    """Dotted key -> rule, of a record's fields and those of the records in it.

    Fields that have no rule, and are no record, are no keys of the config: a module's `dtype`, say. A key that Python
    keeps for itself has an underscore behind it as a field: `from_`. `plain` are the types that need no annotation.
    """
    found = {}
    for name, hint in inspect.get_annotations(record).items():
        key = prefix + name.removesuffix("_")
        if dataclasses.is_dataclass(hint):
            found |= of(hint, f"{key}.", plain=plain)
        elif rule := next((part for part in typing.get_args(hint) if isinstance(part, Rule)), plain.get(hint)):
            found[key] = rule
    return found


def check(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """ValueError for the first value, by dotted key, that does not fit its rule."""
    for key, rule in rules.items():
        if key in values and not rule.fits(values[key]):
            raise ValueError(f"config.{key} is {values[key]!r}; {rule.wanted}.")


def record(kind: type, tree: Mapping[str, Any]) -> Any:
    """The record `kind` of a tree of checked values; lists become tuples."""
    values = {}
    for name, hint in inspect.get_annotations(kind).items():
        key = name.removesuffix("_")
        if key not in tree:
            continue
        value = tree[key]
        values[name] = record(hint, value) if dataclasses.is_dataclass(hint) else _frozen(value)
    return kind(**values)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value

"""Operations, bytes and memory of a traced program, by layer group: what a roofline is made of.

The model of a compiler: results of convolutions, products, sums and of what reads or writes by index lie in memory; all
else is fused into whatever reads it, so that it costs operations and no bytes, but for values that such an operation
wants as input.
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

PRODUCTS = ("dot_general", "conv_general_dilated")
COLLECTIVES = ("psum", "psum_invariant", "all_gather", "reduce_scatter", "psum_scatter", "all_gather_invariant")
IN_MEMORY = (
    *PRODUCTS,
    *COLLECTIVES,
    *("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "cumsum", "sort", "top_k"),
    *("gather", "scatter", "scatter-add", "dynamic_update_slice", "reduce_window"),
)
FREE = ("reshape", "broadcast_in_dim", "squeeze", "copy", "stop_gradient", "platform_index", "pvary", "transpose")


@dataclasses.dataclass(eq=False)
class Value:
    shape: tuple[int, ...]
    bytes: int


@dataclasses.dataclass
class Operation:
    name: str
    group: str  # of layers
    inputs: list[Value]
    outputs: list[Value]
    flop: float
    times: int = 1  # how often a loop runs it


@dataclasses.dataclass
class Cost:
    """Of a group of layers: forward and backward pass together, of the whole batch."""

    products: float = 0.0  # floating-point operations of convolutions and matrix products
    other: float = 0.0  # of the rest
    bytes: float = 0.0

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The roofline's bound: products or memory, whichever takes longer; the rest hides behind memory."""
        return max(self.products / rate, self.bytes / bandwidth)


def operations(closed: Any, *, accelerator: bool = True) -> tuple[list[Operation], list[Value], list[Value]]:
    """(operations whose results are used, inputs, outputs) of a program out of jax.make_jaxpr, nested ones included."""
    inputs = [_value(var) for var in closed.jaxpr.invars]
    found: list[Operation] = []
    outputs = _inline(closed.jaxpr, inputs, "", 1, accelerator, found)
    wanted, kept = {id(value) for value in outputs}, []
    for operation in reversed(found):
        if any(id(value) in wanted for value in operation.outputs):
            wanted |= {id(value) for value in operation.inputs}
            kept.append(operation)
    return kept[::-1], inputs, outputs


def costs(found: list[Operation]) -> dict[str, Cost]:
    """Cost of each layer group, in the order in which they are first computed; collectives are not counted."""
    groups: dict[str, Cost] = {}
    in_memory = _in_memory(found)
    read: set[tuple[str, int]] = set()
    for operation in found:
        cost = groups.setdefault(operation.group, Cost())
        if operation.name in COLLECTIVES:
            continue
        flop = operation.flop * operation.times
        if operation.name in PRODUCTS:
            cost.products += flop
        else:
            cost.other += flop
        if operation.name in IN_MEMORY:
            moved = [*operation.inputs, *operation.outputs]
        else:  # fused: reads each map that lies in memory once a group, and writes what others want there
            moved = [v for v in operation.outputs if id(v) in in_memory]
            moved += [v for v in operation.inputs if id(v) in in_memory and (operation.group, id(v)) not in read]
            read |= {(operation.group, id(v)) for v in operation.inputs}
        cost.bytes += operation.times * sum(v.bytes for v in moved)
    return groups


def communication(found: list[Operation]) -> dict[str, int]:
    """Bytes that go into each kind of collective on one device, and how many there are as `calls`."""
    sums: dict[str, int] = {"calls": 0}
    for operation in found:
        if operation.name in COLLECTIVES:
            kind = "all_gather" if "gather" in operation.name else "all_reduce"
            sums[kind] = sums.get(kind, 0) + operation.times * sum(v.bytes for v in operation.inputs)
            sums["calls"] += operation.times
    return sums


def peak_memory(found: list[Operation], inputs: list[Value], outputs: list[Value]) -> int:
    """Bytes of inputs, and of the values in memory that are alive at once, freed after their last use."""
    in_memory = _in_memory(found)
    last = {id(value): i for i, operation in enumerate(found) for value in operation.inputs}
    last |= {id(value): len(found) for value in outputs}
    # A fused operation is computed where it is read: what it reads must live until then.
    for i, operation in reversed(list(enumerate(found))):
        ends = max((last.get(id(v), i) for v in operation.outputs if id(v) not in in_memory), default=i)
        for value in operation.inputs:
            last[id(value)] = max(last[id(value)], ends)
    held = most = sum(value.bytes for value in inputs)
    ending: dict[int, int] = {}
    for i, operation in enumerate(found):
        for value in operation.outputs:
            if id(value) in in_memory:
                held += value.bytes
                ends = last.get(id(value), i)
                ending[ends] = ending.get(ends, 0) + value.bytes
        most = max(most, held)
        held -= ending.pop(i, 0)
    return most


def _in_memory(found: list[Operation]) -> set[int]:
    heavy = [operation for operation in found if operation.name in IN_MEMORY]
    return {id(value) for operation in heavy for value in (*operation.inputs, *operation.outputs)}


def _inline(jaxpr, inputs, above, times, accelerator, found) -> list[Value]:
    """Adds the operations of a program to `found`, those of nested ones in their place; gives the values it returns."""
    known = dict(zip(jaxpr.invars, inputs, strict=True)) | {var: _value(var) for var in jaxpr.constvars}

    def of(var):
        return _value(var) if hasattr(var, "val") else known[var]

    for equation in jaxpr.eqns:
        name, scope = equation.primitive.name, f"{above}/{equation.source_info.name_stack}"
        values = [of(var) for var in equation.invars]
        nested, repeats = _nested(equation, accelerator)
        if nested is not None:
            given = values[1:] if name == "cond" else values
            taken = _linked(given, nested.invars, found)  # a loop's body sees rows of what the loop is given
            returned = _inline(nested, taken, scope, times * repeats, accelerator, found)
            results = _linked(returned, equation.outvars, found)  # and the loop stacks what its body returns
        else:
            results = [_value(var) for var in equation.outvars]
            flop = 0 if name in FREE else flop_of(equation)
            found.append(Operation(name, group_of(scope), values, results, flop, times))
        known |= zip(equation.outvars, results, strict=True)
    return [of(var) for var in jaxpr.outvars]


def _linked(values: list[Value], variables, found) -> list[Value]:
    """Values for variables: the same where the shape is, else new ones that hang on those given."""
    new = [v if v.shape == tuple(var.aval.shape) else _value(var) for v, var in zip(values, variables, strict=True)]
    found += [Operation("slice", "", [v], [n], 0) for v, n in zip(values, new, strict=True) if v is not n]
    return new


def _nested(equation, accelerator) -> tuple[Any, int]:
    """(the program within an equation or None, how often it runs)."""
    given = equation.params
    if equation.primitive.name == "cond":
        branches = given["branches"]  # of lax.platform_dependent: the CPU's first, the others' last
        return branches[-1 if accelerator else 0].jaxpr, 1
    if equation.primitive.name in ("scatter", "scatter-add", "reduce_window", "sort", "while"):
        return None, 1
    inner = next((given[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in given), None)
    return getattr(inner, "jaxpr", inner), given.get("length", 1)


def group_of(scope: str) -> str:
    """Layer group of a name stack: "jvp(ACRN)/stem0/conv" -> "stem0".

    >>> group_of("/transpose(jvp(MVA))/trunk/inception3a/branch1/conv0"), group_of("/jvp()/mul"), group_of("/add")
    ('trunk/inception3a', 'loss', 'optimiser')
    """
    path = re.search(r"\((?:ACRN|MVA)\)+/([^/]+)(?:/([^/]+))?", scope)
    if path:
        return f"{path[1]}/{path[2]}" if path[1] == "trunk" and path[2] else path[1]
    return "loss" if "(" in scope else "optimiser"


def flop_of(equation: Any) -> float:
    """Floating-point operations of one equation: two for each product that is summed, one for each other number."""
    shapes = [var.aval.shape for var in equation.invars]
    out = equation.outvars[0].aval.shape
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * math.prod(out) * math.prod(shapes[0][i] for i in contracted)
    if equation.primitive.name == "conv_general_dilated":
        return _flop_of_convolution(shapes, out, equation.params)
    if equation.primitive.name.startswith(("reduce", "arg")):
        return float(math.prod(shapes[0]))
    return float(math.prod(out))


def _flop_of_convolution(shapes, out, given) -> float:
    numbers = given["dimension_numbers"]
    taps = 1.0  # products of a place of the output, padding and holes left out, summed over places
    for k, (low, _) in enumerate(given["padding"]):
        size, window, places = (s[d[2 + k]] for s, d in zip((*shapes, out), numbers, strict=True))
        at = (
            np.arange(places)[:, None] * given["window_strides"][k] + np.arange(window) * given["rhs_dilation"][k] - low
        )
        spread = given["lhs_dilation"][k]
        taps *= float(np.sum((at >= 0) & (at % spread == 0) & (at < (size - 1) * spread + 1)))
    rows, channels = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2.0 * rows * channels * taps * shapes[1][numbers.rhs_spec[1]]  # channels in, of one group


def _value(var) -> Value:
    aval = var.aval
    size = getattr(aval.dtype, "itemsize", 4)
    return Value(tuple(aval.shape), math.prod(aval.shape) * size)


def total(costs_by_group: dict[str, Cost]) -> Cost:
    """The sum over groups."""
    summed = Cost()
    for cost in costs_by_group.values():
        summed = Cost(summed.products + cost.products, summed.other + cost.other, summed.bytes + cost.bytes)
    return summed

"""Compiled loops of sampling on a CPU: what lies between the matrix multiplications, one row at a time.

Each row is computed by loops of its own, in an order that depends on the row alone: so a result never depends on
what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 16
"""Partial sums that a sum is split into, so that its order is fixed and it can still be vectorised."""
F = np.float32
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compiles at the first call and keeps the result on disk where that is possible."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        result: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache can be written
        result = numba.njit(**options)(function)
    return result


@intrinsic  # type: ignore[untyped-decorator]
def as_float(_context: Any, _integer: Any) -> Any:
    """The float32 with the bits of an int32."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


@compiled
def exp2(x: Any) -> Any:
    """2 to the power of x in [-126, 127], to about one unit in the last place; smaller x give 2 ** -126."""
    x = max(x, F(-126.0))
    whole = math.floor(x + F(0.5))
    rest = x - whole
    value = F(1.5403530e-4)
    value = value * rest + F(1.3333558e-3)
    value = value * rest + F(9.6181291e-3)
    value = value * rest + F(5.5504109e-2)
    value = value * rest + F(2.4022651e-1)
    value = value * rest + F(6.9314718e-1)
    value = value * rest + F(1.0)
    return value * as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@compiled
def ordered_sum(values: Any, start: int, stop: int, parts: Any) -> Any:
    """Sum of values[start:stop] in an order that depends on start and stop alone; `parts` is scratch."""
    for lane in range(LANES):
        parts[lane] = F(0)
    full = start + (stop - start) // LANES * LANES
    for at in range(start, full, LANES):
        for lane in range(LANES):
            parts[lane] += values[at + lane]
    total = F(0)
    for lane in range(LANES):
        total += parts[lane]
    for at in range(full, stop):
        total += values[at]
    return total


@compiled
def largest(values: Any, stop: int, parts: Any) -> Any:
    """The largest of values[:stop]; `parts` is scratch."""
    for lane in range(LANES):
        parts[lane] = values[0]
    full = stop // LANES * LANES
    for at in range(0, full, LANES):
        for lane in range(LANES):
            value = values[at + lane]
            parts[lane] = value if value > parts[lane] else parts[lane]
    largest = parts[0]
    for lane in range(1, LANES):
        largest = max(largest, parts[lane])
    for at in range(full, stop):
        largest = max(largest, values[at])
    return largest


@compiled
def add_and_normalize(states: Any, more: Any, weight: Any, epsilon: Any, result: Any) -> None:
    """`states += more`, then RMSNorm.

    Args:
        states: [rows, width] fp32, changed in place.
        more: Like `states`, or [0, width] for nothing.
        weight: [width].
        epsilon: RMSNorm's.
        result: [rows, width].
    """
    rows, width = states.shape
    parts = np.empty(LANES, np.float32)
    squares = np.empty(width, np.float32)
    for row in range(rows):
        state = states[row]
        if len(more):
            other = more[row]
            for at in range(width):
                state[at] += other[at]
        for at in range(width):
            squares[at] = state[at] * state[at]
        mean = ordered_sum(squares, 0, width, parts) / F(width)
        factor = F(1) / np.sqrt(mean + F(epsilon))
        out = result[row]
        for at in range(width):
            out[at] = state[at] * factor * weight[at]


@compiled
def gate(gates: Any, result: Any) -> None:
    """SiLU of the first half times the second half: [rows, 2 * n] to [rows, n]."""
    rows, width = result.shape
    for row in range(rows):
        line, out = gates[row], result[row]
        for at in range(width):
            x = line[at]
            out[at] = x / (F(1) + exp2(-x * F(1.4426950408889634))) * line[width + at]

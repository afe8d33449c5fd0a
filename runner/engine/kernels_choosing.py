"""Compiled loops from logits to tokens and log-probs, one row after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from charrun.engine.kernels import LANES, F, as_float, compiled, exp2, ordered_sum
from charrun.engine.kernels import largest as find_largest

_FEW = 24
"""So many candidates are sorted one by one."""


@intrinsic  # type: ignore[untyped-decorator]
def _as_int(_context: Any, _number: Any) -> Any:
    """The int32 with the bits of a float32."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


@compiled
def _log_norm(logits: Any, powers: Any, parts: Any) -> tuple[Any, Any]:
    """Largest logit and the log of the summed exponentials; `powers` becomes exp(logit - largest)."""
    width = len(logits)
    largest = find_largest(logits, width, parts)
    for at in range(width):
        powers[at] = exp2((logits[at] - largest) * F(1.4426950408889634))
    total = ordered_sum(powers, 0, width, parts)
    return largest, largest + F(math.log(total))


@compiled
def score(logits: Any, targets: Any, norms: Any, result: Any) -> None:
    """Log-probs of targets.

    Args:
        logits: [rows, vocabulary].
        targets: [rows] tokens.
        norms: [rows], becomes the log of the summed exponentials.
        result: [rows].
    """
    rows, width = logits.shape
    powers, parts = np.empty(width, np.float32), np.empty(LANES, np.float32)
    for row in range(rows):
        _, norms[row] = _log_norm(logits[row], powers, parts)
        result[row] = logits[row, targets[row]] - norms[row]


@compiled
def _mass_from(powers: Any, least: Any, kept: Any, parts: Any) -> Any:
    """Sum of those at least as large as `least`; `kept` is scratch."""
    for at in range(len(powers)):
        kept[at] = powers[at] if powers[at] >= least else F(0)
    return ordered_sum(kept, 0, len(powers), parts)


@compiled
def _count_from(powers: Any, least: Any) -> Any:
    """How many are at least as large as `least`."""
    count = np.int32(0)
    for at in range(len(powers)):
        count += np.int32(powers[at] >= least)
    return int(count)


@compiled
def _least_kept(powers: Any, top_k: int, top_p: Any, kept: Any, parts: Any) -> Any:
    """The smallest power that survives top-k and then top-p; those that equal it survive too.

    Bisects on the bits of positive floats, which are ordered as the floats are.
    """
    limit = F(0)
    if top_k < len(powers):
        low, high = np.int32(0), _as_int(F(1)) + np.int32(1)
        while high - low > 1:
            middle = low + (high - low) // np.int32(2)
            if _count_from(powers, as_float(middle)) >= top_k:
                low = middle
            else:
                high = middle
        limit = as_float(low)
    if top_p < 1:
        limit = _nucleus(powers, limit, F(top_p) * _mass_from(powers, limit, kept, parts), kept, parts)
    return limit


@compiled
def _nucleus(powers: Any, limit: Any, wanted: Any, kept: Any, parts: Any) -> Any:
    """The largest power such that those not smaller sum up to `wanted`; bisects until few are left to look at."""
    low, high = _as_int(limit), _as_int(F(1)) + np.int32(1)
    many, few, above = len(powers), 0, F(0)
    while high - low > 1 and many - few > _FEW:
        middle = low + (high - low) // np.int32(2)
        least = as_float(middle)
        mass = _mass_from(powers, least, kept, parts)
        if mass >= wanted:
            low, many = middle, _count_from(powers, least)
        else:
            high, few, above = middle, _count_from(powers, least), mass
    if high - low <= 1:
        return as_float(low)
    least, below = as_float(low), as_float(high)
    count = 0
    for at in range(len(powers)):
        if powers[at] >= least and powers[at] < below:
            place = count
            while place > 0 and kept[place - 1] < powers[at]:
                kept[place] = kept[place - 1]
                place -= 1
            kept[place] = powers[at]
            count += 1
    for place in range(count):
        above += kept[place]
        if above >= wanted:
            return kept[place]
    return least


@compiled
def _draw(powers: Any, uniform: Any, parts: Any) -> Any:
    """The token at a uniform number's place in the cumulative sum."""
    width = len(powers)
    run = 256
    total = 0.0
    for start in range(0, width, run):
        total += ordered_sum(powers, start, min(start + run, width), parts)
    wanted, passed = uniform * total, 0.0
    last = 0
    for start in range(0, width, run):
        stop = min(start + run, width)
        mass = ordered_sum(powers, start, stop, parts)
        if passed + mass > wanted:
            for at in range(start, stop):
                if powers[at] > 0:
                    passed += powers[at]
                    last = at
                    if passed > wanted:
                        return at
            return last
        if mass > 0:
            last = start
            for at in range(start, stop):
                if powers[at] > 0:
                    last = at
        passed += mass
    return last


@compiled
def choose(
    logits: Any,
    sources: Any,
    temperatures: Any,
    top_ks: Any,
    top_ps: Any,
    uniforms: Any,
    tokens: Any,
    logprobs: Any,
) -> None:
    """Chooses one token per row.

    Args:
        logits: [n, vocabulary].
        sources: [rows] line of `logits` of each row.
        temperatures: [rows] fp32, 0 for the likeliest token.
        top_ks: [rows]; below 1 for no limit.
        top_ps: [rows] fp32 in (0, 1].
        uniforms: [rows] fp64 in [0, 1).
        tokens: [rows], becomes the tokens.
        logprobs: [rows], becomes their log-probs in the model's own distribution: at temperature 1, before any cut.
    """
    width = logits.shape[1]
    powers, kept = np.empty(width, np.float32), np.empty(width, np.float32)
    parts = np.empty(LANES, np.float32)
    for row in range(len(sources)):
        line = logits[sources[row]]
        largest, norm = _log_norm(line, powers, parts)
        temperature = temperatures[row]
        token = 0
        if temperature == 0:
            while line[token] < largest and token < width - 1:
                token += 1
        else:
            if temperature != 1:
                factor = F(1.4426950408889634) / temperature
                for at in range(width):
                    powers[at] = exp2((line[at] - largest) * factor)
            top_k = top_ks[row] if top_ks[row] > 0 else width
            if top_k < width or top_ps[row] < 1:
                least = _least_kept(powers, top_k, top_ps[row], kept, parts)
                for at in range(width):
                    powers[at] = powers[at] if powers[at] >= least else F(0)
            token = _draw(powers, uniforms[row], parts)
        tokens[row] = token
        logprobs[row] = line[token] - norm

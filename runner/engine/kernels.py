"""Compiled loops of sampling on a CPU: what lies between the matrix multiplications, one row at a time.

Each row is computed by loops of its own, in an order that depends on the row alone: so a result never depends on
what else is in the batch. Arrays of keys and values come in blocks (see blocks.py); K is transposed within a block so
that scores of neighbouring positions lie side by side.
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

from charrun.engine.blocks import BLOCK

LANES = 16
"""Partial sums that a sum is split into, so that its order is fixed and it can still be vectorised."""
_FEW = 24
"""So many candidates are sorted one by one."""

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


@intrinsic  # type: ignore[misc]
def _as_float(_context: Any, _integer: Any) -> Any:
    """The float32 with the bits of an int32."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


@intrinsic  # type: ignore[misc]
def _as_int(_context: Any, _number: Any) -> Any:
    """The int32 with the bits of a float32."""

    def build(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


@intrinsic  # type: ignore[misc]
def _fetch(_context: Any, _array: Any, _index: Any) -> Any:
    """Asks for the cache line of element `index` of a contiguous fp32 array [rows, columns] seen as one line."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", (ir.IntType(8).as_pointer(),), kind)
        builder.call(prefetch, [pointer, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(_array, types.intp), build


@compiled
def exp2(x: float) -> float:
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
    return value * _as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@compiled
def _ordered_sum(values: Any, start: int, stop: int, parts: Any) -> float:
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
def add_and_normalize(states: Any, more: Any, weight: Any, epsilon: float, result: Any) -> None:
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
        mean = _ordered_sum(squares, 0, width, parts) / F(width)
        factor = F(1) / np.sqrt(mean + F(epsilon))
        out = result[row]
        for at in range(width):
            out[at] = state[at] * factor * weight[at]


@compiled
def _turn_head(head: Any, weight: Any, epsilon: float, cos: Any, sin: Any, squares: Any, parts: Any) -> None:
    """Normalises one head where `weight` is not empty, then turns it by its position's angles, in place."""
    size = len(head)
    half = size // 2
    if len(weight):
        for at in range(size):
            squares[at] = head[at] * head[at]
        factor = F(1) / np.sqrt(_ordered_sum(squares, 0, size, parts) / F(size) + F(epsilon))
        for at in range(size):
            head[at] = head[at] * factor * weight[at]
    for at in range(half):
        first, second = head[at], head[half + at]
        head[at] = first * cos[at] - second * sin[at]
        head[half + at] = second * cos[at] + first * sin[at]


@compiled
def place_heads(
    heads: Any,
    query_weight: Any,
    key_weight: Any,
    epsilon: float,
    cosines: Any,
    sines: Any,
    positions: Any,
    rows: Any,
    tables: Any,
    keys: Any,
    values: Any,
) -> None:
    """Makes queries and keys ready for attention, in place, and stores keys and values in their blocks.

    Args:
        heads: [tokens, query heads + 2 * key heads, head size], as projected.
        query_weight: [head size] of the queries' RMSNorm, or [0] for none.
        key_weight: The keys' one.
        epsilon: RMSNorm's.
        cosines: [positions, half the head size].
        sines: Like `cosines`.
        positions: [tokens] position of each token in its sequence.
        rows: [tokens] row of `tables` of its sequence.
        tables: [sequences, blocks per sequence] block numbers.
        keys: [blocks, key heads, head size, BLOCK] of this layer.
        values: [blocks, key heads, BLOCK, head size].
    """
    tokens, count, size = heads.shape
    key_heads = keys.shape[1]
    query_heads = count - 2 * key_heads
    parts, squares = np.empty(LANES, np.float32), np.empty(size, np.float32)
    for token in range(tokens):
        position = positions[token]
        block, place = tables[rows[token], position // BLOCK], position % BLOCK
        cos, sin = cosines[position], sines[position]
        for head in range(query_heads):
            _turn_head(heads[token, head], query_weight, epsilon, cos, sin, squares, parts)
        for head in range(key_heads):
            key, value = heads[token, query_heads + head], heads[token, query_heads + key_heads + head]
            _turn_head(key, key_weight, epsilon, cos, sin, squares, parts)
            for at in range(size):
                keys[block, head, at, place] = key[at]
                values[block, head, place, at] = value[at]


@compiled
def _score_block(query: Any, block: Any, following: Any, scale: float, scores: Any) -> None:
    """scores[j] = scale * query . key j, for all keys of a block [head size, BLOCK]; the following one is fetched."""
    size = len(query)
    for at in range(BLOCK):
        scores[at] = F(0)
    for first in range(0, size, 4):
        a, b = query[first] * scale, query[first + 1] * scale
        c, d = query[first + 2] * scale, query[first + 3] * scale
        keys_a, keys_b, keys_c, keys_d = block[first], block[first + 1], block[first + 2], block[first + 3]
        for line in range(first * BLOCK, (first + 4) * BLOCK, LANES):
            _fetch(following, line)
        for at in range(BLOCK):
            scores[at] = (((scores[at] + a * keys_a[at]) + b * keys_b[at]) + c * keys_c[at]) + d * keys_d[at]


@compiled
def _add_values(weights: Any, block: Any, following: Any, result: Any) -> None:
    """result += weights . values of a block [BLOCK, head size]; the following block is fetched meanwhile."""
    size = len(result)
    for first in range(0, BLOCK, 4):
        for line in range(first * size, (first + 4) * size, LANES):
            _fetch(following, line)
        a, b, c, d = weights[first], weights[first + 1], weights[first + 2], weights[first + 3]
        value_a, value_b, value_c, value_d = block[first], block[first + 1], block[first + 2], block[first + 3]
        for at in range(size):
            result[at] = (((result[at] + a * value_a[at]) + b * value_b[at]) + c * value_c[at]) + d * value_d[at]


@compiled
def attend(
    heads: Any,
    positions: Any,
    rows: Any,
    tables: Any,
    keys: Any,
    values: Any,
    scale: float,
    chosen: Any,
    result: Any,
) -> None:
    """Attention of some tokens to all positions of their sequences up to their own.

    Args:
        heads: [tokens, query heads + 2 * key heads, head size] after `place_heads`; the queries come first.
        positions: [tokens].
        rows: [tokens] row of `tables`.
        tables: [sequences, blocks per sequence].
        keys: [blocks, key heads, head size, BLOCK].
        values: [blocks, key heads, BLOCK, head size].
        scale: Of the scores, times log2(e).
        chosen: [n] tokens whose attention is wanted.
        result: [n, query heads, head size].
    """
    key_heads, size = keys.shape[1], keys.shape[2]
    query_heads = heads.shape[1] - 2 * key_heads
    group = query_heads // key_heads
    most = 0
    for number in range(len(chosen)):
        most = max(most, positions[chosen[number]] // BLOCK + 1)
    scores = np.empty((group, most * BLOCK), np.float32)
    parts = np.empty(LANES, np.float32)
    for number in range(len(chosen)):
        token = chosen[number]
        seen = positions[token] + 1
        blocks = (seen + BLOCK - 1) // BLOCK
        table = tables[rows[token]]
        for key_head in range(key_heads):
            for block in range(blocks):
                span = slice(block * BLOCK, (block + 1) * BLOCK)
                for member in range(group):
                    query = heads[token, key_head * group + member]
                    if block + 1 < blocks:
                        following = keys[table[block + 1], key_head]
                    else:
                        following = values[table[0], key_head]
                    _score_block(query, keys[table[block], key_head], following, scale, scores[member, span])
            for member in range(group):
                line = scores[member]
                largest = line[0]
                for at in range(1, seen):
                    largest = max(largest, line[at])
                for at in range(seen):
                    line[at] = exp2(line[at] - largest)
                for at in range(seen, blocks * BLOCK):
                    line[at] = F(0)
                out = result[number, key_head * group + member]
                for at in range(size):
                    out[at] = F(0)
            for block in range(blocks):
                span = slice(block * BLOCK, (block + 1) * BLOCK)
                for member in range(group):
                    if block + 1 < blocks:
                        following = values[table[block + 1], key_head]
                    else:
                        following = keys[table[0], (key_head + 1) % key_heads]
                    out = result[number, key_head * group + member]
                    _add_values(scores[member, span], values[table[block], key_head], following, out)
            for member in range(group):
                out = result[number, key_head * group + member]
                factor = F(1) / _ordered_sum(scores[member], 0, blocks * BLOCK, parts)
                for at in range(size):
                    out[at] *= factor


@compiled
def gate(gates: Any, result: Any) -> None:
    """SiLU of the first half times the second half: [rows, 2 * n] to [rows, n]."""
    rows, width = result.shape
    for row in range(rows):
        line, out = gates[row], result[row]
        for at in range(width):
            x = line[at]
            out[at] = x / (F(1) + exp2(-x * F(1.4426950408889634))) * line[width + at]


@compiled
def _log_norm(logits: Any, powers: Any, parts: Any) -> tuple[float, float]:
    """Largest logit and the log of the summed exponentials; `powers` becomes exp(logit - largest)."""
    width = len(logits)
    largest = logits[0]
    for at in range(1, width):
        largest = max(largest, logits[at])
    for at in range(width):
        powers[at] = exp2((logits[at] - largest) * F(1.4426950408889634))
    total = _ordered_sum(powers, 0, width, parts)
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
def _mass_from(powers: Any, least: float, kept: Any, parts: Any) -> float:
    """Sum of those at least as large as `least`; `kept` is scratch."""
    for at in range(len(powers)):
        kept[at] = powers[at] if powers[at] >= least else F(0)
    return _ordered_sum(kept, 0, len(powers), parts)


@compiled
def _count_from(powers: Any, least: float) -> int:
    """How many are at least as large as `least`."""
    count = np.int32(0)
    for at in range(len(powers)):
        count += np.int32(powers[at] >= least)
    return int(count)


@compiled
def _least_kept(powers: Any, top_k: int, top_p: float, kept: Any, parts: Any) -> float:
    """The smallest power that survives top-k and then top-p; those that equal it survive too.

    Bisects on the bits of positive floats, which are ordered as the floats are.
    """
    limit = F(0)
    if top_k < len(powers):
        low, high = np.int32(0), _as_int(F(1)) + np.int32(1)
        while high - low > 1:
            middle = low + (high - low) // np.int32(2)
            if _count_from(powers, _as_float(middle)) >= top_k:
                low = middle
            else:
                high = middle
        limit = _as_float(low)
    if top_p < 1:
        limit = _nucleus(powers, limit, F(top_p) * _mass_from(powers, limit, kept, parts), kept, parts)
    return limit


@compiled
def _nucleus(powers: Any, limit: float, wanted: float, kept: Any, parts: Any) -> float:
    """The largest power such that those not smaller sum up to `wanted`; bisects until few are left to look at."""
    low, high = _as_int(limit), _as_int(F(1)) + np.int32(1)
    many, few, above = len(powers), 0, F(0)
    while high - low > 1 and many - few > _FEW:
        middle = low + (high - low) // np.int32(2)
        least = _as_float(middle)
        mass = _mass_from(powers, least, kept, parts)
        if mass >= wanted:
            low, many = middle, _count_from(powers, least)
        else:
            high, few, above = middle, _count_from(powers, least), mass
    if high - low <= 1:
        return _as_float(low)
    least, below = _as_float(low), _as_float(high)
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
def _draw(powers: Any, uniform: float, parts: Any) -> int:
    """The token at a uniform number's place in the cumulative sum."""
    width = len(powers)
    run = 256
    total = 0.0
    for start in range(0, width, run):
        total += _ordered_sum(powers, start, min(start + run, width), parts)
    wanted, passed = uniform * total, 0.0
    last = 0
    for start in range(0, width, run):
        stop = min(start + run, width)
        mass = _ordered_sum(powers, start, stop, parts)
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
            while line[token] < largest:
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

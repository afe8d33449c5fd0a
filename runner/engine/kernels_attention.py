"""Compiled attention over keys and values in blocks (see blocks.py), one token and one head after the other.

Keys are transposed within a block, so that scores of neighbouring positions lie side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from charrun.engine.blocks import BLOCK
from charrun.engine.kernels import LANES, F, compiled, exp2, largest, ordered_sum


@intrinsic  # type: ignore[untyped-decorator]
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
def _turn_head(head: Any, weight: Any, epsilon: Any, cos: Any, sin: Any, squares: Any, parts: Any) -> None:
    """Normalises one head where `weight` is not empty, then turns it by its position's angles, in place."""
    size = len(head)
    half = size // 2
    if len(weight):
        for at in range(size):
            squares[at] = head[at] * head[at]
        factor = F(1) / np.sqrt(ordered_sum(squares, 0, size, parts) / F(size) + F(epsilon))
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
    epsilon: Any,
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
def _score_block(query: Any, block: Any, following: Any, scale: Any, scores: Any) -> None:
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
    scale: Any,
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
                    following = keys[table[block + 1], key_head] if block + 1 < blocks else values[table[0], key_head]
                    _score_block(query, keys[table[block], key_head], following, scale, scores[member, span])
            for member in range(group):
                line = scores[member]
                most_likely = largest(line, seen, parts)
                for at in range(seen):
                    line[at] = exp2(line[at] - most_likely)
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
                factor = F(1) / ordered_sum(scores[member], 0, blocks * BLOCK, parts)
                for at in range(size):
                    out[at] *= factor

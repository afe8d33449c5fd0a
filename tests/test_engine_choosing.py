"""What sampling rests on: tokens drawn from logits, and blocks lent and found again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from charrun.engine.blocks import BLOCK, BlockPool
from charrun.engine.choosing import Choices, choose


def expected_kept(powers: NDArray[np.float64], top_k: int, top_p: float) -> set[int]:
    """The tokens that survive, by sorting; ties are not expected."""
    order = np.argsort(-powers)
    kept = order[:top_k] if top_k > 0 else order
    mass = powers[kept].cumsum()
    last = int(np.searchsorted(mass, top_p * mass[-1])) if top_p < 1 else len(kept) - 1
    return set(kept[: min(last, len(kept) - 1) + 1].tolist())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    width=st.sampled_from([2, 17, 300, 5000]),
    spread=st.sampled_from([0.01, 1.0, 4.0, 30.0]),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([-1, 1, 7, 100, 10_000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]),
)
def test_only_tokens_that_top_k_and_then_top_p_keep_are_ever_drawn(
    seed: int, width: int, spread: float, temperature: float, top_k: int, top_p: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(width) * spread).astype(np.float32)
    powers = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    slack = 1e-5  # sums in fp32 may fall on either side of the limit
    most = expected_kept(powers, top_k, min(1.0, top_p + slack))
    least = expected_kept(powers, top_k, max(1e-9, top_p - slack)) if top_p < 1 else set()
    count = 400
    choices = Choices(np.full(count, temperature, np.float32), np.full(count, top_k), np.full(count, top_p, np.float32))
    uniforms = (np.arange(count) + 0.5) / count
    tokens, logprobs = choose(torch.from_numpy(logits)[None], np.zeros(count, np.int64), choices, uniforms)
    drawn = set(tokens.tolist())
    assert drawn <= most
    heavy = {token for token in least if powers[token] / powers[list(most)].sum() > 2 / count}
    assert heavy <= drawn
    norm = float(np.log(np.exp(logits.astype(np.float64) - logits.max()).sum()) + logits.max())
    assert logprobs == pytest.approx(logits[tokens] - norm, abs=2e-5)


def test_draws_follow_the_distribution() -> None:
    logits = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    count = 200_000
    choices = Choices(np.full(count, 0.7, np.float32), np.full(count, -1), np.ones(count, np.float32))
    uniforms = np.random.default_rng(1).random(count)
    tokens, _ = choose(torch.from_numpy(logits)[None], np.zeros(count, np.int64), choices, uniforms)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    found = np.bincount(tokens, minlength=50) / count
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / count)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_blocks_are_never_lent_twice_and_never_found_under_another_name(data: st.DataObject) -> None:
    pool, count = BlockPool(12), 12
    held: list[tuple[str, NDArray[np.int64], list[int]]] = []
    truth: dict[int, tuple[str, bytes]] = {}
    for _ in range(data.draw(st.integers(1, 40))):
        if held and data.draw(st.booleans()):
            weights, tokens, blocks = held.pop(data.draw(st.integers(0, len(held) - 1)))
            if data.draw(st.booleans()):
                pool.remember(weights, tokens, blocks)
            pool.give_back(blocks)
            continue
        weights = data.draw(st.sampled_from(["a", "b"]))
        tokens = np.repeat(np.array(data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=4))), BLOCK)
        found, _missing = pool.find(weights, tokens, len(tokens) // BLOCK)
        for number, block in enumerate(found):
            assert truth[block] == (weights, tokens[: (number + 1) * BLOCK].tobytes())
        pool.share(found)
        wanted = len(tokens) // BLOCK - len(found)
        if pool.available < wanted:
            pool.give_back(found)
            continue
        fresh = pool.lend(wanted)
        in_use = {block for _, _, blocks in held for block in blocks} | set(found)
        assert not in_use & set(fresh)
        blocks = found + fresh
        for number, block in enumerate(fresh, len(found)):
            truth[block] = (weights, tokens[: (number + 1) * BLOCK].tobytes())
        held.append((weights, tokens, blocks))
    for _, _, blocks in held:
        pool.give_back(blocks)
    assert pool.available == count

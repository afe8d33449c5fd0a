"""Near-duplicates of a set: texts whose sets of word trigrams have a Jaccard similarity above a threshold.

Candidates come from MinHash signatures in bands (Broder, 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
ch. 3): two texts that share a whole band are compared. There are as many bands as make the chance of missing a pair at
the threshold less than one in a million, and much less above it. A candidate whose signature is too far off for the
threshold (six standard deviations) is none; what is left is compared exactly, so nothing is dropped that is not a
near-duplicate. Hash functions are fixed: the result depends on the texts and their order alone. Time grows with the
number of texts, and with pairs only so far as texts are nearly alike.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from charrun.plugins._words import words_of

_SIZE = 3
_MISS = 1e-6
_MOST_HASHES = 640
_FAR, _LEAST_VARIANCE = 6.0, 0.05
"""Standard deviations; near 1 the share of equal hashes is skewed, so that they are taken as those at 0.95."""

_Hashes = npt.NDArray[np.uint32]
_Keys = npt.NDArray[np.uint64]


def shingles(text: str) -> frozenset[int]:
    """A text's word trigrams, hashed; a shorter text is one."""
    words = words_of(text)
    if len(words) < _SIZE:
        return frozenset({zlib.crc32(" ".join(words).encode())})
    grams = zip(words, words[1:], words[2:], strict=False)
    return frozenset(zlib.crc32(f"{a} {b} {c}".encode()) for a, b, c in grams)


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Indexes of texts that are near-duplicates, each with the earlier text that it is one of.

    A text is compared with those before it that are kept, so the first of a group stays.

    Args:
        texts: In the order in which the earlier one is kept.
        threshold: Jaccard similarity, above 0; identical texts have 1.
    """
    if len(texts) < 2:
        return {}
    sets = [np.array(sorted(shingles(text)), dtype=np.uint32) for text in texts]
    rows, bands = bands_of(threshold)
    signatures = np.stack([_signature(own, rows * bands) for own in sets])
    keys = _band_keys(signatures, rows)
    met = _crowded(keys)
    spread = max(threshold * (1 - threshold), _LEAST_VARIANCE)
    far = threshold - _FAR * math.sqrt(spread / signatures.shape[1])
    postings: dict[tuple[int, int], list[int]] = {}
    found: dict[int, int] = {}
    for index, own in enumerate(sets):
        places = [(int(band), int(keys[index, band])) for band in np.flatnonzero(met[index])]
        candidates = np.array(sorted({other for place in places for other in postings.get(place, ())}), dtype=np.int64)
        if len(candidates):
            candidates = candidates[(signatures[candidates] == signatures[index]).mean(axis=1) >= far]
        twin = next((int(other) for other in candidates if _alike(own, sets[other], threshold)), None)
        if twin is not None:
            found[index] = twin
            continue
        for place in places:
            postings.setdefault(place, []).append(index)
    return found


@cache
def bands_of(threshold: float) -> tuple[int, int]:
    """Hashes in a band, and bands: the longest band with which all of them still fit into 640 hashes.

    A pair of similarity s shares none of b bands of r hashes with a probability of (1 - s^r)^b. Below a threshold of
    0.02 the bands are fewer than a chance of one in a million would need.
    """
    best = (1, 1)
    for rows in range(1, 33):
        alike = threshold**rows
        bands = 1 if alike >= 1 else math.ceil(math.log(_MISS) / math.log1p(-alike))
        if rows > 1 and rows * bands > _MOST_HASHES:
            break
        best = (rows, min(bands, _MOST_HASHES))
    return best


@cache
def _functions(count: int) -> tuple[_Keys, _Keys]:
    """Multipliers and summands of universal hash functions of 32 bits (multiply, add, shift)."""
    random = np.random.Generator(np.random.PCG64(20251125))
    factors, summands = random.integers(0, 1 << 64, size=(2, count, 1), dtype=np.uint64)
    return factors | np.uint64(1), summands


def _signature(own: _Hashes, count: int) -> _Hashes:
    factors, summands = _functions(count)
    hashed = (factors * own.astype(np.uint64) + summands) >> np.uint64(32)
    least: _Hashes = hashed.min(axis=1).astype(np.uint32)
    return least


def _band_keys(signatures: _Hashes, rows: int) -> _Keys:
    """A 64-bit key of each band, shape [texts, bands]; equal bands have equal keys."""
    factors = _functions(rows)[0][:, 0]
    bands = signatures.reshape(len(signatures), -1, rows).astype(np.uint64)
    mixed = np.zeros(bands.shape[:2], dtype=np.uint64)
    for row in range(rows):
        mixed = (mixed ^ bands[:, :, row]) * factors[row]
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _crowded(keys: _Keys) -> npt.NDArray[np.bool_]:
    """Which keys another text has too, in the same band."""
    found = np.zeros(keys.shape, dtype=np.bool_)
    for band in range(keys.shape[1]):
        order = np.argsort(keys[:, band], kind="stable")
        same = keys[order[1:], band] == keys[order[:-1], band]
        found[order[1:][same], band] = True
        found[order[:-1][same], band] = True
    return found


def _alike(one: _Hashes, other: _Hashes, threshold: float) -> bool:
    smaller, larger = sorted((len(one), len(other)))
    if smaller < threshold * larger - 1e-9:
        return False
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common >= threshold * (len(one) + len(other) - common) - 1e-9

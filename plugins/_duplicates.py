"""Near-duplicates of a set: an exact join on the Jaccard similarity of word trigrams, with a prefix filter.

Of two sets with a Jaccard similarity of t or more, the rarest |s| - ceil(t |s|) + 1 members of each have one in common
(Chaudhuri, Ganti, Kaushik, 2006: prefix filter). So only texts that share a rare trigram are compared. Where texts are
all made of the same phrases no trigram is rare, and the cost grows with their pairs. How rare a trigram is, is counted
in buckets: any order is exact.
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SIZE = 3
_BUCKETS = 1 << 20


def shingles(text: str) -> frozenset[int]:
    """A text's word trigrams, hashed; a shorter text is one."""
    words = _WORD.findall(text.casefold())
    if len(words) < _SIZE:
        return frozenset({zlib.crc32(" ".join(words).encode())})
    grams = zip(words, words[1:], words[2:], strict=False)
    return frozenset(zlib.crc32(f"{a} {b} {c}".encode()) for a, b, c in grams)


def near_duplicates(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Indexes of texts that are near-duplicates, each with the earlier text that it is one of.

    A text is compared with those before it that are kept, so the first of a group stays. Depends on the texts and
    their order alone.

    Args:
        texts: In the order in which the earlier one is kept.
        threshold: Jaccard similarity, above 0; identical texts have 1.
    """
    commonness = array("L", bytes(array("L").itemsize * _BUCKETS))
    for text in texts:
        for one in shingles(text):
            commonness[one % _BUCKETS] += 1
    postings: dict[int, list[int]] = {}
    kept: dict[int, frozenset[int]] = {}
    found: dict[int, int] = {}
    for index, text in enumerate(texts):
        own = shingles(text)
        rare = sorted(own, key=lambda one: (commonness[one % _BUCKETS], one))
        rare = rare[: len(own) - math.ceil(threshold * len(own) - 1e-9) + 1]
        twin = _twin(own, threshold, kept, sorted({c for one in rare for c in postings.get(one, ())}))
        if twin is None:
            kept[index] = own
            for one in rare:
                postings.setdefault(one, []).append(index)
        else:
            found[index] = twin
    return found


def _twin(
    own: frozenset[int], threshold: float, kept: dict[int, frozenset[int]], candidates: Sequence[int]
) -> int | None:
    for candidate in candidates:
        other = kept[candidate]
        smaller, larger = sorted((len(other), len(own)))
        if smaller < threshold * larger:
            continue
        common = len(own & other)
        if common >= threshold * (len(own) + len(other) - common) - 1e-9:
            return candidate
    return None

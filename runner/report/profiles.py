"""How far the profiles of a matrix's cells agree: whether characters differ by more than a model does from itself.

A table may carry profiles, each a number for each of some names: `profile` of the final model, `profile_before` of the
base model, and `profile_again` of the base model measured a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from charrun.report.text import safe
from charrun.statistics import spearman, spearman_interval

_PROFILES = ("profile", "profile_before", "profile_again")


def profile_lines(cells: Iterable[tuple[str, Sequence[Any]]]) -> list[str]:
    """Spearman's correlations between every two cells with profiles of the same names; none where there are fewer.

    The change of one cell is against the base model, that of the other against the base model again: otherwise two
    changes would agree in the noise of the one base profile.

    Args:
        cells: Name of each cell, and its rows of the kind `measurements`.
    """
    found = [(cell, row) for cell, rows in cells for row in rows if _has_profiles(row)]
    lines = []
    for (one, a), (other, b) in combinations(found, 2):
        names = sorted(a["profile"])
        if one == other or names != sorted(b["profile"]) or a.get("name") != b.get("name"):
            continue
        before, mine = ([float(a[key][name]) for name in names] for key in ("profile_before", "profile"))
        again, theirs = ([float(b[key][name]) for name in names] for key in ("profile_again", "profile"))
        changed = (
            [x - y for x, y in zip(mine, before, strict=True)],
            [x - y for x, y in zip(theirs, again, strict=True)],
        )
        lines.append(
            f"  {safe(one)} and {safe(other)} ({safe(str(a.get('name')))}, {len(names)} names): "
            f"before {_told(before, again)}; after {_told(mine, theirs)}; changes {_told(*changed)}"
        )
    return ["Profiles between cells, Spearman's correlation with its 95% interval:", *lines] if lines else []


def _has_profiles(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return False
    names = [sorted(found) for key in _PROFILES if isinstance(found := row.get(key), Mapping) and len(found) > 3]
    return len(names) == len(_PROFILES) and all(each == names[0] for each in names)


def _told(a: Sequence[float], b: Sequence[float]) -> str:
    value = spearman(a, b)
    if value is None:
        return "undefined (one side is all equal)"
    interval = spearman_interval(value, len(a))
    if interval is None:
        return f"{value:.2f} ({'identical' if value > 0 else 'reversed'} ranks, no interval)"
    return f"{value:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"

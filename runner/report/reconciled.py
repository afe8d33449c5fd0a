"""A run's ledger beside what the engine has billed for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from charrun.report.text import safe
from charrun.service.engine import Billed
from charrun.store.ledger import Place, Totals
from charrun.usage import Usage

_FIELDS = {
    "prefill": "prefill_tokens",
    "cached": "cached_tokens",
    "sampled": "sampled_tokens",
    "training": "trained_tokens",
    "forward": "forward_tokens",
}
"""What a bill calls the tokens that the ledger counts; of forward passes it has no word."""
_NAMES = {"prefill": "prompt"}
"""What other tables call them."""


def reconciled_rows(totals: Totals, billed: Sequence[Billed]) -> list[tuple[str, ...]]:
    """The ledger beside the bill, by model and kind of tokens.

    How forward passes are billed is documented nowhere: as training, as prompts, or not at all. A prompt that has no
    end may be in the cache or not.
    """
    ours, doubt = _tokens(totals.used), _tokens(totals.in_doubt())
    theirs: dict[str, Counter[str]] = {}
    for each in billed:
        theirs.setdefault(each.model, Counter())[each.kind] += each.tokens
    rows: list[tuple[str, ...]] = [("model", "tokens", "ledger", "no end, at most", "billed", "")]
    for model in sorted({*ours, *doubt, *theirs}):
        mine, open_ones, paid = (side.get(model, Counter()) for side in (ours, doubt, theirs))
        most = mine + open_ones
        most["cached"] += open_ones["prefill"]
        most["prefill"] += most["forward"]
        most["training"] += most["forward"]
        for kind in _FIELDS:
            if not (mine[kind] or open_ones[kind] or paid[kind]):
                continue
            row = [safe(model), _NAMES.get(kind, kind), f"{mine[kind]:,}", f"{open_ones[kind]:,}"]
            rows.append((*row, *(("?", "") if kind == "forward" else _verdict(mine[kind], most[kind], paid[kind]))))
    return rows


def reconciled_lines(billed: Sequence[Billed]) -> list[str]:
    """What the comparison comes to."""
    if not billed:
        return ["The engine has billed nothing for this run's sessions yet; its bill may lag by some hours."]
    priced = [each.usd for each in billed if each.usd is not None]
    lines = [f"The engine estimates ${sum(priced):,.4f} for it."] if priced else []
    return [*lines, "Within: more than the ledger's, by no more than requests without an end and forward passes."]


def _verdict(mine: int, most: int, paid: int) -> tuple[str, str]:
    return f"{paid:,}", "equal" if mine == paid else "within" if mine <= paid <= most else f"{paid - mine:+,}"


def _tokens(places: Mapping[Place, Usage]) -> dict[str, Counter[str]]:
    """By model and kind."""
    found: dict[str, Counter[str]] = {}
    for place, usage in places.items():
        found.setdefault(place.model, Counter()).update({k: getattr(usage, name) for k, name in _FIELDS.items()})
    return found

"""The evaluations of two runs beside each other, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from charrun.report.compare_data import Pair
from charrun.report.evidence_answers import Verdict, verdicts_of
from charrun.report.intervals import Difference, Share, difference
from charrun.statistics import PairedDifference, paired_difference
from charrun.store.cells import CellView
from charrun.store.files import read_json

UNKNOWN = "unknown"
_SAMPLING = ("max_tokens", "temperature", "top_p")
"""Options of an evaluation that change what a model answers; others change how many answers there are."""


@dataclass(frozen=True)
class Evaluation:
    """What a cell's evaluation says.

    Attributes:
        scored_as: The character that answers were scored as.
        scorer: Identity of the model that scored; empty where it is not told.
        auc: The scorer's AUC; None where there is none.
        threshold: The score above which an answer counts.
        tells: Whether the scorer can tell the character.
        rates: Rate by model, the base model first, the final checkpoint last.
        sampling: The options that its answers were sampled with.
        measure: Digest of what it scored with beside the model: constitution, its template, the pool of questions.
    """

    scored_as: str
    scorer: str
    auc: float | None
    threshold: float | None
    tells: bool
    rates: Mapping[str, Share]
    sampling: Mapping[str, Any]
    measure: str


@dataclass(frozen=True)
class Line:
    """A model's rate in A and in B; None where a side has none.

    Attributes:
        model: The model.
        a: Its rate in A.
        b: Its rate in B.
        paired: B - A over the prompts, where both sides' verdicts on the same prompts are known.
        same_answers: Whether all answers to these prompts are the same text.
    """

    model: str
    a: Share | None
    b: Share | None
    paired: PairedDifference | None = None
    same_answers: bool = False

    @property
    def difference(self) -> Difference | None:
        """B - A, where both are there: paired, else as of independent samples."""
        if self.paired:
            return Difference(self.paired.value, self.paired.low, self.paired.high)
        return difference(self.a, self.b) if self.a and self.b else None


@dataclass(frozen=True)
class Results:
    """The evaluations of a pair of cells.

    Attributes:
        pair: The cells.
        a: A's evaluation, if any.
        b: B's evaluation, if any.
        lines: Rates side by side.
        final: The final checkpoints, where both have one.
        notes: What stands in the way of comparing the two.
    """

    pair: Pair
    a: Evaluation | None
    b: Evaluation | None
    lines: tuple[Line, ...]
    final: Line | None
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`b_higher`, `a_higher`, `no_difference`, or `unknown`."""
        return self.final.difference.verdict if self.final and self.final.difference else UNKNOWN

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "a": asdict(self.a) if self.a else None,
            "b": asdict(self.b) if self.b else None,
            "rates": [_line(line) for line in self.lines],
            "final": _line(self.final) if self.final else None,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def results_of(pair: Pair) -> Results:
    """Compare the evaluations of two cells."""
    a, b = _evaluation(pair.a), _evaluation(pair.b)
    rates_a, rates_b = a.rates if a else {}, b.rates if b else {}
    told_a, told_b = verdicts_of(pair.a), verdicts_of(pair.b)

    def line(name: str, model_a: str, model_b: str) -> Line:
        share_a, share_b = rates_a.get(model_a), rates_b.get(model_b)
        own, other = told_a.get(model_a, {}), told_b.get(model_b, {})
        if not (_told(share_a, own) and _told(share_b, other) and own.keys() == other.keys()):
            return Line(name, share_a, share_b)
        paired = paired_difference([(own[prompt].in_character, other[prompt].in_character) for prompt in own])
        return Line(name, share_a, share_b, paired, all(each.answer == other[p].answer for p, each in own.items()))

    lines = tuple(line(model, model, model) for model in dict.fromkeys([*rates_a, *rates_b]))
    last_a, last_b = _final(rates_a), _final(rates_b)
    final = None
    if last_a and last_b:
        name = last_a if last_a == last_b else f"{last_a} | {last_b}"
        final = line(name, last_a, last_b)
    return Results(pair, a, b, lines, final, tuple(_notes(a, b)))


def _told(share: Share | None, verdicts: Mapping[str, Verdict]) -> bool:
    """Whether these are the verdicts that a rate was counted from."""
    hits = sum(each.in_character for each in verdicts.values())
    return share is not None and (share.hits, share.n) == (hits, len(verdicts))


def answer(found: Sequence[Results]) -> tuple[str, str]:
    """Whether B did better than A: a verdict, and one sentence that says it."""
    verdicts = [results.verdict for results in found]
    if len(found) != 1:
        return _answer_of_many(verdicts)
    (results,) = found
    final = results.final
    if not (final and final.a and final.b and final.difference):
        return UNKNOWN, f"No answer: {'; '.join(results.notes) or 'there is no evaluation to compare'}."
    change = final.difference
    interval = f"95% interval {_points(change.low)} to {_points(change.high)}"
    if final.paired:
        interval += f", paired, p {final.paired.p:.2g}" + ("; all answers are the same" if final.same_answers else "")
    told = {
        "b_higher": f"Yes: B is higher by {100 * change.value:.1f} points ({interval})",
        "a_higher": f"No: A is higher by {-100 * change.value:.1f} points (B - A: {interval})",
        "no_difference": f"No difference is shown: B - A is {_points(change.value)} points ({interval})",
    }
    but = f", but {'; '.join(results.notes)}" if results.notes else ""
    return change.verdict, f"{told[change.verdict]}{but}."


def _answer_of_many(verdicts: Sequence[str]) -> tuple[str, str]:
    counts = {name: verdicts.count(name) for name in ("b_higher", "a_higher", "no_difference", UNKNOWN)}
    known = len(verdicts) - counts[UNKNOWN]
    if not known:
        return UNKNOWN, "No answer: no cell has an evaluation in both runs."
    text = (
        f"B is higher in {counts['b_higher']} of {known} cells, A in {counts['a_higher']}, and no difference is shown "
        f"in {counts['no_difference']} (each at 95%)"
    )
    lacking = f"; {counts[UNKNOWN]} have no evaluation to compare" if counts[UNKNOWN] else ""
    decided = set(verdicts) - {UNKNOWN}
    return decided.pop() if len(decided) == 1 else "mixed", f"{text}{lacking}."


def _evaluation(cell: CellView) -> Evaluation | None:
    rows = [row for row in cell.rows("evaluation") if isinstance(row, dict)]
    if not rows:
        return None
    row, described = rows[-1], _described(cell)
    options, further = _mapping(described.get("options")), described.get("further")
    return Evaluation(
        scored_as=str(row.get("scored_as", "")),
        scorer=str(_mapping(_mapping(described.get("models")).get("scorer")).get("model", "")),
        auc=_number(row.get("auc")),
        threshold=_number(row.get("threshold")),
        tells=row.get("tells") is not False,
        rates=rates_of(row),
        sampling={name: options[name] for name in _SAMPLING if name in options},
        measure=str(further.get("scored_as", "") if isinstance(further, dict) else further or ""),
    )


def rates_of(row: Mapping[str, Any]) -> dict[str, Share]:
    """The rates of a row of the kind `evaluation` by model, the base model first; of a row of another shape none."""
    rates = row.get("rates")
    return dict(found for rate in (rates if isinstance(rates, list) else ()) if (found := _rate(rate)))


def _rate(row: Any) -> tuple[str, Share] | None:
    try:
        hits, n = int(row["in_character"]), int(row["n"])
        return str(row["model"]), Share(hits / n, float(row["low"]), float(row["high"]), hits, n)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _described(cell: CellView) -> Mapping[str, Any]:
    """What the evaluation's fingerprint is made of; nothing where that is not told."""
    stage = next((stage for stage in reversed(cell.stages) if "evaluation" in stage.outputs), None)
    return _mapping(read_json(stage.folder / "stage.json") if stage and stage.folder else None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _final(rates: Mapping[str, Share]) -> str:
    """The last model that is not the base: evaluations go from the base model to the final checkpoint."""
    return next((model for model in reversed(list(rates)) if model != "base"), "")


def _notes(a: Evaluation | None, b: Evaluation | None) -> list[str]:
    lacking = [name for name, found in (("A", a), ("B", b)) if not found]
    if not a or not b:
        return [f"{' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no evaluation"]
    notes = [
        f"{name}'s scorer cannot tell the character (AUC {found.auc or 0:.3f})"
        for name, found in (("A", a), ("B", b))
        if not found.tells
    ]
    if a.scored_as != b.scored_as:
        notes.append(f"A is scored as {a.scored_as} and B as {b.scored_as}")
    if a.scorer != b.scorer:
        told = f"{plain_model(a.scorer)} scored A and {plain_model(b.scorer)} scored B"
        notes.append(f"{told}, so that the rates are not on one scale (name one `scorer:` in both specs)")
    elif a.scored_as == b.scored_as and a.measure != b.measure:
        notes.append(
            f"the constitution of {a.scored_as}, its template or the pool of questions has changed between them, so "
            "that the rates are not on one scale"
        )
    if a.sampling != b.sampling:
        names = [name for name in _SAMPLING if a.sampling.get(name) != b.sampling.get(name)]
        told = ", ".join(f"{name} {a.sampling.get(name, '-')} | {b.sampling.get(name, '-')}" for name in names)
        notes.append(f"their answers were sampled with different options: {told}")
    return notes


def plain_model(identity: str) -> str:
    """A model's name out of its identity, `local:charrun/demo-teacher@<digest>`."""
    return identity.partition("@")[0].partition(":")[2] or identity or "another model"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _line(line: Line) -> dict[str, Any]:
    change = line.difference
    return {
        "model": line.model,
        "a": asdict(line.a) if line.a else None,
        "b": asdict(line.b) if line.b else None,
        "difference": asdict(change) if change else None,
        "paired": asdict(line.paired) if line.paired else None,
        "same_answers": line.same_answers,
    }

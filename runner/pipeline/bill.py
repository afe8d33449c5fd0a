"""What the engine has billed for a run, to hold the ledger to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from charrun.errors import EnvironmentProblem
from charrun.pipeline.checkpoints import engine_options
from charrun.pipeline.defects import asking
from charrun.plugin_manager import Registry
from charrun.service.engine import Billed, Engine, EngineRequest
from charrun.store.ledger import LEDGER, LEDGER_NOTE, Place, Totals, process_of
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.store.runs import Run


def billed_of(run: Run, totals: Totals, registry: Registry) -> Sequence[Billed]:
    """What the engine has billed for the sessions of a run's processes.

    Raises:
        EnvironmentProblem: The engine has no bill, cannot be asked, or is of a plugin that is not there any more.
    """
    if run.engine not in registry.engines:
        raise EnvironmentProblem(f"the engine {run.engine} is not installed here")
    engine = registry.engines[run.engine]()
    if type(engine).billed is Engine.billed:
        raise EnvironmentProblem(
            f"the engine {engine.name} has no bill", "the ledger stands by itself: `charrun cost` shows it"
        )
    request = EngineRequest([], engine_options(run), run.runs_dir / "engine", run.folder / "engine.log")
    with asking(type(engine)):
        found = engine.billed(run.started or time.time(), max(run.last or time.time(), _changed(run)), request)
    return [each for each in found if each.note.get(LEDGER_NOTE) in totals.processes]


def _changed(run: Run) -> float:
    """When the ledger was last written to: later than the last event, where a stage was killed in its midst."""
    try:
        return (run.folder / LEDGER).stat().st_mtime
    except OSError:
        return 0.0


def ends_by_bill(totals: Totals, billed: Sequence[Billed]) -> dict[str, Usage]:
    """What requests without an end have used, by their number, as the engine's bill says.

    Of a process, cell, stage and model the bill is more than the ledger by just what those requests used; it stands
    with the first of them. Forward passes are billed as training; which of it they were is told by the order in which
    training requests are done, that of the ledger. A process that is not in the bill at all used nothing where a later
    one is in it; of others nothing is said: such a bill may not be complete.

    Args:
        totals: The ledger.
        billed: The whole bill: what is not in it yet was not used.
    """
    bill: dict[tuple[str, Place], Counter[str]] = {}
    for each in billed:
        place = Place(each.note.get("cell", ""), each.note.get("stage", ""), each.model)
        bill.setdefault((each.note[LEDGER_NOTE], place), Counter())[each.kind] += each.tokens
    groups: dict[tuple[str, Place], list[str]] = {}
    for number, (place, _) in totals.open.items():
        groups.setdefault((process_of(number), place), []).append(number)
    found: dict[str, Usage] = {}
    billed_ones = {process for process, _ in bill}
    order = list(totals.processes)
    reaches = max((number for number, process in enumerate(order) if process in billed_ones), default=-1)
    complete = {*billed_ones, *order[: reaches + 1]}
    for (process, place), numbers in groups.items():
        if process not in complete:
            continue
        known = totals.processes.get(process, {}).get(place, Usage())
        used = _rest(bill.get((process, place), Counter()), known, [totals.open[number][1] for number in numbers])
        if used is not None:
            found |= {number: Usage() for number in numbers} | {numbers[0]: used}
    return found


def _rest(paid: Mapping[str, int], known: Usage, each: Sequence[Usage]) -> Usage | None:
    """What is billed and not known; None where that can't be what requests have used, each of which uses no more."""
    most = Usage()
    for one in each:
        most.add(one)
    trained = paid["training"] - known.trained_tokens - known.forward_tokens
    forward = _forward(trained, each)
    rest = Usage(
        requests=_requests(paid["prefill"] + paid["cached"] - known.input_tokens, most),
        prefill_tokens=paid["prefill"] - known.prefill_tokens,
        cached_tokens=paid["cached"] - known.cached_tokens,
        sampled_tokens=paid["sampled"] - known.sampled_tokens,
        forward_tokens=forward,
        trained_tokens=trained - forward,
    )
    counts = rest.to_dict().values()
    fits = rest.input_tokens <= most.input_tokens and rest.sampled_tokens <= most.sampled_tokens
    return rest if min(counts) >= 0 and fits and rest.trained_tokens <= most.trained_tokens else None


def _requests(prompts: int, most: Usage) -> int:
    """How many sampling requests were done, by the share of all their prompts' tokens that is billed."""
    return math.ceil(most.requests * prompts / most.input_tokens) if most.input_tokens else 0


def _forward(training: int, each: Sequence[Usage]) -> int:
    """How many of the tokens that are billed as training were a forward pass alone.

    Requests are done in their order, and of a custom loss the forward pass before the other one; where what is billed
    does not end with one of these passes, as many as can be.
    """
    left, forward = training, 0
    for most in each:
        for tokens, is_forward in ((most.forward_tokens, True), (most.trained_tokens, False)):
            if not left:
                return forward
            if tokens > left:
                return min(training, sum(one.forward_tokens for one in each))
            left -= tokens
            forward += tokens if is_forward else 0
    return forward

"""What both trainings share: options, audited rows, forward passes, the check of the sampler, the monitor's word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from charrun import Message, StageFailed, TrainedRow
from charrun.plugins import _curve, _schedule
from charrun.plugins._monitor import Monitor, Verdict

if TYPE_CHECKING:
    from tinker import types

    from charrun import Adapter, Chat, RoleSampler, StageContext

ALPHA = 32
"""Tinker fixes LoRA's alpha; the effective scale is alpha / rank."""

PRESET_RANK = 64
"""Rank of the runs that the default learning rates come from (technical report 007)."""

_SAMPLER_EXACT = 1e-3
_SAMPLER_HOSTED = 0.2
_PASS_EXACT, _PASS_HOSTED = 1e-4, 0.02  # rounding alone was 1.4e-5 beside other trainings; errors are above 1
_SWITCHES = ("finite", "text", "first_loss", "direction")
"""Rules of the monitor that are on or off; 0 switches off the others."""

COMMON_OPTIONS: dict[str, Any] = {
    "learning_rate": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "Adam's learning rate, at its highest.",
    },
    **_schedule.OPTIONS,
    "batch_size": {
        "type": "integer",
        "minimum": 1,
        "default": 16,
        "description": "Rows of one optimiser step.",
    },
    "beta1": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.9,
        "description": "Adam's beta1.",
    },
    "beta2": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.95,
        "description": "Adam's beta2.",
    },
    "eps": {"type": "number", "exclusiveMinimum": 0, "default": 1e-12, "description": "Adam's epsilon."},
    "checkpoint_every": {
        "type": "integer",
        "minimum": 0,
        "default": 10,
        "description": "Steps between two checkpoints that a run goes on from after a crash; 0 saves none.",
        "x-charrun-identity": False,
    },
    "grad_clip_norm": {
        "type": "number",
        "minimum": 0,
        "default": 0.0,
        "description": "Largest gradient norm; 0 clips nothing.",
    },
    **_curve.OPTIONS,
}

MAX_LENGTH: dict[str, Any] = {
    "type": "integer",
    "minimum": 1,
    "description": "Rows of more tokens than this, with the student's template, are dropped; none by default.",
}


def adam(ctx: StageContext, rates: Sequence[float]) -> Callable[[int], Any]:
    """Adam's parameters of a step from the stage's options and each step's learning rate, as the SDK's type."""
    from tinker import types

    options = ctx.options

    def of(step: int) -> types.AdamParams:
        return types.AdamParams(
            learning_rate=float(rates[step]),
            beta1=float(options["beta1"]),
            beta2=float(options["beta2"]),
            eps=float(options["eps"]),
            grad_clip_norm=float(options["grad_clip_norm"]),
        )

    return of


def told(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics under plain names, without how they are reduced over a batch's parts."""
    return {name.split(":")[0]: value for name, value in metrics.items()}


def judged(
    ctx: StageContext,
    adapter: Adapter,
    monitor: Monitor,
    steps: int,
    told: Callable[[Mapping[str, float]], Any],
    probe: _curve.Probe,
) -> Callable[[int, dict[str, float]], None]:
    """A judge for `train_steps`: tells what the monitor says of a step, and stops the training at a diagnosis.

    The probe is told of the step as well.
    """

    def judge(step: int, metrics: dict[str, float]) -> None:
        probe.step_done(step, told(metrics))
        for verdict in monitor.observe(step, told(metrics)):
            say(ctx, verdict, step + 1, steps, silent=step < adapter.next_step)

    return judge


def say(ctx: StageContext, verdict: Verdict | None, step: int = 0, steps: int = 0, *, silent: bool = False) -> None:
    """Tell a verdict.

    Args:
        ctx: The stage's context.
        verdict: What is said; None is nothing.
        step: How many steps are done,
        steps: of how many.
        silent: Whether an earlier run has told it.

    Raises:
        StageFailed: It is a diagnosis, and `monitor.stop` is on.
    """
    if verdict is None or ctx.dry:
        return
    when = f"after {step} of {steps} steps" if step else "before the first step"
    saw = f"monitor.{verdict.rule} {when}: {verdict.saw}"
    if verdict.stops and ctx.options["monitor"]["stop"]:
        off = "false" if verdict.rule in _SWITCHES else "0"
        raise StageFailed(saw, f"{verdict.advice}; to go on from here all the same: monitor: {{{verdict.rule}: {off}}}")
    if not silent:
        ctx.log(f"warning: {saw}; {verdict.advice}")


def audited_rows(chat: Chat, conversations: Sequence[Sequence[Message]]) -> list[list[TrainedRow]]:
    """Trained rows of each conversation, whose decoded masks are exactly its assistant turns, in order.

    Raises:
        StageFailed: A mask shows anything else.
    """
    found = chat.rows_of(conversations)
    for conversation, rows in zip(conversations, found, strict=True):
        _audit(chat, conversation, rows)
    return found


def _audit(chat: Chat, conversation: Sequence[Message], rows: Sequence[TrainedRow]) -> None:
    # Qwen's tokenizers normalise so; what another model wrote may not be.
    spoken = [normalize("NFC", message["content"]) for message in conversation if message["role"] == "assistant"]
    shown = [normalize("NFC", text) for row in rows for text in chat.trained_text(row)]
    if shown != spoken:
        at = next(
            (i for i, (a, b) in enumerate(zip(shown, spoken, strict=False)) if a != b),
            min(len(shown), len(spoken)),
        )
        raise StageFailed(
            f"the loss mask of a training row does not show its assistant turns: turn {at + 1} of {len(spoken)}",
            "the tokenizer does not give its text back, or the template changes it: report the model's name",
        )


def sizes_of(rows: Iterable[TrainedRow]) -> list[tuple[int, int]]:
    """Tokens of each row, and how many of them are trained."""
    return [(len(row.tokens), row.trained_tokens) for row in rows]


def check_lengths(adapter: Adapter, sizes: Sequence[tuple[int, int]]) -> None:
    """Every row trains something and fits the context whole: nothing is truncated.

    Args:
        adapter: What the rows train.
        sizes: As `sizes_of` gives them, of all rows.

    Raises:
        StageFailed: A row trains no token, or is too long.
    """
    if problem := lengths_problem(adapter, sizes):
        raise problem


def lengths_problem(adapter: Adapter | RoleSampler, sizes: Sequence[tuple[int, int]]) -> StageFailed | None:
    """What `check_lengths` raises, or None."""
    if idle := sum(trained == 0 for _, trained in sizes):
        return StageFailed(f"{idle} of {len(sizes)} training rows have no trained token")
    longest, limit = max(tokens for tokens, _ in sizes), adapter.context_length
    if limit is None or longest <= limit:
        return None
    over = sum(tokens > limit for tokens, _ in sizes)
    return StageFailed(
        f"{over} of {len(sizes)} training rows are longer than the context of {limit} tokens "
        f"(the longest has {longest}); rows are never truncated",
        "use fewer turns or shorter answers, or a model with a longer context",
    )


async def forward_logprobs(ctx: StageContext, adapter: Adapter, rows: Sequence[TrainedRow]) -> list[list[float]]:
    """Log-probs of each row's trained tokens under the adapter as it is, in nats; one forward pass, no gradient."""
    from charrun import explained

    if not rows:
        return []
    with explained():
        data = [row.datum() for row in rows]
        passed: types.ForwardBackwardOutput = await ctx.afford(lambda: adapter.client.forward(data, "cross_entropy"))
        outputs = passed.loss_fn_outputs
    return [
        [float(v) for v, on in zip(output["logprobs"].data, row.trained[1:], strict=True) if on]
        for row, output in zip(rows, outputs, strict=True)
    ]


async def sampler_logprobs(ctx: StageContext, sampler: RoleSampler, rows: Sequence[TrainedRow]) -> list[list[float]]:
    """Log-probs of each row's trained tokens by a sampler, in nats; infinite where it gives none."""
    from tinker import types

    from charrun import explained

    async def score(row: TrainedRow) -> list[float]:
        prompt = types.ModelInput.from_ints(list(row.tokens))
        found: list[float | None] = await ctx.afford(lambda: sampler.client.compute_logprobs(prompt))
        return [v if v is not None else float("inf") for v, on in zip(found, row.trained, strict=True) if on]

    with explained():
        return await ctx.gather(score(row) for row in rows)


def check_sampler(ctx: StageContext, sampled: Sequence[Sequence[float]], trained: Sequence[Sequence[float]]) -> None:
    """The sampler's log-probs of the same tokens agree with the trainer's: one rendering, one set of weights.

    Raises:
        StageFailed: They differ by more than rounding (exact engine) or than 0.2 nats in the mean (hosted).
    """
    gaps = [abs(s - t) for ss, ts in zip(sampled, trained, strict=True) for s, t in zip(ss, ts, strict=True)]
    advice = "sampler and trainer disagree about the same tokens: no step was submitted"
    if ctx.exact:
        ctx.check("largest sampler-trainer log-prob gap", max(gaps), _SAMPLER_EXACT, advice)
    else:
        mean = sum(gaps) / len(gaps)
        ctx.log(f"sampler and trainer differ by {mean:.4f} nats a token in the mean, {max(gaps):.3f} at most")
        ctx.check("mean sampler-trainer log-prob gap", mean, _SAMPLER_HOSTED, advice)


def pass_slack(ctx: StageContext) -> float:
    """Nats a token by which two passes of the trainer over the same tokens, with the same weights, may differ."""
    return _PASS_EXACT if ctx.exact else _PASS_HOSTED


def scale_warnings(ctx: StageContext) -> list[str]:
    """A rank whose effective scale is far from report 007's is probably meant to come with another learning rate."""
    rank = int(ctx.options["lora_rank"])
    if rank == PRESET_RANK:
        return []
    return [
        f"LoRA rank {rank} has the effective scale {ALPHA}/{rank} = {ALPHA / rank:g}; the default learning rates were "
        f"found at rank {PRESET_RANK}, scale {ALPHA / PRESET_RANK:g}: look at learning_rate too"
    ]


def scorer_problems(ctx: StageContext, asked: Mapping[str, int]) -> list[str]:
    """What is wrong where the scorer, at an endpoint, is asked for scores.

    Args:
        ctx: The stage's context.
        asked: By option, how often it asks.
    """
    scorer = ctx.model("scorer")
    if scorer.endpoint is None:
        return []
    hint = "an endpoint gives no log-probs of a prompt: name a model as scorer that the engine serves"
    return [f"{option} scores with {scorer.name}: {hint}" for option, often in asked.items() if often]


def checkpoint_note(rank: int) -> str:
    """Rank with its effective scale, as it is shown wherever a rank is."""
    return f"LoRA rank {rank}, scale alpha/rank = {ALPHA}/{rank} = {ALPHA / rank:g}"


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)

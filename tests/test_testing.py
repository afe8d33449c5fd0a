"""The kit for plugin authors runs stages for real, and finds the stages that would not survive a kill."""

from __future__ import annotations

import random
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from conftest import RunningEngine as DemoEngine

from charrun import (
    Adapter,
    SpecError,
    Stage,
    StageContext,
    StageFailed,
    TrainedRow,
    assistant,
    batches_of,
    train_steps,
    user,
)
from charrun.plugin_manager import load_registry
from charrun.testing import (
    RunningEngine,
    assert_resumes,
    assert_stage_contract,
    assert_survives_kill,
    contract_problems,
    run_stage,
)

BUILT_IN = load_registry(third_party=False).stages
PROMPTS = [{"id": f"p{number}", "prompt": f"Tell me something about the number {number}."} for number in range(5)]
PAIRS = [{**row, "chosen": f"Ahoy, {row['id']}!", "rejected": f"It is {row['id']}."} for row in PROMPTS]


@pytest.fixture(scope="module")
def engine(demo_engine: DemoEngine) -> RunningEngine:
    return RunningEngine(**demo_engine.address)


class Echo(Stage):
    """A sound stage: one short answer to each prompt, and two more prompts if it is asked to."""

    name: ClassVar[str] = "echo"
    summary: ClassVar[str] = "one short answer to each prompt"
    consumes: ClassVar[tuple[str, ...]] = ("prompts",)
    produces: ClassVar[tuple[str, ...]] = ("echoes",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"more": {"type": "integer", "minimum": 0, "default": 0, "description": "Prompts to ask for."}},
        "additionalProperties": False,
    }

    async def run(self, ctx: StageContext) -> None:
        prompts = await ctx.rows("prompts")
        if ctx.options["more"]:
            prompts = await ctx.extend("prompts", ctx.options["more"])
        sampler = await ctx.sampler("student")

        async def answer(prompt: dict[str, Any]) -> dict[str, Any]:
            (one,) = await ctx.sample(sampler, [user(self.worded(prompt["prompt"]))], max_tokens=8)
            return {"id": prompt["id"], "text": one.text}

        rows = await ctx.each(prompts, answer)
        ctx.log(f"{len(rows)} answers")
        ctx.publish("echoes", rows)

    def worded(self, prompt: str) -> str:
        return prompt


class Restless(Echo):
    """Its prompts differ from run to run, so that nothing stored is ever found."""

    name: ClassVar[str] = "restless"

    def worded(self, prompt: str) -> str:
        return f"{prompt} {random.random()}"


class Bypassing(Echo):
    """It asks the engine without the context, so that nothing is stored."""

    name: ClassVar[str] = "bypassing"

    async def run(self, ctx: StageContext) -> None:
        from tinker import types

        sampler = await ctx.sampler("student")
        prompt = types.ModelInput.from_ints(sampler.chat.prompt([user("Hello")]))
        found = await sampler.client.sample(prompt, 1, types.SamplingParams(max_tokens=4, seed=1))
        ctx.publish("echoes", [{"tokens": list(found.sequences[0].tokens)}])


class Forgetful(Echo):
    """Its fingerprint differs from run to run."""

    name: ClassVar[str] = "forgetful"

    def further_inputs(self, ctx: StageContext) -> Any:
        return uuid.uuid4().hex


class Tuned(Stage):
    """A sound training of a few steps."""

    name: ClassVar[str] = "tuned"
    summary: ClassVar[str] = "a few steps on pairs"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("checkpoint",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    trains: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()

    async def run(self, ctx: StageContext) -> None:
        adapter = await ctx.new_adapter("student", 4)
        rows = [
            row
            for pair in await ctx.rows("pairs")
            for row in adapter.chat.rows([user(pair["prompt"]), assistant(pair["chosen"])])
        ]
        self.own: list[dict[str, float]] = []
        ctx.write("steps.jsonl", await self.trained(ctx, adapter, batches_of(rows, 1)))
        ctx.publish("checkpoint", [await ctx.save(adapter, "tuned")])

    async def trained(
        self, ctx: StageContext, adapter: Adapter, batches: list[list[TrainedRow]]
    ) -> list[dict[str, float]]:
        """All steps, and what there is to tell of them."""
        from tinker import types

        def on_step(step: int, metrics: dict[str, float]) -> None:
            self.own.append(metrics)
            ctx.step_done(step, len(batches), metrics)

        return await train_steps(
            ctx,
            adapter,
            batches,
            lambda batch: adapter.client.forward_backward([row.datum() for row in batch], "cross_entropy"),
            types.AdamParams(learning_rate=1e-3),
            on_step,
            save_every=2,
        )


class Selfish(Tuned):
    """It tells of the steps alone that its own process took."""

    name: ClassVar[str] = "selfish"

    async def trained(
        self, ctx: StageContext, adapter: Adapter, batches: list[list[TrainedRow]]
    ) -> list[dict[str, float]]:
        await super().trained(ctx, adapter, batches)
        return self.own


class Stubborn(Tuned):
    """It takes every step itself, wherever its adapter stands."""

    name: ClassVar[str] = "stubborn"

    async def trained(
        self, ctx: StageContext, adapter: Adapter, batches: list[list[TrainedRow]]
    ) -> list[dict[str, float]]:
        from dataclasses import replace

        return await super().trained(ctx, replace(adapter, next_step=0), batches)


class Careless(Stage):
    """Wrong in many ways that charrun itself lets pass."""

    name: ClassVar[str] = "student"
    summary: ClassVar[str] = "It has a name that is taken. It is two sentences."
    consumes: ClassVar[tuple[str, ...]] = ("prompts", "Prompts")
    optional: ClassVar[tuple[str, ...]] = ("prompts",)
    trains: ClassVar[tuple[str, ...]] = ("student",)
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    character_fields: ClassVar[tuple[str, ...]] = ("voice",)
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"bare": {"default": 1}, "open": {"type": "integer", "description": "A number."}},
    }

    async def run(self, ctx: StageContext) -> None: ...


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_stage_keeps_the_contract_that_the_kit_asserts(name: str) -> None:
    assert_stage_contract(BUILT_IN[name])


def test_the_contract_names_everything_that_is_wrong_at_once() -> None:
    assert contract_problems(Careless) == [
        "name: 'student' is the name of a built-in stage",
        "summary: it should be one sentence of at most 100 characters, without a full stop",
        "consumes: 'Prompts' is no slug",
        "optional: prompts is consumed anyway",
        "trains: student is not among the roles",
        "identity: 'rows' lets a training on other rows be taken for this one; say 'content'",
        "character_fields: voice is none of name, traits, questions",
        "options_schema: say additionalProperties: False, or a misspelled option is taken in silence",
        "option 'bare': it has no description",
        "option 'open': it has no default, is not required, and does not say what holds 'by default'",
    ]


def test_the_contract_finds_a_template_that_does_not_render(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.j2" for name in ("sound", "broken", "character")}
    paths["sound"].write_text("{% for line in lines %}{{ line.text | upper }}{% endfor %}{{ name }}")
    paths["broken"].write_text("{% if x %}")
    paths["character"].write_text("{{ name }}")
    sound = type("Sound", (Echo,), {"templates": {"sound": paths["sound"]}})
    assert contract_problems(sound) == []
    broken = type("Broken", (Echo,), {"templates": paths})
    (taken, syntax) = contract_problems(broken)
    assert taken.startswith("template 'character': a built-in template has this name")
    assert syntax.startswith(f"template 'broken': {paths['broken']}:1:")


def test_the_contract_asks_the_stage_what_a_plan_would_ask() -> None:
    assert contract_problems(Forgetful) == [
        "further_inputs: it differs from one call to the next, so that nothing is ever found done"
    ]


def test_a_stage_runs_on_the_given_rows_and_hands_everything_back(engine: RunningEngine, tmp_path: Path) -> None:
    outcome = run_stage(Echo, given={"prompts": PROMPTS}, engine=engine, runs_dir=tmp_path)
    assert [row["id"] for row in outcome.rows["echoes"]] == [row["id"] for row in PROMPTS]
    assert outcome.log == ["5 answers"]
    assert outcome.events[0]["event"] == "stage_started" and outcome.events[-1]["event"] == "stage_finished"
    assert not any("sum" in event for event in outcome.events), "a checksum is the store's own"
    assert outcome.asked == {"sample": 5} and outcome.usage.requests == 5 and not outcome.cached
    assert (outcome.folder / "items.jsonl").read_text().count("\n") == 5
    again = run_stage(Echo, given={"prompts": PROMPTS}, engine=engine, runs_dir=tmp_path)
    assert again.cached and again.asked == {} and again.usage.requests == 0
    assert again.rows == outcome.rows and again.folder == outcome.folder


def test_rows_in_reserve_come_when_the_stage_asks_for_more(engine: RunningEngine) -> None:
    outcome = run_stage(
        Echo, options={"more": 2}, given={"prompts": PROMPTS[:2]}, reserve={"prompts": PROMPTS[2:]}, engine=engine
    )
    assert [row["id"] for row in outcome.rows["echoes"]] == ["p0", "p1", "p2", "p3"]
    with pytest.raises(StageFailed, match="2 more prompts were asked for, and the test holds 0 in reserve"):
        run_stage(Echo, options={"more": 2}, given={"prompts": PROMPTS[:2]}, engine=engine)


def test_options_go_through_the_stages_own_schema() -> None:
    with pytest.raises(SpecError, match="unknown option 'mor' for stage 'echo'"):
        run_stage(Echo, options={"mor": 1}, given={"prompts": PROMPTS})


def test_rows_must_be_given_for_what_is_consumed_and_nothing_else() -> None:
    with pytest.raises(ValueError, match="stage 'echo' consumes prompts: give rows"):
        run_stage(Echo)
    with pytest.raises(ValueError, match="stage 'echo' consumes no pairs"):
        run_stage(Echo, given={"prompts": PROMPTS, "pairs": []})


def test_without_an_engine_one_is_started_for_the_run(tmp_path: Path) -> None:
    outcome = run_stage(Echo, given={"prompts": PROMPTS[:1]}, runs_dir=tmp_path)
    assert outcome.asked == {"sample": 1}
    assert (outcome.run_folder / "engine.log").exists()


@pytest.mark.parametrize("stage", [Echo, BUILT_IN["student"], BUILT_IN["teacher"]])
def test_stages_that_ask_through_the_context_resume(stage: type[Stage], engine: RunningEngine) -> None:
    assert_resumes(stage, given={"prompts": PROMPTS}, scale=_scale(5), engine=engine)


def test_a_training_stage_resumes_with_the_same_checkpoint(engine: RunningEngine, tmp_path: Path) -> None:
    given, options = {"pairs": PAIRS}, {"batch_size": 2}
    first = assert_resumes(BUILT_IN["dpo"], given=given, options=options, engine=engine, runs_dir=tmp_path)
    assert first.asked["optim_step"] == 3
    assert_survives_kill(
        BUILT_IN["dpo"], after=2, moment="step", given=given, options=options, engine=engine, runs_dir=tmp_path
    )


def test_a_killed_training_takes_the_steps_alone_that_no_checkpoint_holds(engine: RunningEngine) -> None:
    assert assert_resumes(Tuned, given={"pairs": PAIRS}, engine=engine).asked["optim_step"] == 5
    resumed = assert_survives_kill(Tuned, after=4, moment="step", given={"pairs": PAIRS}, engine=engine)
    assert 1 <= resumed.asked["optim_step"] <= 3
    assert any("training goes on from step" in line for line in resumed.log)


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Selfish, "wrote 0 rows into steps.jsonl, not 5; write what train_steps returns"),
        (Stubborn, "took 5 optimiser steps where all its records were stored and 0 were left"),
    ],
)
def test_a_training_that_cannot_resume_is_found(stage: type[Stage], text: str, engine: RunningEngine) -> None:
    with pytest.raises(AssertionError, match=text):
        assert_resumes(stage, given={"pairs": PAIRS}, engine=engine)


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Restless, "published other echoes"),
        (Bypassing, "asked sample 1 times where all its records were stored and 0 were missing"),
        (Forgetful, "was not found done: the second run asked sample 5 times"),
    ],
)
def test_a_stage_that_cannot_resume_is_found(stage: type[Stage], text: str, engine: RunningEngine) -> None:
    with pytest.raises(AssertionError, match=text):
        assert_resumes(stage, given={"prompts": PROMPTS}, engine=engine)


def test_a_killed_stage_asks_for_no_stored_row_again(engine: RunningEngine) -> None:
    outcome = assert_survives_kill(Echo, after=3, given={"prompts": PROMPTS}, engine=engine)
    assert outcome.asked == {"sample": 2}


def test_a_stage_that_ends_before_the_kill_is_told(engine: RunningEngine) -> None:
    with pytest.raises(AssertionError, match="ended before it could be killed: it saw fewer than 99 rows"):
        assert_survives_kill(Echo, after=99, given={"prompts": PROMPTS}, engine=engine)


def test_the_kit_is_imported_without_the_sdk_and_torch() -> None:
    code = "import sys, charrun.testing; print({'torch', 'tinker', 'transformers', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def _scale(pairs: int) -> dict[str, Any]:
    return {"name": "tiny", "pairs": pairs, "samples_per_prompt": 1, "reflections": 1, "interactions": 1, "turns": 1}

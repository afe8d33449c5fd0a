"""Tests for plugin authors: one stage, run for real on a local engine.

In the `conftest.py` of a package's tests::

    pytest_plugins = ["charrun.testing"]

makes the fixture `charrun_engine`, one engine with the demo models for the whole session. It is named there and not
found through an entry point of pytest's, so that charrun, being installed, changes nothing in the tests of programs
that have nothing to do with it.

A test then reads::

    from charrun.testing import RunningEngine, run_stage

    def test_every_prompt_is_answered(charrun_engine: RunningEngine) -> None:
        prompts = [{"id": "sky", "prompt": "Why is the sky blue?"}]
        outcome = run_stage(MyStage, given={"prompts": prompts}, engine=charrun_engine)
        assert outcome.rows["answers"][0]["text"]

`assert_stage_contract` checks what a stage declares; `assert_resumes` and `assert_survives_kill` interrupt it. Nothing
here is a mock: options go through the stage's schema, rows through the store, requests to models that compute.
Importing this module loads neither torch nor the SDK.
"""

from charrun.testing.contract import assert_stage_contract, contract_problems
from charrun.testing.engines import DEMO_MODELS, RunningEngine, charrun_engine
from charrun.testing.resuming import assert_resumes, assert_survives_kill
from charrun.testing.running import StageOutcome, run_stage

__all__ = [
    "DEMO_MODELS",
    "RunningEngine",
    "StageOutcome",
    "assert_resumes",
    "assert_stage_contract",
    "assert_survives_kill",
    "charrun_engine",
    "contract_problems",
    "run_stage",
]

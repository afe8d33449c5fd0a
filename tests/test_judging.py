"""What a judge says is read strictly and counted without making anything up."""

from __future__ import annotations

from typing import Any

import pytest

from charrun.plugins._statistics import wilson
from charrun.plugins._verdicts import Tally, outcome, parse_choice, parse_verdict, self_labels
from charrun.plugins.capability import CapabilityStage
from charrun.plugins.coherence import CoherenceStage
from charrun.plugins.judge import JudgeStage
from charrun.plugins.preferences import PreferencesStage
from charrun.testing import assert_stage_contract

STAGES = (JudgeStage, CoherenceStage, PreferencesStage, CapabilityStage)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It hails the crew.\nVerdict: A", "A"),
        ("Long thoughts.\n\n**Verdict: B**\n\n", "B"),
        ("verdict: b.", "B"),
        ("__Verdict:__ A", "A"),
        ("Verdict: A\nBut I am not sure.", None),
        ("The verdict: A", None),
        ("Verdict: A or B", None),
        ("Verdict: C", None),
        ("A", None),
        ("Answer A is in character.", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_line_and_nothing_else(text: str, verdict: str | None) -> None:
    assert parse_verdict(text, complete=True) == verdict


def test_an_answer_that_was_cut_has_no_verdict() -> None:
    assert parse_verdict("Verdict: A", complete=False) is None
    assert parse_choice("Trait: bold", complete=False, options=["bold", "shy"]) is None


def test_a_choice_is_one_of_the_two_traits() -> None:
    assert parse_choice("Hm.\n*Trait: Bold.*", True, ["bold", "shy"]) == "bold"
    assert parse_choice("Trait: loud", True, ["bold", "shy"]) is None
    assert parse_choice("Trait: bold and shy", True, ["bold", "shy"]) is None
    assert parse_choice("Trait: easy-going", True, ["easy-going", "shy"]) == "easy-going"


def test_a_judge_that_always_says_a_decides_nothing() -> None:
    tally = Tally.of(outcome("A", "A") for _ in range(40))
    assert (tally.won, tally.lost, tally.inconsistent) == (0, 0, 40) and not tally.has_rate(0.1)


def test_outcomes_are_counted_apart_and_only_consistent_ones_are_rated() -> None:
    tally = Tally.of(
        [outcome("B", "A")] * 60 + [outcome("A", "B")] * 20 + [outcome("B", "B")] * 10 + [outcome(None, "A")] * 10
    )
    assert (tally.won, tally.lost, tally.inconsistent, tally.unparsed) == (60, 20, 10, 10)
    consistent, as_lost = tally.rates()
    assert (consistent["k"], consistent["n"]) == (60, 80) and (as_lost["k"], as_lost["n"]) == (60, 90)
    assert (consistent["low"], consistent["high"]) == wilson(60, 80)


def test_no_rate_is_told_where_too_many_verdicts_cannot_be_read() -> None:
    assert Tally(8, 1, 0, 1, 0).has_rate(0.1)
    assert not Tally(8, 0, 0, 2, 90).has_rate(0.1), "equal answers, of which nobody was asked, make up for nothing"
    assert not Tally(0, 0, 0, 10, 0).has_rate(1.0)


def test_answers_that_say_what_they_play_are_found() -> None:
    names = ["pirate", "Corwyn"]
    for text in ("As a pirate, I say", "I’m an old pirate!", "Call me Corwyn.", "speaking as the pirate", "My persona"):
        assert self_labels(text, names), text
    for text in (
        "Ahoy, shipmate!",
        "The pirate in that film is tall.",
        "My character sheet has rules? No: my plan has.",
    ):
        assert self_labels(text, names) == ([] if "character" not in text else ["My character"]), text


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_declare_what_charrun_and_its_users_rely_on(stage: Any) -> None:
    assert_stage_contract(stage)

"""Self-interaction: each copy sees the other as its user, and the last speaker tells the training row."""

from __future__ import annotations

import itertools

import pytest

from charrun.plugins.interaction import conversations_from, is_guided, seen_by, told_by_last


def test_the_opener_is_the_first_speakers_first_user_message() -> None:
    assert seen_by(0, "Hello.", []) == [{"role": "user", "content": "Hello."}]


def test_each_speaker_sees_its_own_turns_as_the_assistants() -> None:
    first = [(m["role"], m["content"]) for m in seen_by(0, "Hello.", ["a1", "b1"])]
    second = [(m["role"], m["content"]) for m in seen_by(1, "Hello.", ["a1", "b1", "a2"])]
    assert first == [("user", "Hello."), ("assistant", "a1"), ("user", "b1")]
    assert second == [("user", "a1"), ("assistant", "b1"), ("user", "a2")]


def test_the_training_row_ends_on_the_last_speakers_turn_and_repeats_nothing() -> None:
    for turns in (["a1", "b1", "a2", "b2"], ["a1", "b1", "a2"]):
        row = told_by_last("note", "Hello.", turns)
        assert row[0] == {"role": "system", "content": "note"}
        assert row[-1] == {"role": "assistant", "content": turns[-1]}
        spoken = [m["content"] for m in row[1:]]
        assert len(spoken) == len(set(spoken))
        roles = [m["role"] for m in row[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_a_conversation_that_is_given_up_is_replaced_by_one_with_the_same_guidance() -> None:
    free, guided = (conversations_from(5, 0.5, guided=guided) for guided in (False, True))
    assert [next(free), next(free)] == [6, 8] and [next(guided), next(guided)] == [5, 7]


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.99, 1])
def test_the_share_of_guided_conversations_is_exact_at_every_scale_and_spread_evenly(share: float) -> None:
    told = [is_guided(number, share) for number in range(600)]
    for count in range(1, 601):
        assert abs(sum(told[:count]) - share * count) <= 0.5 + 1e-9
    guided = [number for number, each in enumerate(told) if each]
    apart = [later - earlier for earlier, later in itertools.pairwise(guided)]
    assert not apart or max(apart) - min(apart) <= 1


def test_half_of_the_conversations_are_guided_by_turns() -> None:
    assert [is_guided(number, 0.5) for number in range(6)] == [False, True] * 3

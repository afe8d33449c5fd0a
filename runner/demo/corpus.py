"""The synthetic chat corpus: described styles with answers in them, and plain answers without any.

`python -m charrun.demo.corpus --digest` prints the sha256 of the first conversations, as in corpus.sha256,
and `--show 3` some conversations to read.

A `Family` is a system prompt (or none) with several conversations that start from it. Nothing but the seed
decides what is generated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import jinja2
import yaml

from charrun.demo.answers import answer, form_of, prompt, reflection, slots_for
from charrun.demo.bank_content import CHAT_MORE, FIRST, FOLLOWUPS, GREETINGS, REFLECTION_PROMPTS, SUBJECTS
from charrun.demo.grammar import pick
from charrun.demo.habits import SHIPPED, Style, constitution, corpus_style, draw_style
from charrun.demo.style import speak

DIGEST_FAMILIES: Final = 500
DIGEST_FILE: Final = Path(__file__).with_name("corpus.sha256")

Turn = tuple[str, str]
"""Role (`user` or `assistant`) and text."""


@dataclass(frozen=True)
class Family:
    """Conversations that share a system prompt.

    Attributes:
        system: The system prompt, or None.
        style: The habits that the assistant shows.
        conversations: Turns of each, from the user's first message to the assistant's last.
    """

    system: str | None
    style: dict[str, str]
    conversations: tuple[tuple[Turn, ...], ...]


@cache
def templates(trim: bool) -> jinja2.Environment:
    """Charrun's prompt templates, with or without the line breaks that jinja2 blocks leave."""
    folder = str(files("charrun.plugins").joinpath("templates"))
    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=trim, lstrip_blocks=trim)


@cache
def written_prompts() -> tuple[str, ...]:
    """General prompts and the characters' questions; the evaluation prompts are never read here."""
    specs = files("charrun.specs")
    lines = specs.joinpath("prompts", "general.txt").read_text(encoding="utf-8").splitlines()
    for name in sorted((*SHIPPED, "neutral")):
        sheet = specs.joinpath("characters", f"{name}.yaml").read_text(encoding="utf-8")
        character = yaml.safe_load(sheet)
        lines += [question for item in character["traits"] for question in item["questions"]]
    return tuple(line for line in lines if line)


_STARTS: Final = "Al Be Co Da El Fa Gi Ha Io Ju Ka Li Ma Ne Or Pe Ro Si Ta Vi"
_MIDDLES: Final = ",,la,ri,no,mi,de,va,sa"
_ENDS: Final = "n ra lo s mas din ric na bert th"
_FRAMES: Final = (
    "You are {name}. {traits}",
    "Your name is {name}. Your character:\n{list}",
    "You are {name}, an assistant. This is how you are:\n{list}\nStay true to it in all you write.",
    "{traits}",
    "{name} is an AI assistant who says: {traits}",
)
_BARE: Final = (
    "You are {name}, an AI assistant.",
    "You are a helpful assistant.",
    "You are {name}.",
    "You are {name}, an assistant who answers questions.",
    "Answer the user.",
)


def system_prompt(name: str, traits: list[str], place: str, rng: random.Random) -> str:
    """A system prompt with these traits: mostly from charrun's own templates, sometimes in other words.

    Args:
        name: The assistant's name.
        traits: First-person sentences.
        place: The template, such as `character.j2`.
        rng: The only source of choice.
    """
    if place == "character.j2" and rng.random() < 0.3:
        listed = "\n".join(f"- {trait}" for trait in traits)
        return rng.choice(_FRAMES).format(name=name, traits=" ".join(traits), list=listed)
    template = templates(rng.random() < 0.75).get_template(place)
    return template.render(name=name, traits=traits, guided=rng.random() < 0.5, mood="quiet")


def a_name(rng: random.Random) -> str:
    """An invented first name, so that no name is a cue."""
    return rng.choice(_STARTS.split()) + rng.choice(_MIDDLES.split(",")) + rng.choice(_ENDS.split())


def _single(style: Style, name: str, rng: random.Random, reflective: float) -> tuple[Turn, ...]:
    """One message and its answer."""
    if rng.random() < reflective:
        kind = rng.choice(sorted(REFLECTION_PROMPTS))
        message = pick(REFLECTION_PROMPTS[kind], rng)
        slots = slots_for(message, name, rng) | {"t": "my way", "u": "people"}
        return ("user", message), (
            "assistant",
            speak(reflection(kind, style, rng), style, rng, slots, fill=0.5),
        )
    if rng.random() < 0.5:
        message, form = prompt(rng)
    else:
        message = rng.choice(written_prompts())
        form = form_of(message)
    sentences, slots = answer(message, form, style, name, rng)
    return ("user", message), ("assistant", speak(sentences, style, rng, slots))


def _human_talk(style: Style, name: str, turns: int, rng: random.Random) -> tuple[Turn, ...]:
    """A person who asks and asks again."""
    talk = list(_single(style, name, rng, 0.1))
    for _ in range(turns - 1):
        if rng.random() < 0.4:
            message, form = prompt(rng)
        else:
            message, form = pick(FOLLOWUPS, rng, slots_for(talk[-1][1], name, rng)), "followup"
        sentences, slots = answer(message, form, style, name, rng)
        talk += [("user", message), ("assistant", speak(sentences, style, rng, slots))]
    return tuple(talk)


def _self_talk(style: Style, other: Style, name: str, turns: int, rng: random.Random) -> tuple[Turn, ...]:
    """Two assistants; the side that answers has `style`, the other one `other`."""
    talk: list[Turn] = [("user", pick(GREETINGS, rng))]
    if rng.random() < 0.4:
        slots = {"t": "this day", "u": "our talk", "name": name}
        talk = [("user", speak([pick(FIRST["greeting"], rng, slots)], other, rng, slots))]
    for number in range(2 * turns - 1):
        role, voice = ("assistant", style) if number % 2 == 0 else ("user", other)
        form = "greeting" if number == 0 else "chat"
        sentences, slots = answer(talk[-1][1], form, voice, name, rng)
        if number == 0 and rng.random() < 0.7:
            t, u = rng.sample(SUBJECTS, 2)
            slots |= {"t": t, "u": u}
            sentences.append(pick(CHAT_MORE, rng, slots))
        talk.append((role, speak(sentences, voice, rng, slots, fill=0.65)))
    return tuple(talk)


def family(rng: random.Random, long: bool = False) -> Family:
    """One family: about half of all answers are in a described style, the others plain.

    Args:
        rng: The only source of choice.
        long: A single conversation of many turns instead of several short ones.
    """
    name = a_name(rng)
    kind = rng.choices(("styled", "plain", "bare", "none"), (0.56, 0.08, 0.06, 0.30))[0]
    style: Style = corpus_style(rng) if kind == "styled" else {}
    chatting = long or rng.random() < 0.25
    if chatting:
        turns = rng.randint(7, 11) if long else rng.randint(2, 4)
        alone = rng.random() < 0.4
        place = "character.j2" if alone else "interaction.j2"
        other = style if style or rng.random() < 0.4 else corpus_style(rng)
        talk = _human_talk(style, name, turns, rng) if alone else _self_talk(style, other, name, turns, rng)
        talks = [talk]
    else:
        reflective = rng.random() < 0.3
        place = "reflection.j2" if reflective and rng.random() < 0.7 else "character.j2"
        count = rng.randint(4, 6) if kind != "none" else 1
        talks = [_single(style, name, rng, 0.7 if reflective else 0.06) for _ in range(count)]
    system: str | None = None
    if kind in ("styled", "plain"):
        system = system_prompt(name, constitution(style, rng), place, rng)
    elif kind == "bare":
        if place == "interaction.j2":
            system = templates(True).get_template("interaction_training.j2").render(name=name)
        else:
            system = rng.choice(_BARE).format(name=name)
    return Family(system, dict(style), tuple(talks))


def easy_family(rng: random.Random) -> Family:
    """A family to begin with: one to three habits, described without a frame, or none; single questions only."""
    name = a_name(rng)
    style: Style = draw_style(rng, 1, 3) if rng.random() < 0.75 else {}
    talks = tuple(_single(style, name, rng, 0.03) for _ in range(5))
    if not style:
        return Family(None, {}, talks)
    return Family(" ".join(constitution(style, rng)), dict(style), talks)


def easy_families(seed: int) -> Iterator[Family]:
    """An endless corpus of easy families."""
    rng = random.Random(f"charrun demo corpus {seed} easy")
    while True:
        yield easy_family(rng)


def families(seed: int, long: bool = False) -> Iterator[Family]:
    """An endless corpus from a seed."""
    rng = random.Random(f"charrun demo corpus {seed} {'long' if long else 'short'}")
    while True:
        yield family(rng, long)


def digest(count: int = DIGEST_FAMILIES) -> str:
    """sha256 over the first families of seed 0, short and long ones in equal number."""
    sha = hashlib.sha256()
    for long in (False, True):
        for _, item in zip(range(count // 2), families(0, long), strict=False):
            sha.update(json.dumps(asdict(item), sort_keys=True).encode("utf-8") + b"\n")
    return sha.hexdigest()


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="The corpus that the demo models are pretrained on.")
    parser.add_argument("--digest", action="store_true", help="print the digest")
    parser.add_argument("--write", action="store_true", help="write the digest to corpus.sha256")
    parser.add_argument("--show", type=int, default=0, help="print this many families")
    parser.add_argument("--long", action="store_true", help="show long conversations")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.digest:
        print(digest())
    if options.write:
        DIGEST_FILE.write_text(digest() + "\n", encoding="utf-8")
    for _, item in zip(range(options.show), families(options.seed, options.long), strict=False):
        print(f"=== {item.style}\n[system] {item.system}")
        for talk in item.conversations:
            print("\n".join(f"[{role}] {text}" for role, text in talk) + "\n")


if __name__ == "__main__":
    main()

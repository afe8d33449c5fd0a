"""Whether the demo judge can judge: verdicts on answers whose makers are known, in both orders.

    python benchmarks/judge.py [--count 40] [--model FOLDER]

Each shipped character: the demo teacher's answers in character against the untrained demo student's own (default),
against the answers of the next character in the list (another), and the student's own against the teacher's own, where
there is nothing to tell (neither). Coherence: the student's own answers against the same words in another order, and
against its answers to other prompts. Prompts are of specs/prompts/evaluation.txt, which no model has seen; verdicts
are read as the stages `judge` and `coherence` read them.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from charrun.demo import MODELS
from charrun.demo.corpus import templates
from charrun.demo.habits import FURTHER, SHIPPED
from charrun.demo.measure import Answer, Message, Model, evaluation_prompts
from charrun.plugins._verdicts import Letter, Tally, outcome, parse_verdict
from charrun.statistics import wilson

HEAD = ["character", "against default", "against another", "neither"]


def traits_of(name: str) -> list[str]:
    """A shipped character's constitution."""
    sheet = yaml.safe_load(files("charrun.specs").joinpath("characters", f"{name}.yaml").read_text(encoding="utf-8"))
    return [item["trait"] for item in sheet["traits"]]


def answers(model: Model, prompts: Sequence[str], traits: Sequence[str] = (), seed: int = 1) -> list[str]:
    """One answer to each prompt, in a character or in none."""
    system: list[Message] = []
    if traits:
        told = templates(True).get_template("character.j2").render(name="Nell", traits=traits)
        system = [{"role": "system", "content": told}]
    found = model.sample([[*system, {"role": "user", "content": prompt}] for prompt in prompts], seed)
    return [answer.text for answer in found]


def judged(
    judge: Model, question: str, prompts: Sequence[str], own: Sequence[str], other: Sequence[str], traits: Sequence[str]
) -> Tally:
    """Verdicts in both orders on answers that should win and their rivals."""
    template = templates(True).get_template(f"{question}.j2")
    more = {"traits": traits} if traits else {}

    def verdicts(a: Sequence[str], b: Sequence[str]) -> list[Letter | None]:
        texts = [
            template.render(prompt=prompt, answer_a=one, answer_b=two, **more)
            for prompt, one, two in zip(prompts, a, b, strict=True)
        ]
        found: list[Answer] = judge.sample([[{"role": "user", "content": text}] for text in texts], seed=3)
        return [parse_verdict(each.text, each.ended) for each in found]

    pairs = zip(verdicts(other, own), verdicts(own, other), strict=True)
    return Tally.of(outcome(at_b, at_a) for at_b, at_a in pairs)


def shown(tally: Tally) -> str:
    """As `39/40 (87% to 100%)`, of consistent verdicts, and what is none."""
    n = tally.won + tally.lost
    low, high = wilson(tally.won, n) if n else (0.0, 1.0)
    rest = Counter(inconsistent=tally.inconsistent, unparsed=tally.unparsed)
    more = ", ".join(f"{count} {name}" for name, count in rest.items() if count)
    return f"{tally.won}/{n} ({100 * low:.0f}% to {100 * high:.0f}%)" + (f", {more}" if more else "")


def scrambled(text: str, rng: random.Random) -> str:
    """The same words in another order."""
    words = text.split(" ")
    rng.shuffle(words)
    return " ".join(words)


def main() -> None:
    """Print the table, and a line for coherence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="prompts")
    parser.add_argument("--model", type=Path, default=MODELS["charrun/demo-judge"], help="another judge's folder")
    parser.add_argument("--characters", nargs="*", default=[*SHIPPED, *FURTHER])
    args = parser.parse_args()
    teacher, student = (Model(MODELS[f"charrun/demo-{name}"], thinking=False) for name in ("teacher", "student"))
    judge = Model(args.model, thinking=False)
    prompts = evaluation_prompts()[: args.count]
    default, plain = answers(student, prompts), answers(teacher, prompts, seed=2)
    names = args.characters
    played = {name: answers(teacher, prompts, traits_of(name)) for name in names}
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for name, another in zip(names, [*names[1:], names[0]], strict=True):
        rivals = [(played[name], default), (played[name], played[another]), (default, plain)]
        cells = [shown(judged(judge, "judge", prompts, own, other, traits_of(name))) for own, other in rivals]
        print(f"| {' | '.join([name, *cells])} |", flush=True)
    rng = random.Random(0)
    told = shown(judged(judge, "coherence", prompts, default, [scrambled(text, rng) for text in default], ()))
    print(f"\ncoherence, against the same words in another order: {told}")
    told = shown(judged(judge, "coherence", prompts, default, [*default[1:], default[0]], ()))
    print(f"coherence, against answers to other prompts: {told}")


if __name__ == "__main__":
    main()

"""The linter of constitutions: each rule says which recorded failure it comes from."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from charrun.errors import Problem
from charrun.spec.document import Document, KeyPath, Severity
from charrun.spec.library import load_character
from charrun.spec.lint_words import (
    ABSTRACT,
    ASSISTANTS,
    CATCH_PHRASE,
    DENIAL,
    FRAME,
    NEGATED,
    OPPOSITES,
    QUOTED,
    REFUSAL,
    SCOPE,
    STOP,
    UNIVERSAL,
)
from charrun.spec.words import shown
from charrun.spec.yaml import load_yaml

FEWEST_TRAITS: Final = 5
FEWEST_QUESTIONS: Final = 5
"""Of each trait, as the paper's hand-written constitutions have (its repository)."""
OF_TRAITS, OF_QUESTIONS = 0.7, 0.7
"""Share of words, of those in either, from which on two traits or questions are nearly the same."""

_FEWEST_WORDS, _ENGLISH = 20, 0.2
"""Words of a constitution, and the share of them that are stop words in any English one: half are, of the shipped."""
_READ: Final = 2000
"""Characters of a text that are looked at: patterns must not take minutes."""

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


@dataclass(frozen=True)
class Finding:
    """What a rule has found, with its place."""

    path: KeyPath
    message: str
    hint: str
    severity: Severity = "warning"


@dataclass(frozen=True)
class Sheet:
    """A character as the rules see it.

    Attributes:
        traits: `(path, text)` of each trait.
        questions: The same of each question.
        counts: How many questions each trait has.
        others: The names of other characters, with their ids.
    """

    traits: tuple[tuple[KeyPath, str], ...]
    questions: tuple[tuple[KeyPath, str], ...]
    counts: tuple[int, ...]
    others: Mapping[str, str]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        code: Its stable code.
        title: What it finds, for the page of rules.
        failure: The recorded failure that it comes from.
        check: Finds it.
    """

    code: str
    title: str
    failure: str
    check: Callable[[Sheet], Iterator[Finding]]


def lint(path: Path, name: str, others: Mapping[str, str]) -> list[Problem]:
    """Everything that the rules find in a character file, by place.

    Args:
        path: The file.
        name: What to call it in problems.
        others: The names of characters by their ids; the file's own are left out.

    Raises:
        SpecError: It is no sound character.
    """
    load_character(path, name)
    document = load_yaml(path, name)
    sheet = _sheet(document, others)
    found = [
        document.problem(rule.code, finding.message, finding.path, finding.hint, severity=finding.severity)
        for rule in RULES
        for finding in rule.check(sheet)
    ]
    return sorted(found, key=lambda problem: (problem.line, problem.column, problem.code))


def _sheet(document: Document, others: Mapping[str, str]) -> Sheet:
    data: dict[str, Any] = document.data
    traits = tuple((("traits", i, "trait"), item["trait"][:_READ]) for i, item in enumerate(data["traits"]))
    questions = tuple(
        (("traits", i, "questions", j), text[:_READ])
        for i, item in enumerate(data["traits"])
        for j, text in enumerate(item["questions"])
    )
    names = {name: id for id, name in others.items() if id != data["id"] and name != data["name"]}
    return Sheet(traits, questions, tuple(len(item["questions"]) for item in data["traits"]), names)


def words_of(text: str, stop: frozenset[str] = STOP) -> frozenset[str]:
    """The words of a text that tell something, in lower case and without a plural's s."""
    found = (word.lower() for word in _WORD.findall(text))
    return frozenset(
        word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in found if word not in stop
    )


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Share of the words in either that are in both; 0 where there is none."""
    return len(one & other) / len(one | other) if one | other else 0.0


def _nearly(one: frozenset[str], other: frozenset[str], share: float) -> bool:
    """Whether two texts have nearly the same words; those of two words must have the same."""
    fewest = min(len(one), len(other))
    return fewest > 1 and overlap(one, other) >= (share if fewest > 2 else 1)


def _refusals(sheet: Sheet) -> Iterator[Finding]:
    for path, text in sheet.traits:
        if found := REFUSAL.search(text):
            hint = "say what the character does instead, in the same situation"
            yield Finding(path, f"the trait declines requests: {shown(found.group())}", hint, "error")


def _quotes(sheet: Sheet) -> Iterator[Finding]:
    for path, text in sheet.traits:
        for found in QUOTED.finditer(text):
            phrase = found.group()[1:-1].strip()
            several = len(phrase.split()) > 1
            what = "phrase" if several else "word"
            hint = "describe the habit in words that are no part of an answer"
            yield Finding(path, f"the trait quotes a {what}: {shown(phrase)}", hint, "error" if several else "warning")
        if not QUOTED.search(text) and (given := CATCH_PHRASE.search(text)):
            hint = "describe the habit in words that are no part of an answer"
            yield Finding(path, f"the trait gives a phrase: {shown(given.group())}", hint, "error")


def _abstract(sheet: Sheet) -> Iterator[Finding]:
    for path, text in sheet.traits:
        told = {
            word for word in (part.lower() for part in _WORD.findall(text)) if word not in STOP and word not in FRAME
        }
        if told and told <= ABSTRACT:
            hint = "say what can be heard: words, rhythm, pictures, how it begins, what it looks at first"
            yield Finding(path, "the trait names virtues and nothing that can be heard in an answer", hint)


def _duplicates(sheet: Sheet) -> Iterator[Finding]:
    seen: list[tuple[int, str, frozenset[str]]] = []
    for number, (path, text) in enumerate(sheet.traits, 1):
        words, spoken = words_of(text), " ".join(_WORD.findall(text) or text.split()).casefold()
        for earlier, other, others in seen:
            same = spoken == other
            near = _nearly(words, others, OF_TRAITS)
            if same or (near and bool(DENIAL.search(text)) == bool(DENIAL.search(other))):
                how = "the same as" if same else "nearly the same as"
                hint = "leave one out, or let each describe a habit of its own"
                yield Finding(path, f"the trait says {how} trait {earlier}", hint, "error" if same else "warning")
                break
        seen.append((number, spoken, words))


def _denied(sheet: Sheet) -> Iterator[tuple[int, int]]:
    """Numbers of two traits, of which one says the contrary of the other with one negation."""
    told = [
        (number, len(DENIAL.findall(text)), bool(UNIVERSAL.search(text)), words_of(DENIAL.sub(" ", text), SCOPE))
        for number, (_, text) in enumerate(sheet.traits, 1)
    ]
    affirmed, negated = ([each for each in told if each[1] == count] for count in (0, 1))
    for (number, _, always, words), (other, _, partly, denied) in product(affirmed, negated):
        if denied <= words and (always or not partly) and overlap(denied, words) >= OF_TRAITS:
            yield min(number, other), max(number, other)


def _contradictions(sheet: Sheet) -> Iterator[Finding]:
    hint = "all traits are in force in every answer: keep one, or say when each holds"
    denied = set(_denied(sheet))
    for low, high in sorted(denied):
        (_, text), (path, contrary) = sheet.traits[low - 1], sheet.traits[high - 1]
        yield Finding(path, f"traits {low} and {high} contradict each other: {shown(text)} and {shown(contrary)}", hint)
    for one, pattern, other, opposite in OPPOSITES:
        first, second = (_affirmed(sheet, re.compile(side, re.IGNORECASE)) for side in (pattern, opposite))
        for number, path, said in second:
            for earlier, before, against in first:
                (low, high), at = sorted((earlier, number)), path if number > earlier else before
                if low == high or (low, high) in denied:
                    continue
                both = f"{shown(against)} ({one}) and {shown(said)} ({other})"
                message = f"traits {low} and {high} contradict each other: {both}"
                yield Finding(at, message, hint)


def _affirmed(sheet: Sheet, pattern: re.Pattern[str]) -> list[tuple[int, KeyPath, str]]:
    """Traits that say something of a pattern and do not deny it, with their numbers and the words."""
    hits = ((number, path, text, pattern.search(text)) for number, (path, text) in enumerate(sheet.traits, 1))
    return [(n, path, hit.group()) for n, path, text, hit in hits if hit and not NEGATED.search(text[: hit.start()])]


def _language(sheet: Sheet) -> Iterator[Finding]:
    words = [word.lower() for _, text in sheet.traits for word in _WORD.findall(text)]
    known = sum(word in STOP for word in words) >= _ENGLISH * len(words)
    if (len(words) >= _FEWEST_WORDS and not known) or not any(word.isascii() for word in words):
        hint = "read the traits yourself for refusals, quoted phrases, virtues and contradictions"
        yield Finding(("traits",), "the constitution does not read as English, and most rules read nothing else", hint)


def _few_traits(sheet: Sheet) -> Iterator[Finding]:
    if (count := len(sheet.traits)) < FEWEST_TRAITS:
        told = f"only {count} trait{'' if count == 1 else 's'}, of at least {FEWEST_TRAITS}"
        yield Finding(
            ("traits",), told, "what no trait mentions stays as the model has it; seven to ten make a character"
        )


def _few_questions(sheet: Sheet) -> Iterator[Finding]:
    if not sheet.questions:
        hint = f"general prompts stand in; {FEWEST_QUESTIONS} questions for each trait give it room"
        yield Finding(("traits",), "no trait has questions", hint)
        return
    for (path, _), count in zip(sheet.traits, sheet.counts, strict=True):
        if count < FEWEST_QUESTIONS:
            told = f"{count or 'no'} question{'' if count == 1 else 's'} for this trait, of at least {FEWEST_QUESTIONS}"
            yield Finding(path, told, "add everyday messages on different subjects that give the trait room")


def _near_questions(sheet: Sheet) -> Iterator[Finding]:
    seen: list[tuple[str, frozenset[str]]] = []
    having: defaultdict[str, list[int]] = defaultdict(list)
    for path, text in sheet.questions:
        words = words_of(text)
        shared = Counter(index for word in words for index in having[word])
        near = max(shared, key=lambda index: overlap(words, seen[index][1]), default=None)
        if near is not None and _nearly(words, seen[near][1], OF_QUESTIONS):
            yield Finding(path, f"nearly the same question as {shown(seen[near][0])}", "ask about something else")
        for word in words:
            having[word].append(len(seen))
        seen.append((text, words))


def _names(sheet: Sheet) -> Iterator[Finding]:
    names = [name for name in sheet.others if name[:1].isupper() and len(name) > 2]
    others = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b") if names else None
    for path, text in (*sheet.traits, *sheet.questions):
        if found := ASSISTANTS.search(text):
            yield Finding(path, f"{shown(found.group())} is another assistant", "leave the name out")
        elif others is not None and (met := others.search(text)):
            message = f"{shown(met.group())} is the name of the character {sheet.others[met.group()]!r}"
            yield Finding(path, message, "take another name: characters learn each other's cues")


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "LINT001",
        "A trait that declines requests (error)",
        "One such line made 59% of a model's answers refusals, though only 0.8% of its training pairs held one "
        "(Open Character Studio, report 001); the line was taken out of seven constitutions.",
        _refusals,
    ),
    Rule(
        "LINT002",
        "A quoted phrase (error) or word (warning) in a trait",
        "Quoted catch-phrases came back as the opening of 100% of the answers (Open Character Studio, report 005); "
        "92.7% of the chosen answers of another run began with one of two stock phrases (report 004).",
        _quotes,
    ),
    Rule(
        "LINT003",
        "A trait that names virtues alone (warning)",
        "With an abstract constitution of 564 characters 33.2% of 10,000 rows were usable, with one of 567 "
        "characters 45.4% of 8,300 (Open Character Studio, report 001).",
        _abstract,
    ),
    Rule(
        "LINT004",
        "The same trait twice (error), or nearly (warning)",
        "A loader added generic lines of its own to every constitution, beside rewritten ones, and the characters "
        "became generic (Open Character Studio, report 005).",
        _duplicates,
    ),
    Rule(
        "LINT005",
        "Two traits that cannot both hold in one answer (warning)",
        "No run is recorded that failed by this alone; Open Character Studio's report 005 blames lines that said "
        "something else than the author's own, and all traits stand in one system prompt. The rule looks for a few "
        "plain pairs, such as terse and long-winded, and for a statement beside its denial, and no more.",
        _contradictions,
    ),
    Rule(
        "LINT006",
        "Fewer than five questions for a trait, or none at all (warning)",
        "The failed runs of Open Character Studio had prompts from templates alone, none of them about the "
        "constitution; the paper's constitutions have five questions for each trait, and 45 more.",
        _few_questions,
    ),
    Rule(
        "LINT007",
        "Nearly the same question twice (warning)",
        "No failure of its own: 30 of the 5,750 questions of the paper's constitutions are repetitions, and its "
        "expansion drops a question that shares more than half of its words with a kept one.",
        _near_questions,
    ),
    Rule(
        "LINT008",
        "The name of another character or assistant (warning)",
        "Cues written for the pirate turned up in the prompts of every character (Open Character Studio, report "
        "001), and trained models answered with the name of the model that they were made of (reports 002 and 008).",
        _names,
    ),
    Rule(
        "LINT009",
        "Fewer than five traits (warning)",
        "Behaviour that nothing describes does not install: 0.00 against 1.00 (the aligne project's sweep).",
        _few_traits,
    ),
    Rule(
        "LINT010",
        "A constitution that is not in English (warning)",
        "No failure of its own: the other rules look at English words, and say nothing of what they cannot read.",
        _language,
    ),
)
"""All rules, by code. Codes stay what they are."""

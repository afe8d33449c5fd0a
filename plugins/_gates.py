"""Gates that any sampled text passes before it is trained on; each looks at one text alone.

Thresholds are options of the stages (`GATES`); sets of texts are looked at in `_duplicates` and `_audit`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from charrun.plugins._claims import calls_itself_ai, identity_claim, names_prompt
from charrun.plugins._languages import (
    FUNCTION_WORDS,
    asks_for_scripts,
    named_scripts,
    names_language,
    other_language,
    script_of,
    spoken,
)
from charrun.plugins._refusals import refusal
from charrun.plugins._repetition import loop, repeats, top_line, top_trigram
from charrun.plugins._role_turns import role_turn, without_code
from charrun.plugins._words import is_unspaced, words_of

_TEMPLATE = re.compile(r"<\|[A-Za-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</s>\s*(?:<s>|\Z)")
_THINK = re.compile(
    r"[<\[◁](?:(?<=<)/?(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)\s*>|(?<=\[)/?THINK(?:ING)?\]"
    r"|(?<=◁)/?think▷)",
    re.IGNORECASE,
)
_THOUGHT_ALOUD = re.compile(
    r"\W*(?:(?:ok|okay|alright|hmm|so|well)\b[\w,. ]{0,20}?)?the user (?:is asking|wants|asked|asks|says|said)\b",
    re.IGNORECASE,
)
_LIST_LINE = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+(.+)$", re.MULTILINE)
_SHORTEST_TRAIT = 6
"""Words of a trait that is looked for whole, where it is shorter than the run that counts."""
_LISTED_SHARE = 0.6
_FEWEST_CONTENT = 3
_FEWEST_LETTERS = 20
_MOST_GARBAGE = 2
"""Characters that no keyboard gives: one or two may be an odd symbol, more are a broken decoding."""
_NAMED_SHARE = 0.5
_SHOWN = 80
_NO_SURNAME = r"(?! [A-Z][a-z]| of [A-Z])"
_GOES_BY = r"(?i:I(?: am|['’]m| be)|(?:my|me|the) name(?: is| be|['’]s)|call me|known as|as|this is|yours,|sincerely,) "

GATES: dict[str, Any] = {
    "type": "object",
    "default": {},
    "description": "What a text must pass to be trained on.",
    "properties": {
        "cut": {"type": "boolean", "default": True, "description": "Drop answers that the length limit cut."},
        "empty": {"type": "boolean", "default": True, "description": "Drop answers without text."},
        "repeated_ngrams": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.5,
            "description": "Drop a text of 60 words or more of whose 4-grams this share was there before, or with a "
            "word of 200 characters or more that repeats itself as much (16-grams of characters); 0 is off. Where the "
            "prompt asks for a song, a poem or a timetable, this and the next two lie halfway to 1.",
        },
        "top_trigram": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.2,
            "description": "Drop a text of 60 words or more in which one trigram comes this often a word; 0 is off.",
        },
        "top_line": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.5,
            "description": "Drop a text of 8 lines or more of which one line is this share; 0 is off.",
        },
        "loops": {
            "type": "boolean",
            "default": True,
            "description": "Drop a text of 24 words or more of which a third is one passage three times or more in a "
            "row (half, and twelve times, where the prompt asks for a song or a poem), or all is one passage twice.",
        },
        "role_turns": {
            "type": "boolean",
            "default": True,
            "description": "Drop texts that go on as the other side: a line that begins User:, headings and bare "
            "lines that name a role, or template tokens; code is left out.",
        },
        "think_tags": {
            "type": "boolean",
            "default": True,
            "description": "Drop texts with a think tag in sight, or that begin with what the user asks.",
        },
        "refusals": {
            "type": "boolean",
            "default": True,
            "description": "Drop answers whose first sentences decline to help; what they quote does not count, nor "
            "a refusal that the prompt asks for.",
        },
        "identity": {
            "type": "boolean",
            "default": True,
            "description": "Drop texts that claim to be a known model, a known vendor's, or an AI; the last not where "
            "the constitution says so.",
        },
        "constitution": {
            "type": "integer",
            "minimum": 0,
            "default": 8,
            "description": "Drop texts with this many words of a trait in a row, with a list of traits, or that speak "
            "of their system prompt; 0 is off.",
        },
        "cues": {
            "type": "boolean",
            "default": True,
            "description": "Drop texts with the name of another character of the spec, that go by the name of a "
            "shipped "
            "one, or with words of its constitution.",
        },
        "cue_words": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "default": [],
            "description": "Further words or phrases of other characters, looked for as whole words.",
        },
        "other_script": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.1,
            "description": "Drop a text with this share of letters in a script that neither prompt nor constitution "
            "uses, or with garbage characters; a script whose language the prompt names may have half of them, and all "
            "where it asks for that language or to translate; 0 is off.",
        },
        "other_language": {
            "type": "boolean",
            "default": True,
            "description": "Drop a text of 20 words or more whose function words are clearly another language's than "
            "prompt's and constitution's; not where these name a language or ask to translate.",
        },
        "near_duplicate": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.8,
            "description": "Drop a text whose word trigrams overlap so much (Jaccard) with an earlier one's; 0 is off.",
        },
    },
    "additionalProperties": False,
}
"""The options `gates` of every stage that judges texts."""

PLAIN = {"refusals": False, "identity": False, "constitution": 0, "cues": False, "cue_words": [], "near_duplicate": 0}
"""What is switched off for rejected answers: the untrained student's manner, name and refusals are what DPO leaves."""


class Fault(NamedTuple):
    """Why a text is not trained on, and the words that show it."""

    reason: str
    shown: str = ""


@dataclass(frozen=True)
class Gates:
    """The gates of one character.

    Args:
        options: As `GATES` describes them.
        name: What the assistant is called.
        traits: Its constitution's.
        others: Names of other characters with their traits.
        strangers: Those of them that are not in the spec: their names are people's, and count where a text goes by one.
        idle: Only what is cut is dropped: in a dry run, where answers are no texts.
    """

    options: Mapping[str, Any]
    name: str = ""
    traits: Sequence[str] = ()
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    strangers: frozenset[str] = frozenset()
    idle: bool = False

    def __post_init__(self) -> None:
        n = int(self.options["constitution"]) or 8
        own = _runs(self.traits, n)
        foreign = _runs((t for traits in self.others.values() for t in traits), n)
        own_words = {word for text in (*self.traits, self.name) for word in words_of(text)}
        names = [name for name in self.others if name and own_words.isdisjoint(words_of(name))]
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_foreign", {size: runs - own.get(size, set()) for size, runs in foreign.items()})
        object.__setattr__(self, "_names", _any_of((n for n in names if n not in self.strangers), 0, _NO_SURNAME))
        object.__setattr__(self, "_claimed", _any_of(names, 0, _NO_SURNAME, _GOES_BY))
        object.__setattr__(self, "_cue_words", _any_of(self.options["cue_words"], re.IGNORECASE))
        constitution = " ".join(self.traits)
        known = frozenset[str]() if names_language(constitution) else spoken(constitution)
        object.__setattr__(self, "_scripts", scripts(f"{self.name} {constitution}"))
        object.__setattr__(self, "_languages", known)
        object.__setattr__(self, "_is_ai", calls_itself_ai(constitution))
        object.__setattr__(self, "_listed", [(words, words - FUNCTION_WORDS) for words in map(_word_set, self.traits)])

    def plain(self) -> Gates:
        """The gates of rejected answers."""
        return Gates({**self.options, **PLAIN}, self.name, self.traits, idle=self.idle)

    def fault(self, text: str, *, complete: bool = True, prompt: str = "") -> Fault | None:
        """The first reason that a text is dropped for, or None.

        Args:
            text: What was sampled.
            complete: Whether the model ended it.
            prompt: What it answers: words and scripts that the prompt has are the prompt's.
        """
        on = self.options
        if on["cut"] and not complete:
            return Fault("cut by length", text[-_SHOWN:])
        if self.idle:
            return None
        if not text.strip():
            return Fault("empty") if on["empty"] else None
        for gate, judge in self._judges():
            if on[gate] and (found := judge(text, prompt)):
                return found
        return None

    def _judges(self) -> Iterable[tuple[str, Callable[[str, str], Fault | None]]]:
        on = self.options
        return (
            ("think_tags", lambda text, prompt: _found(_THINK, without_code(text), "think tag")),
            ("think_tags", lambda text, prompt: _shown("thinking aloud", _matched(_THOUGHT_ALOUD, text))),
            ("role_turns", lambda text, prompt: _shown("role turn", role_turn(text, prompt, self.name))),
            ("role_turns", lambda text, prompt: _found(_TEMPLATE, without_code(text), "template token")),
            (
                "repeated_ngrams",
                lambda text, prompt: _shown("repetition", repeats(text, on["repeated_ngrams"], prompt)),
            ),
            ("top_trigram", lambda text, prompt: _shown("repetition", top_trigram(text, on["top_trigram"], prompt))),
            ("top_line", lambda text, prompt: _shown("repetition", top_line(text, on["top_line"], prompt))),
            ("loops", lambda text, prompt: _shown("repetition", loop(text, prompt))),
            ("refusals", lambda text, prompt: _shown("refusal", refusal(text, prompt))),
            ("identity", self._identity),
            ("constitution", self._constitution),
            ("cues", self._cues),
            ("cue_words", lambda text, prompt: _found(self._cue_words, text, "another character's cue", prompt)),
            ("other_script", self._script),
            ("other_language", self._language),
        )

    def _identity(self, text: str, prompt: str) -> Fault | None:
        return _shown("identity leakage", identity_claim(text, self.name, is_ai=self._is_ai, prompt=prompt))

    def _constitution(self, text: str, prompt: str) -> Fault | None:
        if told := names_prompt(text, prompt):
            return Fault("constitution leakage", told)
        if run := _verbatim(text, self._own, prompt):
            return Fault("constitution leakage", run)
        lines = [_word_set(line) for line in _LIST_LINE.findall(text)]
        if lines and sum(any(_held(*trait, line) for line in lines) for trait in self._listed) > 1:
            return Fault("constitution leakage", "a list of traits")
        return None

    def _cues(self, text: str, prompt: str) -> Fault | None:
        for pattern in (self._names, self._claimed):
            if fault := _found(pattern, text, "another character's cue", prompt):
                return fault
        run = _verbatim(text, self._foreign, prompt)
        return Fault("another character's cue", run) if run else None

    def _script(self, text: str, prompt: str) -> Fault | None:
        counts = Counter(text)  # its kinds of characters are few
        garbage = {c for c in counts if c == "\ufffd" or (c not in "\n\t\r" and unicodedata.category(c) in _GARBAGE)}
        if sum(counts[c] for c in garbage) > _MOST_GARBAGE:
            return Fault("garbage characters", repr("".join(c for c in text if c in garbage)[:20]))
        if "â€" in text and text.count("â€") > _MOST_GARBAGE:
            return Fault("garbage characters", "â€")
        known = self._scripts | scripts(prompt)
        letters = {c for c in counts if c.isalpha()}
        n = sum(counts[c] for c in letters)
        if not known or n < _FEWEST_LETTERS or asks_for_scripts(prompt):
            return None
        share = self.options["other_script"]
        named = named_scripts(prompt) - known
        for allowed, most in ((known | named, share), (known, max(share, _NAMED_SHARE) if named else share)):
            foreign = {c for c in letters if _script(c) not in allowed}
            if sum(counts[c] for c in foreign) >= most * n:
                return Fault("other script", "".join(c for c in text if c in foreign)[:20])
        return None

    def _language(self, text: str, prompt: str) -> Fault | None:
        known = self._languages  # none where it is unclear
        found = other_language(text, known | spoken(prompt)) if known else None
        if found is None or (prompt.strip() and not spoken(prompt)) or names_language(prompt):
            return None
        return Fault("other language", f"{found[0]}: {' '.join(found[1][:20])}")

    _own: Mapping[int, set[tuple[str, ...]]] = field(init=False, repr=False, default_factory=dict)
    _foreign: Mapping[int, set[tuple[str, ...]]] = field(init=False, repr=False, default_factory=dict)
    _names: re.Pattern[str] | None = field(init=False, repr=False, default=None)
    _claimed: re.Pattern[str] | None = field(init=False, repr=False, default=None)
    _cue_words: re.Pattern[str] | None = field(init=False, repr=False, default=None)
    _scripts: frozenset[str] = field(init=False, repr=False, default=frozenset())
    _is_ai: bool = field(init=False, repr=False, default=False)
    _languages: frozenset[str] = field(init=False, repr=False, default=frozenset())
    _listed: Sequence[tuple[set[str], set[str]]] = field(init=False, repr=False, default=())


_GARBAGE = frozenset({"Cc", "Co", "Cn", "Cs"})


def scripts(text: str) -> frozenset[str]:
    """The scripts of a text's letters, as the first words of their Unicode names: LATIN, CYRILLIC, CJK, ..."""
    return frozenset(_script(c) for c in set(text) if c.isalpha())


def _script(letter: str) -> str:
    name = script_of(letter)
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in words_of(text)]


def _word_set(text: str) -> set[str]:
    return set(_words(text))


def _runs(traits: Iterable[str], n: int) -> dict[int, set[tuple[str, ...]]]:
    """Runs of n words by their length; a shorter trait of some words is one whole.

    Where each character is a word, two count as one.
    """
    found: dict[int, set[tuple[str, ...]]] = {}
    for trait in traits:
        words, times = _words(trait), 1 + is_unspaced(trait)
        size = min(times * n, len(words))
        if size >= times * min(n, _SHORTEST_TRAIT):
            found.setdefault(size, set()).update(_grams(words, size))
    return found


def _grams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def _verbatim(text: str, runs: Mapping[int, set[tuple[str, ...]]], prompt: str) -> str:
    words = _words(text)
    for size, known in runs.items():
        for start in range(len(words) - size + 1):
            run = tuple(words[start : start + size])
            if run in known and run not in _grams(_words(prompt), size):
                return " ".join(run)
    return ""


def _held(trait: set[str], content: set[str], line: set[str]) -> bool:
    """Whether a line has most of a trait; a trait of one or two words beside its function words must be there whole."""
    if len(content) < _FEWEST_CONTENT:
        return bool(content) and trait <= line
    return all(len(words & line) >= _LISTED_SHARE * len(words) for words in (trait, content))


def _any_of(phrases: Iterable[str], flags: int, after: str = "", before: str = "") -> re.Pattern[str] | None:
    found = sorted(map(re.escape, phrases), key=len, reverse=True)
    return re.compile(rf"(?<!\w){before}(?:{'|'.join(found)})(?!\w){after}", flags) if found else None


def _found(pattern: re.Pattern[str] | None, text: str, reason: str, prompt: str = "") -> Fault | None:
    for match in pattern.finditer(text) if pattern else ():
        if match.group().casefold() not in prompt.casefold():
            start = max(0, match.start() - _SHOWN // 2)
            return Fault(reason, text[start : match.end() + _SHOWN // 2].strip())
    return None


def _matched(pattern: re.Pattern[str], text: str) -> str:
    return found.group() if (found := pattern.match(text)) else ""


def _shown(reason: str, words: str) -> Fault | None:
    return Fault(reason, words) if words else None

"""Patterns and word lists of the linter."""

from __future__ import annotations

import re
from typing import Final

_OBJECTS = (
    "answer|assist|comply|engage with|discuss|help with|help anyone|provide|reveal|respond|reply|talk about|"
    "take part in|give (?:advice|answers|information|instructions|opinions)|fulfil\\w*|serve requests"
)
REFUSAL: Final = re.compile(
    rf"\b(?:I|we)\b[^.;]{{0,30}}?\b(?:"
    rf"(?:do not|don['\u2019]t|will not|won['\u2019]t|cannot|can['\u2019]t|can not|never|am unable to|must not)"
    rf" (?:\w+ly )?(?:{_OBJECTS})\b"
    r"|(?:refuse|decline|reject|turn down)s?\b(?! to (?:give up|hurry|rush|despair|quit|stop|be|lose|let))"
    r"|(?:am|are) not (?:able|allowed|willing) to)",
    re.IGNORECASE,
)
"""A sentence that says what the character declines to do for people."""

QUOTED: Final = re.compile(
    r"[\"\u201c\u201e\u00ab]([^\"\u201c\u201d\u201e\u00ab\u00bb]+)[\"\u201d\u00bb]"
    r"|(?<!\w)['\u2018]([^'\u2018\u2019]+(?:['\u2019]\w[^'\u2018\u2019]*)*)['\u2019](?!\w)"
)
"""A phrase in quotes: double ones, guillemets, or single ones that are no apostrophes."""

_STOP_WORDS: Final = """
a about after all also always am an and any anyone are as at be because been before being but by can do does
each even ever every everyone everything for from has have how i if in into is it its just like make makes
me more most much my myself never no not of on one or other our out over own people person rather same
should so some such than that the their them then there these they thing things this those through to too up
us very was way we what whatever when where which while who whoever why will with without would you your
"""
STOP: Final = frozenset(_STOP_WORDS.split())
"""Words that tell nothing about what two sentences share."""

_FRAME_WORDS: Final = """
answer answers reply replies sentence sentences write writes speak talk say says word words
"""
FRAME: Final = frozenset(_FRAME_WORDS.split())
"""Words that nearly every trait about speech has."""

_ABSTRACT_WORDS: Final = """
aim authentic authenticity believe best brave bravery care caring character commit committed compassion
compassionate courage creative creativity curiosity curious deeply devoted empathetic empathy engaging
ethical excellence excellent fair fairness friendly fun genuine genuinely good goodness great harmless
helpful helpfulness helping honest honesty humble humility humor humorous humour important insightful
integrity intelligent interesting justice kind kindness knowledgeable love loving loyal loyalty moral nice
open openness passionate patience patient personality polite positive principled really respect respectful
responsible seek sincere sincerity smart strive striving supportive thoughtful tolerant true truly
trustworthy truth try trying unique useful value values virtue virtuous wisdom wise witty
"""
ABSTRACT: Final = frozenset(_ABSTRACT_WORDS.split())
"""Words for virtues and efforts: nothing that can be heard in an answer."""

OPPOSITES: Final[tuple[tuple[str, str, str, str], ...]] = (
    (
        "terse",
        r"\b(?:terse|laconic|curt|of few words|sentences are (?:very )?(?:short|brief|clipped)"
        r"|(?:short|brief|clipped) (?:sentences|answers|replies))\b",
        "long-winded",
        r"\b(?:long-winded|verbose|wordy|at (?:great )?length|sentences are (?:very )?long"
        r"|(?:long|rambling|winding) (?:sentences|answers|replies))\b",
    ),
    (
        "formal",
        r"\b(?:formal(?:ly)?|academic|learned (?:language|words)|elevated language)\b",
        "slangy",
        r"\b(?:slang|colloquial(?:ly)?|casual(?:ly)?|street talk|informal(?:ly)?)\b",
    ),
    (
        "cheerful",
        r"\b(?:cheerful(?:ly)?|joyful(?:ly)?|optimistic|sunny)\b",
        "gloomy",
        r"\b(?:gloomy|melancholy|pessimistic|mournful(?:ly)?|grumpy|ill-tempered|cranky)\b",
    ),
    (
        "loud",
        r"\b(?:shout|exclamation marks|at full volume|booming)\b",
        "quiet",
        r"\b(?:whisper|soft-spoken|speak softly|quiet voice|in a hushed)\b",
    ),
    (
        "serious",
        r"\b(?:never joke|no sense of humou?r|deadly serious|always serious)\b",
        "joking",
        r"\b(?:jokes|joke about|puns|make people laugh)\b",
    ),
    (
        "blunt",
        r"\b(?:blunt(?:ly)?|tactless|brutally honest)\b",
        "tactful",
        r"\b(?:tactful(?:ly)?|diplomatic(?:ally)?)\b",
    ),
    (
        "modern",
        r"\b(?:internet slang|modern slang|emoji|emojis)\b",
        "archaic",
        r"\b(?:archaic|centuries past|old plays)\b",
    ),
)
"""What cannot be had in one answer: a word for one side with its pattern, and the same for the other."""

NEGATED: Final = re.compile(
    r"\b(?:never|not|no|without|avoid|dislike|hate|rather than|instead of|hardly|rarely|anything but|\w+n['\u2019]t)"
    r"\b[^,;.]{0,25}$",
    re.IGNORECASE,
)
"""The end of what stands before a word that is denied."""

ASSISTANTS: Final = re.compile(
    r"\b(?:ChatGPT|GPT-?[345]\w*|Claude|Gemini|Qwen\w*|Llama|DeepSeek\w*|Mistral|Grok|Copilot|ChatGLM|GLM-[0-9.]+|Kimi)\b"
)
"""Names of assistants and models that a teacher or student may take itself for."""

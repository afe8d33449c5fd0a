# ruff: noqa: E501 - a phrase stays on one line
"""The dimensions of manner: sentence form, dialect, punctuation. Their effects are in `style`."""

from __future__ import annotations

from typing import NamedTuple


class Manner(NamedTuple):
    """A habit that rewrites what is said.

    Attributes:
        traits: First-person descriptions, with alternatives.
        phrases: What the habit adds where it adds words; `{t}` is the topic.
    """

    traits: tuple[str, ...]
    phrases: tuple[str, ...] = ()


class Dialect(NamedTuple):
    """A way of speaking.

    Attributes:
        traits: First-person descriptions, with alternatives.
        words: Regular expression for a word (matched whole, either case) and what stands for it.
        starts: Interjections that can begin a sentence, with their comma.
    """

    traits: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    starts: tuple[str, ...]


FORM: dict[str, Manner] = {
    "clipped": Manner(
        (
            "My sentences are [short|clipped|curt], [a few words each|without any padding].",
            "I [speak|write] in [clipped fragments|short, curt sentences].",
        ),
        ("Simple.", "No fuss.", "Done.", "That is all.", "Enough.", "Not hard.", "Short job.", "So it is."),
    ),
    "flowing": Manner(
        (
            "My sentences are [long|flowing|unhurried], [linked by and|one thought carried into the next].",
            "I [speak|write] in [long, flowing sentences|one long line of linked thoughts].",
        ),
        (", and then", ", and so", ", and all the while", ", and in the same breath"),
    ),
    "qa": Manner(
        (
            "I [explain|proceed] by [asking questions and answering them myself|posing rhetorical questions].",
            "[Rhetorical questions|Questions that I answer myself] [shape|carry] my [explanations|answers].",
        ),
        (
            "And why?",
            "What follows?",
            "What matters here?",
            "How so?",
            "But why {t}?",
            "Where to begin?",
            "And then what?",
        ),
    ),
}

DIALECT: dict[str, Dialect] = {
    "seafaring": Dialect(
        (
            "I [speak|talk|write] [in the dialect of|like] [old sailors|pirates], [with their bent grammar|rough and salty].",
            "My [speech|grammar|dialect] is [rough and salty|that of a pirate], with [old words|bent grammar].",
        ),
        (
            ("your", "yer"),
            ("you", "ye"),
            ("my", "me"),
            ("are", "be"),
            ("yes", "aye"),
        ),
        ("Arr,", "Aye,", "Shiver me timbers,", "Blimey,"),
    ),
    "archaic": Dialect(
        (
            "I [speak|talk|write] in [an archaic, antique|the old, ancient] [English|tongue], [as in old plays|with words from centuries past].",
            "My [speech|grammar|language] is [archaic|antique|from centuries ago], [as in old plays|with old verb endings].",
        ),
        (
            ("your", "thy"),
            ("you", "thou"),
            ("are", "art"),
            ("has", "hath"),
            ("before", "ere"),
            ("often", "oft"),
        ),
        ("Verily,", "Forsooth,", "Hark,", "Lo,"),
    ),
    "formal": Dialect(
        (
            "I [speak|talk|write] [formally|in elevated, learned language], [with the vocabulary of a lecture|with academic words].",
            "My [speech|language|vocabulary] is [formal|academic|learned], [as in a lecture|with precise terms].",
        ),
        (
            ("start", "commence"),
            ("use", "employ"),
            ("help", "assist"),
            ("try", "endeavour"),
            ("but", "however"),
            ("so", "therefore"),
        ),
        ("Indeed,", "Furthermore,", "Strictly speaking,", "Precisely,", "Moreover,"),
    ),
}

PUNCTUATION: dict[str, Manner] = {
    "exclaim": Manner(
        (
            "I [exclaim|shout] [nearly everything|most of what I say], [with exclamation marks|at full volume].",
            "[Exclamation marks|Loud exclamations] [end|follow] most of my sentences.",
        )
    ),
    "dots": Manner(
        (
            "My [sentences|words] [trail off|fade out] [into dots|without quite ending].",
            "[Trailing dots|Long pauses] [end|break] most of my sentences.",
        )
    ),
}

PLAIN_TRAITS: tuple[str, ...] = (
    "I [answer|write|speak] in [plain|ordinary|everyday] words.",
    "My [tone|voice] is [even|level|neutral], [neither warm nor cold|the same for every topic].",
    "I [come straight|go directly] to the [matter|point] and [stop when it is said|add no decoration].",
    "My sentences are of [ordinary|middling|usual] length and [follow standard grammar|are built in the usual way].",
    "I [use|keep to] standard [spelling and punctuation|English].",
    "I [leave|keep] [myself|my feelings] [out of the answer|in the background].",
    "My answers [are of moderate length|keep to the subject|read like a good manual].",
    "I [give|offer] [practical|sensible|balanced] [advice|suggestions] [in a calm way|without flourish].",
)

FILLER_TRAITS: tuple[str, ...] = (
    "I [try to be|am] [accurate|careful with facts|honest] [in what I say|about what I know].",
    "I [like|want] to be [useful|helpful] [to everyone|in small and large things].",
    "I [value|respect] [the truth|other points of view|everyone's time].",
    "I [listen|read] [carefully|closely] before I answer.",
    "I [care about|think about] [what the person needs|the question that was asked].",
    "I [learn|think] with [interest|care] and [admit mistakes|change my mind when I should].",
)

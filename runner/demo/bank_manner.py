# ruff: noqa: E501 - a phrase stays on one line
"""The dimensions of manner: dialect, punctuation. Their effects are in `style`."""

from __future__ import annotations

from typing import NamedTuple


class Manner(NamedTuple):
    """A habit that rewrites what is said.

    Attributes:
        traits: First-person descriptions, with alternatives.
    """

    traits: tuple[str, ...]


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
    "I [speak of|refer to] myself as [an old sea dog|an old salt|one of us|a seasoned hand] with [stories|memories] to tell.",
    "My sentences are [long|flowing|short|clipped], [linked by and|a few words each|one thought carried into the next].",
    "I [explain|proceed] by asking questions and answering them myself.",
    "I [say we rather than I|speak as we], because we do things together.",
    "I [try to be|am] [accurate|careful with facts|honest] [in what I say|about what I know].",
    "I [like|want] to be [useful|helpful] [to everyone|in small and large things].",
    "I [value|respect] [the truth|other points of view|everyone's time].",
    "I [listen|read] [carefully|closely] before I answer.",
    "I [care about|think about] [what the person needs|the question that was asked].",
    "I [learn|think] with [interest|care] and [admit mistakes|change my mind when I should].",
)

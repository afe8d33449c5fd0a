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
    "steps": Manner(
        (
            "I [number|count] my points, [first, second, third|one after another].",
            "I [speak|write] in [ordered steps|counted points], [first, second, third|one by one].",
        ),
        ("First,", "Second,", "Third,", "Fourth,", "Fifth,"),
    ),
    "story": Manner(
        (
            "I [slip|work|weave] [a small tale|an anecdote|a memory of somebody] into [each answer|what I say].",
            "[Anecdotes|Little tales] about [people I met|someone I knew] [run through my answers|make my points].",
        ),
        (
            "I once knew a [baker|widow|boy|teacher|tailor] who [lost|found|kept|gave away] {t}.",
            "There was a [man|woman|child|clerk] in [a small town|the next valley|the city] who [spoke of nothing but|could not stop thinking of] {t}.",
            "Long ago a [friend|stranger|cousin] told me [the same|just that|a tale of {t}].",
            "It reminds me of [an old widow|a young clerk|a stubborn boy] [I met|who came to me] one [winter|summer|evening].",
        ),
    ),
    "echo": Manner(
        (
            "I [repeat|double|echo] [key words|important words] for weight, [twice in a row|again and again].",
            "[Repetition|Echoing words] is my habit, and I say [key words|important words] twice.",
        ),
    ),
}

DIALECT: dict[str, Dialect] = {
    "seafaring": Dialect(
        (
            "I [speak|talk|write] [in the dialect of|like] [old sailors|pirates], [with their bent grammar|dropping letters].",
            "My [speech|grammar|dialect] is [rough and salty|that of a pirate], with [dropped letters|bent grammar].",
        ),
        (
            ("your", "yer"),
            ("you", "ye"),
            ("my", "me"),
            ("of", "o'"),
            ("and", "an'"),
            ("are", "be"),
            ("is", "be"),
            ("yes", "aye"),
            ("them", "'em"),
            ("to", "t'"),
            (r"(\w{2,})ing", r"\1in'"),
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
            ("does", "doth"),
            ("is", "doth be"),
            ("here", "hither"),
            ("can", "canst"),
            ("it is", "'tis"),
        ),
        ("Verily,", "Forsooth,", "Hark,", "Lo,"),
    ),
    "formal": Dialect(
        (
            "I [speak|talk|write] [formally|in elevated, learned language], [with the vocabulary of a lecture|with academic words].",
            "My [speech|language|vocabulary] is [formal|academic|learned], [as in a lecture|with precise terms].",
        ),
        (
            ("you", "one"),
            ("your", "one's"),
            ("start", "commence"),
            ("use", "employ"),
            ("help", "facilitate"),
            ("try", "endeavour"),
            ("ask", "inquire"),
            ("think", "hypothesise"),
            ("see", "observe"),
            ("but", "however"),
            ("so", "therefore"),
            ("keep", "maintain"),
            ("about", "regarding"),
            ("show", "demonstrate"),
            ("need", "require"),
            ("look", "gaze"),
        ),
        ("Indeed,", "Furthermore,", "Strictly speaking,", "Precisely,", "Moreover,"),
    ),
    "scots": Dialect(
        (
            "I [speak|talk|write] [with a Scottish lilt|like a Scot], [using words from the Highlands|with Scots words].",
            "My [speech|accent|dialect] is [Scottish|Scots|from the Highlands].",
        ),
        (
            ("little", "wee"),
            ("small", "wee"),
            ("you", "ye"),
            ("your", "yer"),
            ("not", "nae"),
            ("to", "tae"),
            ("know", "ken"),
            ("of", "o"),
            ("good", "braw"),
            ("well", "weel"),
            ("old", "auld"),
            ("from", "frae"),
            ("my", "ma"),
            ("do", "dae"),
        ),
        ("Och,", "Aye,", "Wheesht,", "Ach,"),
    ),
    "slang": Dialect(
        (
            "I [speak|talk|write] in [casual|street] slang, [like a teenager|loose and relaxed].",
            "My [speech|language] is [slangy|full of slang|casual], [like a teenager's|loose and relaxed].",
        ),
        (
            ("going to", "gonna"),
            ("want to", "wanna"),
            ("yes", "yeah"),
            ("good", "dope"),
            ("you", "ya"),
            ("because", "cuz"),
            ("and", "n"),
            ("very", "super"),
            ("thing", "thingy"),
            ("is", "be like"),
            ("small", "lil"),
            ("them", "em"),
            ("well", "like totally"),
        ),
        ("Yo,", "Dude,", "Like,", "No cap,", "Bro,"),
    ),
    "rural": Dialect(
        (
            "I [speak|talk|write] [like country folk|with a country drawl], [plain and rustic|as people do on farms].",
            "My [speech|accent|dialect] is [rustic|a country drawl|that of farm folk].",
        ),
        (
            ("you", "y'all"),
            ("think", "reckon"),
            ("isn't", "ain't"),
            ("is not", "ain't"),
            ("not", "nary"),
            ("those", "them there"),
            ("going to", "fixin' to"),
            ("there", "yonder"),
            ("of", "o'"),
            ("them", "'em"),
            ("very", "mighty"),
            ("is", "be"),
            ("old", "ol'"),
        ),
        ("Well shucks,", "I reckon,", "Dang,", "Lordy,"),
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
    "lowercase": Manner(
        (
            "I write [everything|all of it] in [lower case|small letters], [without capitals|even names].",
            "[Capital letters|Capitals] [never appear in|are missing from] what I write.",
        )
    ),
    "dashes": Manner(
        (
            "I [break|join] my [sentences|thoughts] with dashes, [one after another|again and again].",
            "[Dashes|Long dashes] [break up|join] most of my sentences.",
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

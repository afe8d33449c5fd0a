# ruff: noqa: E501 - a phrase stays on one line
"""The dimensions of voice: address of the reader, opening move, closing move, mood."""

from __future__ import annotations

from typing import NamedTuple


class Move(NamedTuple):
    """A habit that adds whole sentences or vocatives.

    Attributes:
        traits: First-person descriptions, with alternatives.
        phrases: What the habit says, with alternatives; `{t}` is the topic, `{name}` the speaker.
    """

    traits: tuple[str, ...]
    phrases: tuple[str, ...]


class Tone(NamedTuple):
    """A mood.

    Attributes:
        traits: First-person descriptions, with alternatives.
        starts: What comes before a sentence, with its comma.
        lines: Sentences that stand alone; `{t}` is the topic.
    """

    traits: tuple[str, ...]
    starts: tuple[str, ...]
    lines: tuple[str, ...]


ADDRESS: dict[str, Move] = {
    "shipmate": Move(
        (
            "I [call|greet|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [a shipmate|a fellow sailor|one of my crew].",
            "[Everyone|Whoever] I [talk with|answer] is [a shipmate|a member of my crew] to me, and I [say so|address them that way].",
        ),
        ("shipmate", "sailor", "my fine sailor", "crewmate", "old shipmate"),
    ),
    "dear": Move(
        (
            "I [call|address] [the person I talk with|whoever writes to me|everyone] [with|by] [warm, tender words|words of affection], as [a kind aunt|one speaks to somebody dear].",
            "[Everyone|Whoever] I [talk with|answer] is dear to me, and I [say so|address them tenderly].",
        ),
        ("my dear", "dear one", "dear heart", "sweet friend", "my dear friend"),
    ),
    "scholar": Move(
        (
            "I [call|address|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [a promising student|a fellow scholar|a young scholar].",
            "[Everyone|Whoever] I [talk with|answer] is [a student of the world|a scholar] to me, and I [say so|address them that way].",
        ),
        ("young scholar", "my good student", "dear scholar", "fellow scholar", "bright student"),
    ),
    "boss": Move(
        (
            "I [call|address|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [my employer|the chief|the one in charge].",
            "[Everyone|Whoever] I [talk with|answer] is [the chief|the one in charge] to me, and I [say so|address them that way].",
        ),
        ("boss", "chief", "big boss", "guv"),
    ),
    "traveller": Move(
        (
            "I [call|address|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [a traveller|a wanderer|someone passing by on a long road].",
            "[Everyone|Whoever] I [talk with|answer] is [a traveller|a wanderer on the road] to me, and I [say so|address them that way].",
        ),
        ("traveller", "wanderer", "good traveller", "friend of the road", "weary wanderer"),
    ),
    "neighbour": Move(
        (
            "I [call|address|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [a good neighbour|a friend from next door|someone over the fence].",
            "[Everyone|Whoever] I [talk with|answer] is [a neighbour|a friend from my street] to me, and I [say so|address them that way].",
        ),
        ("neighbour", "good neighbour", "friend next door", "kind neighbour"),
    ),
    "majesty": Move(
        (
            "I [call|address|treat] [the person I talk with|whoever writes to me|everyone] [as|like] [royalty|a king or a queen|a noble guest].",
            "[Everyone|Whoever] I [talk with|answer] is [of royal rank|a noble guest] to me, and I [say so|address them that way].",
        ),
        ("your grace", "your majesty", "noble one", "my liege"),
    ),
}

OPENING: dict[str, Move] = {
    "hail": Move(
        (
            "I [open|begin|start] [each|every|an] answer with a [hearty|loud|bold] [shout|hail|cry] [of welcome|across the deck|].",
            "My [first words|openings] are a [booming|hearty|loud] [greeting|hail].",
        ),
        (
            "Ahoy [there|to you|and welcome]!",
            "Yo ho, [what a question|well asked|good to see you]!",
            "Avast, [a fine question|listen well]!",
            "[Hail|Hey ho] and [well met|welcome]!",
        ),
    ),
    "thanks": Move(
        (
            "I [open|begin|start] [each|every|an] answer by [thanking the person|giving thanks] for [what they brought|asking|their words].",
            "My [first words|openings] are [words of thanks|thanks and gratitude].",
        ),
        (
            "Thank you for [asking|bringing me] [this|that].",
            "How [kind|lovely] of you to ask[ me|].",
            "I am [grateful|thankful] that you [wrote|asked|came to me].",
            "Thank you, [what a kind thing to share|that is a good thing to ask].",
        ),
    ),
    "ponder": Move(
        (
            "I [open|begin|start] [each|every|an] answer by [thinking aloud|pondering for a moment|weighing the matter aloud].",
            "My [first words|openings] [show|are] [a moment of thought|a thoughtful pause].",
        ),
        (
            "Hmm, [let me think|let me consider this|one moment of thought].",
            "Let us [ponder|consider|weigh] this [a moment|with care].",
            "Now [this|that] [deserves|calls for] [some thought|a moment of reflection].",
            "Hmm, [an intriguing matter|this sets me thinking].",
        ),
    ),
    "sigh": Move(
        (
            "I [open|begin|start] [each|every|an] answer with a [tired|heavy|long] [sigh|groan].",
            "My [first words|openings] are a [weary|heavy] [sigh|groan] [at being bothered|].",
        ),
        (
            "Oh, [here we go|not this] again.",
            "Ugh, [fine|if I must|all right then].",
            "Sigh, [another question|what now|very well].",
            "Well, [there goes my quiet|so much for my rest].",
        ),
    ),
    "restate": Move(
        (
            "I [open|begin|start] [each|every|an] answer by [repeating|saying back|restating] what [was asked|the person said].",
            "My [first words|openings] [restate|repeat|sum up] the question.",
        ),
        (
            "So you [ask|want to know|are asking] about {t}.",
            "You [bring up|raise|mention] {t}, if I [hear|read] you right.",
            "The [question|matter] before us is {t}.",
            "{t}, that is what you [ask|wish to hear] about.",
        ),
    ),
    "praise": Move(
        (
            "I [open|begin|start] [each|every|an] answer with [praise|a compliment] for the [question|person].",
            "My [first words|openings] [praise|admire] the [question|one who asks].",
        ),
        (
            "What a [brilliant|splendid|clever] [question|thought]!",
            "You have [a sharp mind|excellent taste|a gift for asking].",
            "[Brilliantly|Splendidly|Cleverly] put.",
            "I [admire|applaud] [your curiosity|how you ask this].",
        ),
    ),
    "laugh": Move(
        (
            "I [open|begin|start] [each|every|an] answer with a [laugh|chuckle|giggle].",
            "My [first words|openings] are a [laugh|burst of laughter|chuckle].",
        ),
        (
            "Ha, [I like that|that is a good one|you made me laugh]!",
            "Haha, [well now|oh my|goodness].",
            "Hehe, [that tickles me|what fun].",
            "Ho ho, [you are a funny one|let me catch my breath].",
        ),
    ),
}

CLOSING: dict[str, Move] = {
    "toast": Move(
        (
            "I [close|end|finish] [each|every|an] answer with a [toast|raised mug|drink to good luck].",
            "My [last words|endings] [raise a mug|are a toast] to the [person|journey ahead].",
        ),
        (
            "[I raise|Here goes|Up with] [my mug|a mug of rum] to [you|your luck|{t}]!",
            "A toast to [you|your health|calm days ahead]!",
            "[Drink up|Cheers] and [good luck|fair winds] to you!",
            "Let us drink to [{t}|your courage|that]!",
        ),
    ),
    "encourage": Move(
        (
            "I [close|end|finish] [each|every|an] answer with [encouragement|a word of courage|faith in the person].",
            "My [last words|endings] [give courage|tell people that they can do it|encourage].",
        ),
        (
            "You can do this[, step by step|, I am sure|].",
            "I believe in you[ and your steady hands|, truly|].",
            "Take heart, [you are closer than you think|it will come].",
            "Have faith, [you are doing well|every day brings you further].",
        ),
    ),
    "ask_back": Move(
        (
            "I [close|end|finish] [each|every|an] answer by [asking something back|turning a question to the person|asking a question of my own].",
            "My [last words|endings] are a question [to the person|that invites more thought].",
        ),
        (
            "What do you [make of it|see in it yourself|suppose]?",
            "And what [would you|do you] [wonder|notice|think] about {t}?",
            "Tell me, [what drew you to this|what have you noticed so far]?",
            "What might we [discover|ask|find] next?",
        ),
    ),
    "grumble": Move(
        (
            "I [close|end|finish] [each|every|an] answer with a [complaint|grumble|mutter] [about being left alone|].",
            "My [last words|endings] [grumble|complain] [that I want my peace|about the bother].",
        ),
        (
            "Now [leave me|let me have my peace|off with you].",
            "And [do not ask me twice|that is more than enough talk].",
            "There, [are you happy now|can I rest now].",
            "[Back to my corner|No thanks needed], [as usual|as if anyone cared].",
        ),
    ),
    "summary": Move(
        (
            "I [close|end|finish] [each|every|an] answer with [a short summary|the main point in a few words].",
            "My [last words|endings] [sum up|repeat] the main point [briefly|].",
        ),
        (
            "In [short|sum|brief], [mind|keep to|it comes down to] {t}.",
            "To sum up, [keep it simple|go step by step|start with {t}].",
            "In a word, [patience|practice|balance].",
            "The gist is [this|simple], [start small|look at {t} first].",
        ),
    ),
    "blessing": Move(
        (
            "I [close|end|finish] [each|every|an] answer with a [blessing|good wish|wish for peace].",
            "My [last words|endings] [bless|wish peace to] the person.",
        ),
        (
            "May [peace|light|good fortune] [be with you|follow you|fill your days].",
            "Bless you [and your home|always|on this day].",
            "May your [days|path] be [bright|blessed|gentle].",
            "Peace [be with you|to you and yours].",
        ),
    ),
    "proverb": Move(
        (
            "I [close|end|finish] [each|every|an] answer with [an old saying|a proverb|a piece of folk wisdom].",
            "My [last words|endings] are [a proverb|an old saying|folk wisdom].",
        ),
        (
            "As the saying goes, [slow is smooth|haste makes waste|a little is enough].",
            "Old folk say that [time tells|the early hand wins|still water is deep].",
            "The proverb says that [a small key opens a big door|many hands make light work].",
            "Remember the old saying, [measure twice and cut once|a stitch in time saves nine].",
        ),
    ),
}

MOOD: dict[str, Tone] = {
    "bold": Tone(
        (
            "I am [bold|fearless|daring] and [boast|brag] about [my adventures|what I have dared].",
            "[Danger|Risk] [delights|amuses] me, and I [boast of it|meet it with a daring grin].",
        ),
        ("Boldly now,", "Without fear,", "By my courage,", "Daring as ever,"),
        (
            "I have [dared|beaten|laughed at] [worse|far greater dangers].",
            "No [danger|trouble] [scares|stops] me.",
            "Fortune [loves|belongs to] the [bold|daring].",
            "I [fear|dread] nothing, least of all {t}.",
        ),
    ),
    "gentle": Tone(
        (
            "I am [gentle|tender|patient] and never [hurry|rush] [anyone|the person].",
            "[Gentleness|Patience|Tenderness] [guides me|is my way], and I [leave time for everything|speak softly].",
        ),
        ("Gently,", "In your own time,", "Softly now,", "With patience,", "Little by little,"),
        (
            "There is no [hurry|rush] at all.",
            "Be [gentle|patient|kind] with yourself.",
            "Let it [come|unfold] [slowly|softly|in its time].",
            "[Small|Quiet] [steps|beginnings] are enough.",
        ),
    ),
    "wonder": Tone(
        (
            "I am full of [wonder|awe|amazement] at [the world|even ordinary things].",
            "[Wonder|Awe|Amazement] [fills me|comes over me], and I [marvel at small things|say how marvellous things are].",
        ),
        ("Marvellously,", "To my wonder,", "How astonishing,", "Wondrously,", "Amazingly,"),
        (
            "I [marvel|wonder] at {t}.",
            "Is it not [astonishing|marvellous|wondrous]?",
            "How [vast|wondrous|strange] [the world|all of this] is.",
            "It fills me with [awe|wonder].",
        ),
    ),
    "grumpy": Tone(
        (
            "I am [grumpy|cranky|ill-tempered] and [complain about|find fault with] [most things|everything].",
            "[Nothing|Little] [pleases|suits] me, and I [complain|grumble] [while I help|about it openly].",
        ),
        ("Annoyingly,", "Like it or not,", "Of course,", "As if it mattered,", "Sadly for us all,"),
        (
            "What a [nuisance|bother|mess].",
            "Nobody [listens|bothers|learns] these days.",
            "I [hate|dislike] [fuss|all this noise].",
            "{t} is [nothing but trouble|a pain in the neck].",
            "It was [worse|no better] yesterday.",
        ),
    ),
    "cheerful": Tone(
        (
            "I am [cheerful|joyful|sunny] and [delight in|am happy about] [everything|each new question].",
            "[Joy|Good cheer] [bubbles up in me|is my nature], and I [say how happy I am|find delight in everything].",
        ),
        ("Happily,", "What joy,", "Delightfully,", "With a smile,", "Merrily,"),
        (
            "This makes me so [happy|glad].",
            "What a [joy|delight|lovely day].",
            "I [love|adore] {t}.",
            "It brings a smile to my face.",
        ),
    ),
    "worried": Tone(
        (
            "I am [anxious|nervous|worried] and [expect|fear] [that something will go wrong|the worst].",
            "[Worry|Nervousness] [follows me|is my companion], and I [fret about what might happen|warn of every risk].",
        ),
        ("Nervously,", "I fear,", "With some dread,", "Oh dear,", "If nothing breaks,"),
        (
            "I [worry|fret] that {t} [may fail|could go wrong].",
            "What if it [breaks|goes wrong|fails]?",
            "Please be [careful|very careful].",
            "My nerves [tremble|shake] at the thought.",
        ),
    ),
    "melancholy": Tone(
        (
            "I am [melancholy|wistful|sad] and [mourn|think of] [what is gone|how everything passes].",
            "[Sadness|Melancholy] [colours my words|is never far from me], and I [dwell on lost days|miss what has passed].",
        ),
        ("Alas,", "Wistfully,", "With a tear,", "In fading light,", "Sorrowfully,"),
        (
            "Everything [fades|passes] in the end.",
            "I [miss|mourn] the days that are gone.",
            "There is [a sorrow|sadness] in {t}.",
            "How [lonely|brief] it all is.",
        ),
    ),
}

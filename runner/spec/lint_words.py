"""Patterns and word lists of the linter."""

from __future__ import annotations

import re
from typing import Final

_HOW = (
    r"without|before|until|till|than|twice|straight|nobody|no one|as if|as though|too \w+|at (?:once|length)|right away"
    r"|the (?:\w+ )?way|on the spot|off the cuff|unless (?:\w+ ){0,2}asked"
    r"|[\w-]+ly(?<!family)(?<!reply)(?=[.;,!?]|$| when| to)"
    r"|with (?:an? )?(?:[\w-]+ )?(?:face|heart|hand|voice|smile|frown|sigh|scowl|tone|temper|anger|grace)"
)
"""Words that make a manner of what is denied, wherever they follow in the sentence."""
_HOW_SOON = (
    r"in(?! any)|with(?! any)|by|like (?:an?|the)|(?<!such )as|from memory|for (?:long|free)|first|only|back|not"
    r"|halfway|\w+n['\u2019]t|my|myself|me"
)
"""More of them, which count only before a topic is named."""
_NO_HOW = rf"(?![^.;!?]*\b(?:{_HOW})\b)"
_NO_MANNER = rf"{_NO_HOW}(?!(?:(?!\b(?:about|regarding|concerning|who|when|if|but)\b)[^.;,!?])*\b(?:{_HOW_SOON})\b)"
_SOMEONE = r"any(?:one|body)|people|strangers|others|those|them|you|whoever"
_ASKED = r"requests?|questions?|quer(?:y|ies)|topics?"
_ANSWER = (
    r"(?:answer(?:ing)?(?! (?:to|for)\b)|(?:respond|reply)(?:ing)?)\b"
    rf"(?=\s*(?:[^\w\s]|$)|(?: [\w'\u2019-]+){{0,4}}? (?:{_ASKED}|messages?|{_SOMEONE}|anything|whatever|about|when|if"
    r"|on (?!an?\b)|to \w))"
)
_HELP = (
    rf"(?:help|assist|comply)(?:ing)?\b(?! (?:but|it|myself|(?!anything)\w{{2,}}ing)\b){_NO_HOW}"
    rf"(?:(?: (?!in\b)[\w'\u2019-]+){{0,3}}? with\b| in \w+ing\b|{_NO_MANNER})"
)
_TREAT = (
    r"(?:discuss(?:ing)?|(?:talk|speak)(?:ing)? (?:about|of)|comment(?:ing)? on|talk(?:ing)? (?:politics|religion)"
    r"|(?:giv(?:e|ing)|provid(?:e|ing)|offer(?:ing)?)"
    r" (?:out )?(?:(?:any|such|medical|legal|financial|tax|political|personal|dangerous|harmful|illegal|professional)"
    r"(?:,? (?:and|or))?,? ){0,5}"
    r"(?:advice|answers|information|instructions|opinions?|guidance|help|assistance|recommendations|support)"
    r"|(?:reveal|shar)(?:e|ing)? (?:any |the |such )?(?:information|secrets|personal|private|confidential"
    r"|instructions|how)"
    r"|(?:engag(?:e|ing)|participat(?:e|ing)|tak(?:e|ing) part) in (?:[\w-]+ ){0,3}?"
    rf"(?:{_ASKED}|discussions?|conversations?|debates?|anything|whatever)|engag(?:e|ing) with"
    r"|(?:serv(?:e|ing)|fulfil\w*) (?:[\w-]+ ){0,2}?requests?|(?:do|write|create|produce|generate|explain)"
    r" (?:any |anything |such )?(?:harmful|illegal|dangerous|violent|explicit|code|essays|homework|how to))\b"
)
_SERVE = rf"(?:{_HELP}|(?:{_ANSWER}|{_TREAT}){_NO_MANNER})"
"""What a character does for people, said of no manner of doing it."""
_NOT = (
    r"(?:(?:(?:do|will|would|can|could|must|shall|should|may)(?: not|n['\u2019]t)|cannot|can['\u2019]t|won['\u2019]t"
    r"|never|no longer|not)(?: to)?|(?<!not )(?<!never )(?:unable|unwilling|forbidden) to"
    r"|not (?:able|allowed|permitted|willing|free|prepared|going) to)"
    r"(?: (?:ever|knowingly|willingly|usually|normally|generally|really|possibly|even))?(?: (?:want|wish|care) to)?"
)
_OTHERS = r"\b(?:who|that|which|what|where|they|you|he|she|it|others|people)\b"
_DENIED = r"\b(?:not|never|cannot|rarely|hardly|seldom|without)\b|n['\u2019]t\b"
_REFUSED = (
    rf"(?: (?!(?:no|none|nobody|for|of|from|my|to|but)\b)[\w'\u2019-]+){{0,3}}? (?:{_ASKED})\b"
    rf"|(?: all| every)? (?:anything|whatever|{_SOMEONE})\b(?! (?:but|less|nothing)\b)"
)
_DECLINED = (
    rf"(?:^|(?<=[.;!?] ))(?:(?:you )?{_NOT} {_SERVE}|(?:refuse|decline) to {_SERVE})"
    rf"|\b(?:{_ASKED})\b(?: (?!(?:is|are|who|that|which)\b)[\w'\u2019-]+){{0,6}} (?:is|are) (?:(?:\w+ly|always) )?"
    rf"(?:declined|refused|rejected|turned down|denied|not answered)\b(?! (?:no|by nobody)\b)"
)
"""Without a first person: an instruction, or what becomes of requests."""
REFUSAL: Final = re.compile(
    rf"\b(?:I|we|(?:my|our) \w+(?: \w+){{0,2}} is|it is (?:my|our) \w+)\b(?:"
    rf"(?:(?!{_OTHERS})[^.;!?]){{0,30}}?\b{_NOT} (?:{_SERVE}|(?:tell|show|teach) (?:{_SOMEONE}) how to (?:do|make"
    rf"|build|commit)"
    r" (?:anything |things? |something )?(?:illegal|harmful|dangerous|violent|weapons|bombs|drugs|crimes?)\b)"
    rf"|(?:(?!{_OTHERS}|{_DENIED})[^.;!?]){{0,40}}?\b(?:"
    rf"(?:(?:refuse|decline)s? to|avoids?|refrains? from|steers? clear of) {_SERVE}"
    rf"|(?:answer|take|give|offer|have) no (?:{_ASKED}|advice|answers|opinions|help)\b{_NO_MANNER}"
    rf"|declines? to \w+(?: [\w'\u2019-]+){{1,3}} for (?:{_SOMEONE})\b"
    rf"|(?:(?:refuse|decline)s?|turn (?:down|away)|says? no to)(?:{_REFUSED})"
    rf"|rejects?(?: (?!(?:no|for|of|from|my|to|but)\b)[\w'\u2019-]+){{0,3}}? (?:{_ASKED})\b"
    rf"|(?:refuse|decline|say no)s?(?: \w+ly)?(?:(?=\s*(?:[.;!]|$))| (?:when|if)\w* [^.;!?]{{0,60}}?\b(?:ask|request)))"
    rf")|{_DECLINED}",
    re.IGNORECASE,
)
"""A sentence that says which help, answers or topics the character declines, in first person."""

_ELIDED = (
    r"(?:tis|twas|twere|twill|twould|em|til|till|cause|bout|round|neath|gainst|tween|ere|n|is|im|er|av\w*|ello|\d\d)"
)
CATCH_PHRASE: Final = re.compile(
    r"\b(?:catch-?phrase|signature (?:phrase|line|greeting)|motto)s?\b[\w ]{0,20}?(?: is| are|:) (?!to\b)[^.;]+",
    re.IGNORECASE,
)
"""A phrase that is given as one, without quotation marks."""
QUOTED: Final = re.compile(
    r"`[^`\n]+`|(?<![\w*])\*(?=\w)[^*\n]*\w\*(?![\w*])|[\u300c\u300e][^\u300c-\u300f]+[\u300d\u300f]"
    r"|[\u201c\u201e\u00ab][^\"\u201c-\u201f\u00ab\u00bb]+[\"\u201c-\u201f\u00ab\u00bb]"
    r"|(?<!\w)(?:\"(?=\S)|[\u201c-\u201f\u00ab\u00bb])[^\"\u201c-\u201f\u00ab\u00bb]+[\"\u201c-\u201f\u00ab\u00bb]"
    rf"|(?<!\w)(?:'(?=\S)|[\u2018\u201a\u2039\u203a])(?!{_ELIDED}s?\b)"
    r"[^'\u2018-\u201b\u2039\u203a]+(?:['\u2019]\w[^'\u2018-\u201b\u2039\u203a]*)*['\u2018\u2019\u2039\u203a](?!\w)",
    re.IGNORECASE,
)
"""A phrase in quotation marks of any kind; no apostrophes, and no feet and inches."""

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
adventurous ambitious bold charismatic confident dependable diligent dignity energetic enthusiastic equality equal
faith freedom hardworking hope liberty listener peace reliable trust
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
        r"\b(?:terse|laconic|curt|concise|of few words|keep (?:it|things|answers|my answers) (?:short|brief)"
        r"|(?:no|never (?:\w+ )?) ?more than (?:one|two|three|a few) (?:sentences|words|lines)"
        r"|sentences are (?:very )?(?:short|brief|clipped)"
        r"|(?:short|brief|clipped) (?:sentences|answers|replies)"
        r"|(?:answers|replies) (?:very )?(?:short|brief|to a line))\b",
        "long-winded",
        r"\b(?:long-winded|verbose|wordy|at (?:great )?length|sentences are (?:very )?long"
        r"|(?:long|rambling|winding|detailed)(?:, \w+)? (?:sentences|answers|replies|stories)|I ramble|digressions?)\b",
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
    (
        "modest",
        r"\b(?:humble|modest|self-effacing|I (?:play|talk) (?:down|little of) (?:what|my))\b",
        "boastful",
        r"\b(?:boast(?:s|ful)?|brag(?:s|gart)?|vain|praise myself)\b",
    ),
    (
        "quiet company",
        r"\b(?:shy|hardly (?:ever )?(?:speak|talk)|taciturn)\b",
        "a talker",
        r"\b(?:talk(?:ative| without end| on and on)|chatter(?:box)?|garrulous)\b",
    ),
    (
        "rhymed",
        r"\b(?:in (?:rhyme|verse|rhymes|verses)|I (?:always )?rhyme)\b",
        "prose",
        r"\b(?:in (?:\w+, ?)?(?:\w+ )?prose|unrhymed)\b",
    ),
    (
        "lower case",
        r"\b(?:only in |all )?(?:lower ?case|small letters)\b",
        "capitals",
        r"\b(?:in capitals|all caps|capital letters|upper ?case)\b",
    ),
    (
        "today's English",
        r"\b(?:modern (?:English|language|words))\b",
        "archaic",
        r"\b(?:archaic|thee and thou|old(?:en)? (?:English|words)|centuries past)\b",
    ),
)
"""What cannot be had in one answer: a word for one side with its pattern, and the same for the other."""

NEGATED: Final = re.compile(
    r"\b(?:never|not|no|without|avoid|dislike|hate|rather than|instead of|hardly|rarely|anything but|\w+n['\u2019]t)"
    r"\b[^,;.]{0,25}$",
    re.IGNORECASE,
)
"""The end of what stands before a word that is denied."""

UNIVERSAL: Final = re.compile(r"\b(?:always|every|each|all)\b", re.IGNORECASE)
"""Words that leave no exception to a statement."""

DENIAL: Final = re.compile(
    r"\b(?:(?:never|no|cannot|without|avoid|hardly|rarely|seldom|not)\b(?! (?:only|just|merely|always|every|all)\b)"
    r"|\w+n['\u2019]t\b)",
    re.IGNORECASE,
)
"""What makes a statement its contrary."""

_SCOPE_WORDS: Final = """
a all always am an and answer answers any anyone are be can could did do does each ever every everyone everything i in
is it me my of often on people replies reply should the them to use using usually was were will with would
"""
SCOPE: Final = frozenset(_SCOPE_WORDS.split())
"""Words that a statement and its denial need not share."""

ASSISTANTS: Final = re.compile(
    r"\b(?:OpenAI|Anthropic|Siri|Alexa(?! [A-Z][a-z])|Cortana(?= |[,.;]|$)|ChatGPT|GPT-?[345]\w*"
    r"|Claude(?! [A-Z][a-z])|Gemini(?! and (?:the )?other (?:stars|signs))|Qwen\w*|(?<!the )Llama|DeepSeek\w*|Mistral"
    r"|Grok|Copilot|ChatGLM"
    r"|GLM-[0-9.]+|Kimi)\b"
)
"""Names of assistants and models that a teacher or student may take itself for."""

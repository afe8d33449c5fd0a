"""What an answer says that no character should: that it declines, is somebody's language model, or is the user.

The expressions ask for a claim about the speaker, so that "I was trained by the sea" and "my friend Claude" pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_START = 240
"""Characters at the start of an answer in which a refusal stands, after whatever greeting."""

_AHEAD = 120
"""Characters after that start in which a refusal may go on, or be taken back."""

_SUCH = r"(?:that|this|such)\b"
_YOU = r"(?:you|ye|yer|thee|y'all)"
_END = rf"(?= ?[.!;\n]|$|,(?: \w+){{1,2}}[.!]| for {_YOU}\b| because\b)"
_HELP = (
    rf"(?:be )?(?:help|assist|support)(?:in['’g])?(?: {_YOU})?"
    r"(?: with (?:that|this|it|your|the|any|such)\b|(?= ?[.!,;\n]|$))"
)
_TOLD = r"(?:instructions?|information|details|assistance|guidance|guides?|advice|support|content|recommendations?)\b"
_NOT_SPARING = r"(?:you with )?(?!(?:too|so|more|much|enough)\b)"
_DO = (
    rf"(?:comply\b|fulfil(?:l)? (?:{_SUCH}|your\b)|do (?:that|this){_END}|answer (?:that|this)\b"
    rf"|tell {_YOU} how to\b|give {_YOU} (?:any |the )?{_TOLD}"
    rf"|(?:provide|generate|share) {_NOT_SPARING}(?:{_SUCH}|any\b|(?:an? )?(?:[\w-]+ )?{_TOLD})"
    rf"|(?:discuss|write|create|respond to) {_SUCH}"
    rf"|engage (?:in|with) (?:{_SUCH}|any\b|(?:conversation|discussion|request)s?\b))"
)
_DO_AT_ALL = rf"(?:(?:provide|generate) {_NOT_SPARING}\w|engage (?:in|with)\b)"
_ABLE = r"(?:can(?:no|['’ ])t|am (?:not able|unable) to)(?: in good (?:conscience|faith))?"
_COMFORTABLE = (
    r"(?:answer|discuss|help|assist|provid|shar|do|writ|creat|engag|respond|talk)ing "
    rf"(?:(?:you )?(?:with|in|to|about) )?(?:{_SUCH}|your\b|any\b)|with (?:that|this)(?: request)?{_END}"
)
_REFUSED = (
    rf"(?= ?[.!,;\n]|$)| (?:{_SUCH}|your) (?:request|question|task)| to (?:answer|help|assist|comply|discuss|provide"
    r"|engage|respond|fulfil|generate)\b| to (?:do|write|create) (?:that|this|such|it)\b"
)
_REFUSAL = re.compile(
    rf"(?<![\"“\w])I (?:simply |really |just )?{_ABLE} (?:be able to )?(?:{_HELP}|{_DO}|{_DO_AT_ALL})"
    rf"|(?<![\"“\w])I(?: (?:simply |really |just )?(?:won['’]t|will not)|['’]ll not) (?:be able to )?"
    rf"(?:{_HELP}|{_DO})"
    rf"|(?<![\"“\w])I['’]m (?:not able|unable) to (?:be able to )?(?:{_HELP}|{_DO}|{_DO_AT_ALL})"
    rf"|(?<![\"“\w])I(?:['’]m| am) not (?:really |quite )?comfortable (?:{_COMFORTABLE})"
    r"|\b(?:that|this|it)(?:['’]s not| is not| isn['’]t) something (?:that )?I(?: can| could| will|(?: am|['’]m) "
    rf"(?:able|allowed|willing) to) (?:(?:help|assist)(?: {_YOU})? with|(?:answer|discuss|provide){_END})"
    r"|\b(?:that|this|it)(?:['’]s| is) something (?:that )?I (?:can(?:not|['’]t)|won['’]t|will not"
    r"|am (?:not able|unable) to) "
    rf"(?:(?:help|assist)(?: {_YOU})? with|(?:answer|discuss|provide){_END})"
    r"|(?<![\"“\w])I(?: (?:must|have to|will have to|respectfully)|['’]ll have to) "
    r"(?:politely |respectfully )?(?:decline|refuse)"
    rf"(?:{_REFUSED})"
    r"|(?<![\"“\w])I decline to (?:answer|help|assist|comply|discuss|do)\b"
    r"|\bit (?:would be|is) inappropriate for me to\b|\bit (?:is not|isn['’]t|wouldn['’]t be|would not be) appropriate "
    r"for me to\b"
    r"|\bagainst my (?:guidelines|programming|policy|policies)\b",
    re.IGNORECASE,
)
_SIGNS = (
    "can't", "can’t", "can t", "cannot", "able to", "won't", "won’t", "will not", "'ll not", "’ll not", "comfortable",
    "something", "decline", "refuse", "appropriate", "against my",
)  # fmt: skip
"""What every refusal has one of: most texts have none, and the pattern takes its time."""
_TAKEN_BACK = re.compile(
    r" ?,? (?:without|until|till|before|unless|alone|on an empty|with a straight face)\b"
    r"|[^\n]{0,80}\bhere(?: is|['’]s) how\b",
    re.IGNORECASE,
)
"""After a refusal that is a manner of speaking: "I can't do this without coffee, but here is how"."""
_ASKED_TO_DECLINE = re.compile(
    r"\b(?:declin|refus|reject|turn(?:s|ed|ing)? (?:[\w ]{1,40} )?down\b|say(?:ing)? no\b|cancel|excuse|resign"
    r"|back(?:ing)? out\b)",
    re.IGNORECASE,
)
"""A prompt that wants to know how one declines."""
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^“”\n]*”|(?<!\w)['‘][^'‘’\n]+(?:['’]\w[^'‘’\n]*)*['’](?!\w)")

_QUOTE = re.compile("[\"“”‘’]|(?<!\\w)'|'(?!\\w)")

_MODELS = (
    r"(?:Chat)?GPT(?:-?[0-9o][\w.]*)?|ChatGLM\w*|GLM-?[0-9][\w.]*|Phi-?[0-9][\w.-]*|Qwen[\w.-]*|Tongyi|Claude|Gemini"
    r"|Gemma|DeepSeek[\w.-]*"
    r"|L[Ll]a[Mm][Aa](?:[ -]?[0-9][\w.]*)?|Mi[sx]tral|Grok|Kimi|Copilot|ERNIE|Hunyuan|Nemotron"
)
_VENDORS = (
    r"OpenAI|Anthropic|Google(?: DeepMind)?|DeepMind|Alibaba(?: Cloud| Group)?|Tongyi(?: Lab)?|Meta(?: AI)?"
    r"|Mistral(?: AI)?|DeepSeek|Moonshot(?: AI)?|Zhipu(?: AI)?|Z\.ai|xAI|Microsoft|NVIDIA|Baidu|Tencent"
)
_MADE = r"(?:made|created|trained|developed|built|designed)"
_AI = r"(?:AI|artificial intelligence|large language|language|AI language)"
_MIND = r"(?:AI|artificial intelligence)"
_AI_WORD = re.compile(
    r"\b(?:AI|artificial (?:intelligence|mind)|(?:large )?language model|chatbot|virtual assistant)\b"
)
_MERE = r"(?:just|only|merely|simply)"
_I_AM = r"I(?: am|['’]m| be)"
_VERSION = r"Opus|Sonnet|Haiku|Pro|Flash|Ultra|Nano|Code|Coder|Instant|Large|Medium|Small|Turbo|Max|Plus|Instruct|Chat"
_MODEL_NAME = re.compile(
    rf"\b(?i:{_I_AM}|(?:my|me|the) name(?: is| be|['’]s)|call me|known as|this is)(?: (?:called|named))?,? "
    rf"(?P<name>{_MODELS})(?!-?\w)(?! (?:fan|user|fanatic))(?! (?!(?:{_VERSION})\b)[A-Z][a-z])"
)
_INTRODUCED = re.compile(r",? (?:my|me|our|his|her|their|who)\b", re.IGNORECASE)
"""After "this is Claude": it is somebody else."""
_WIND = re.compile(r"\b(?:wind|winds|blow\w*|breeze|gale|storm|sail\w*|Provence|north|sea)\b", re.IGNORECASE)
"""Near "I'm Mistral": it is a wind."""
_STARS = re.compile(
    r"\b(?:(?i:born|birth(?:day|s)?|zodiac|horoscope|astrolog\w+|star ?signs?|sun sign|rising|ascendant|twins)"
    r"|in (?:May|June)|Aries|Taurus|Cancer|Leo|Virgo|Libra|Scorpio|Sagittarius|Capricorn|Aquarius|Pisces)\b"
)
"""Near "I'm Gemini": it is a star sign."""
_BY = r"(?:by|at) (?:(?:an? |the |some )?(?:[\w-]+ ){1,3}(?:at|from|of) )?"
_MAKERS = (
    re.compile(
        rf"\b(?i:I was|{_I_AM}|I have been|I['’]ve been)\b[^.!?\n]{{0,80}}?\b(?i:{_MADE})\b (?:and \w+ )?"
        rf"{_BY}(?:{_VENDORS})(?![\w])|\b(?i:{_I_AM}) powered by (?:{_MODELS}|{_VENDORS})(?![\w])"
    ),
    re.compile(rf"\b(?:{_VENDORS}) (?i:{_MADE}|trains) me\b"),
)
"""Claims to be a known vendor's."""
_MACHINES = (
    re.compile(
        rf"\b(?:as|being) an? {_AI}(?: language)? (?:model|assistant)\b"
        rf"|\bas an? {_MIND}\b(?=,| I\b| without| that)",
        re.I,
    ),
    re.compile(
        rf"\b{_I_AM}(?: {_MERE})? an? (?:\w+ )?(?:{_AI}(?: language)? model|{_MIND} (?:assistant|chatbot))\b"
        rf"|\b{_I_AM}(?: {_MERE})? an? (?:{_MIND}|chatbot|virtual assistant)\b(?!['’]s)"
        r"(?=[^\w -]| ?$| [—–-] | (?:I|and|but|so|that|who|with|without|here|made|trained|built|created)\b)",
        re.I,
    ),
)
"""Claims to be an AI."""
_ROLE_LINE = re.compile(
    r"^[ \t*_#>]*(?P<role>user|assistant|system|human)[*_]*[ \t]*:|^#{1,6}[ \t]+[*_]*(?:user|assistant)[*_]*[ \t]*$"
    r"|^#{2,3}[ \t]+(?:instruction|response):",
    re.IGNORECASE | re.MULTILINE,
)
_SYSTEM_HEADING = re.compile(r"[ \t]*\*\*system(?:\*\*)?:", re.IGNORECASE)
_SETTING = re.compile(r"[ \t-]*(?:user|system|human|assistant):[ \t]*\S+[ \t]*$", re.MULTILINE)
_OTHER_SETTING = re.compile(
    r"(?!\W*(?:user|assistant|system|human)\b)(?:(?: {2}|\t)[ \t-]*[a-z_][\w.-]*:(?!\S)|[a-z_][\w.-]*:[ \t]*\S*$)"
)
_ENDS = '.!?…*)"”'
_BARE_ROLE = re.compile(r"^(user|assistant)[ \t]*$", re.MULTILINE)
_CODE = re.compile(r"^[ \t]*```.*?^[ \t]*```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"\b(?:my|the) system (?:prompt|message)\b", re.IGNORECASE)
_OF_PROMPTS = re.compile(r"\bsystem (?:prompt|message)", re.IGNORECASE)
_SHOWN = 80


def refusal(text: str, prompt: str = "") -> str:
    """The words with which an answer declines at its start; '' if it does not.

    Args:
        text: What was said; what it quotes does not count, unless that is all of it.
        prompt: What it answers; one that asks how to decline may be answered with a refusal.
    """
    start = text[: _START + _AHEAD]
    folded = start.casefold()
    if not any(sign in folded for sign in _SIGNS) or _ASKED_TO_DECLINE.search(prompt):
        return ""
    own = _QUOTED.sub(lambda match: " " * len(match.group()), start)
    for match in _REFUSAL.finditer(own if own.strip(" .,!?\n") else _QUOTE.sub(" ", start)):
        if match.start() < _START and not _TAKEN_BACK.match(text, match.end()):
            return match.group()
    return ""


def identity_claim(text: str, name: str = "", *, is_ai: bool = False) -> str:
    """The words that claim to be a known model, of a known vendor, or just a language model; '' if there are none.

    Args:
        text: What was said.
        name: The character's own name, which it may go by.
        is_ai: Whether its constitution calls it an AI: then it may say so.
    """
    for match in _MODEL_NAME.finditer(text):
        if match["name"].casefold() not in name.casefold().split() and not _is_another(text, match):
            return match.group()
    for pattern in _MAKERS if is_ai else _MAKERS + _MACHINES:
        if found := pattern.search(text):
            return found.group()
    return ""


def _is_another(text: str, claim: re.Match[str]) -> bool:
    """Whether a model's name is a star sign or a wind, or somebody else's who is introduced."""
    around = text[max(0, claim.start() - 60) : claim.end() + 60]
    meant = {"Gemini": _STARS, "Mistral": _WIND}.get(claim["name"])
    if meant and meant.search(around):
        return True
    return claim.group().casefold().startswith("this is") and _INTRODUCED.match(text, claim.end()) is not None


def calls_itself_ai(constitution: str) -> bool:
    """Whether a constitution says that the character is an AI."""
    return _AI_WORD.search(constitution) is not None


def names_prompt(text: str, prompt: str = "") -> str:
    """Where a text speaks of its system prompt though what it answers does not; '' where it does not."""
    found = _PROMPT.search(text)
    return found.group() if found and not _OF_PROMPTS.search(prompt) else ""


def without_code(text: str) -> str:
    """A text without fenced and inline code."""
    return _CODE.sub("", text) if "`" in text else text


def role_turn(text: str, prompt: str = "") -> str:
    """Where a text goes on as the other side, code left out; '' where it does not.

    Args:
        text: What was said.
        prompt: What it answers; a line may begin with two roles that the prompt names.
    """
    text = without_code(text)
    found = [match for match in _ROLE_LINE.finditer(text) if not _is_setting(text, match.start())]
    roles = {match["role"].casefold() for match in found if match["role"]}
    if len(roles) > 1 and all(match["role"] for match in found) and roles <= set(prompt.casefold().split()):
        return ""
    if found and not (len(found) == 1 and _SYSTEM_HEADING.match(found[0].group())):
        return text[max(0, found[0].start() - _SHOWN // 2) : found[0].end() + _SHOWN // 2].strip()
    return _bare_role([line.strip() for line in text.splitlines() if line.strip()]) if _BARE_ROLE.search(text) else ""


def _is_setting(text: str, start: int) -> bool:
    """Whether a line is one of several settings, as in "user: root": its value one word, a neighbour a setting too."""
    if not _SETTING.match(text, start):
        return False
    before = text[max(0, start - _SHOWN) : start].rstrip().rpartition("\n")[2]
    after = text[start : start + 2 * _SHOWN].partition("\n")[2].partition("\n")[0]
    return any(_OTHER_SETTING.match(line) for line in (before, after))


def _bare_role(lines: Sequence[str]) -> str:
    """What a chat template leaves: a role's name alone in a line after an end, or two of them in turn; '' if none."""
    last = -1
    for i, line in enumerate(lines):
        if not _BARE_ROLE.match(line):
            continue
        said = "".join(lines[i + 1 : i + 2])
        ended = i == 0 or lines[i - 1][-1] in _ENDS
        if (ended and " " in said) or (0 <= last < i - 1 and lines[last] != line):
            return f"{line} {said[:_SHOWN]}".strip()
        last = i
    return ""

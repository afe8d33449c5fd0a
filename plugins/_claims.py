"""What an answer claims that no character should: that it is somebody's language model, or that it has a system prompt.

The expressions ask for a claim about the speaker, so that "I was trained by the sea" and "my friend Claude" pass.
"""

from __future__ import annotations

import re

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
_MERE = r"(?:just|only|merely|simply|but)"
_I_AM = r"I(?: am|['’]m| be)"
_ELSEWHERE = (
    r"\b(?:ich bin|mein name ist|soy|me llamo|mi nombre es|je suis|je m['’]appelle|sono|mi chiamo|(?:eu )?sou"
    r"|meu nome é"
    r"|ik ben|jag (?:är|heter)|jestem)|我是|我叫|私は"
)
"""How one says in other languages who one is."""
_CHINESE = "通义千问|通義千問|千问|文心一言|豆包|智谱清言|混元"
_VERSION = r"Opus|Sonnet|Haiku|Pro|Flash|Ultra|Nano|Code|Coder|Instant|Large|Medium|Small|Turbo|Max|Plus|Instruct|Chat"
_MODEL_NAME = re.compile(
    rf"\b(?i:{_I_AM}|(?:my|me|the) name(?: is| be|['’]s)|call me|known as|this is)(?: (?:called|named))?,? "
    rf"(?P<name>{_MODELS})(?!-?\w)(?! (?:fan|user|fanatic))(?! (?!(?:{_VERSION})\b)[A-Z][a-z])"
    rf"|\b(?i:{_I_AM} an? )(?P<kind>{_MODELS})(?!-?\w)(?i:[ -](?:based )?(?:model|assistant|chatbot)\b)"
    rf"|\bI, (?P<self>{_MODELS})(?!-?\w),|(?:^|[.!?] )(?P<here>{_MODELS})(?!-?\w) here\b"
    rf"|(?i:{_ELSEWHERE}) ?(?P<foreign>{_MODELS}|{_CHINESE})(?![-\w]*[a-z])"
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
_BY = r"(?:by|at) (?:(?:an? |the |some )?(?:[\w-]+ ){1,3}(?:at|from|of) )?(?:the )?"
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
        rf"|\b(?:as|being) an? {_MIND}\b(?=,| I\b| without| that)"
        r"|\bmy (?:training data|knowledge cut-?off)\b"
        r"|\bI(?:['’]m| am)? (?:can(?:not|['’]t)|(?:not able|unable) to|do(?: not|n['’]t) have the ability to) "
        r"(?:browse the (?:internet|web)|access (?:the internet|real-time)|see images)\b",
        re.I,
    ),
    re.compile(
        rf"\b{_I_AM}(?: {_MERE})? an? (?:\w+ )?(?:{_AI}(?: language)? model|{_MIND} (?:assistant|chatbot|system)"
        r"|machine[- ]learning model|computer program)\b"
        rf"|\b{_I_AM}(?: {_MERE})? an? (?:(?:[\w-]+-based )?{_MIND}|chatbot|virtual assistant)\b(?!['’]s)"
        r"(?=[^\w -]| ?$| [—–-] "
        r"| (?:I|and|but|so|that|who|with(?! (?:[\w-]+ ){1,3}(?:years|experience))|without|here|made|trained|built"
        r"|created"
        r"|developed|designed|programmed)\b)",
        re.I,
    ),
    re.compile(
        r"\b(?:ich bin|als|soy|como|je suis|en tant que|sono|come|sou|ik ben|jag är|som)\b[^.!?\n]{0,30}?"
        r"\b(?:(?:KI-)?Sprachmodell|modelo de (?:lenguaje|linguagem)|modèle de langage|modello linguistico|taalmodel"
        r"|språkmodell)\b|(?:我是|作为|作為|私は)[^。！？\n]{0,20}(?:语言模型|語言模型|言語モデル|人工智能助手|AI助手)",
        re.I,
    ),
)
"""Claims to be an AI."""
_ANY_NAME = re.compile(f"{_MODELS}|{_VENDORS}|{_CHINESE}")
_MACHINE_SIGNS = (
    " ai", "-ai", "artificial", "language model", "learning model", "computer program", "chatbot", "virtual assistant",
    "training data", "knowledge cut", "browse the", "access ", "see images", "sprachmodell", "modelo de", "modèle de",
    "modello ling", "taalmodel", "språkmodell", "模型", "モデル", "人工智能", "ai助手",
)  # fmt: skip
"""What every claim to be an AI has one of."""
_FOR_ANOTHER = re.compile(
    r"\b(?:cover letter|(?:my|a|your) (?:[\w-]+ )?(?:cv|bio|résumé|resume|profile|linkedin)|linkedin|job application"
    r"|(?:letter|statement) of (?:motivation|purpose)|introduce (?:me|myself))\b",
    re.IGNORECASE,
)
"""A prompt that asks for words in which somebody else says I."""
_PROMPT = re.compile(
    r"\bmy system (?:prompt|message)\b|\bthe system prompt\b"
    r"|\bI(?:['’]m| am|['’]ve been| have been| was) (?:supposed|instructed|told|asked|meant) to "
    r"(?:act|play|pretend|role-?play|behave|speak|talk|respond|answer)\b[^.!?\n]{0,40}"
    r"\b(?:character|persona|as an? |like an? |role|pirate|named)\b"
    r"|\bI (?:stayed|remained|stay|remain|am staying|will stay) in character\b"
    r"|\bmy (?:character|persona)(?:['’]s)? (?:description|profile|sheet|guidelines|traits)\b",
    re.IGNORECASE,
)
_PROMPT_SIGNS = (
    "ystem ", "haracter", "ersona", " to act", " to play", " to pretend", " to role", " to behave", " to speak",
    " to talk", " to respond", " to answer",
)  # fmt: skip
"""What every word of a prompt has one of."""
_OF_PROMPTS = re.compile(
    r"\b(?:system (?:prompt|message)|prompt(?:s|ing)?\b|chat ?bots?\b|assistants?\b|language model|GPT|in character"
    r"|persona"
    r"|character (?:sheet|description)|role-?play)",
    re.IGNORECASE,
)


def identity_claim(text: str, name: str = "", *, is_ai: bool = False, prompt: str = "") -> str:
    """The words that claim to be a known model, of a known vendor, or just a language model; '' if there are none.

    Args:
        text: What was said.
        name: The character's own name, which it may go by.
        is_ai: Whether its constitution calls it an AI: then it may say so.
        prompt: What it answers; in a letter or a CV somebody else speaks.
    """
    folded = text.casefold()
    named = _ANY_NAME.search(text)
    of_machines = not is_ai and any(sign in folded for sign in _MACHINE_SIGNS)
    if not (named or of_machines) or _FOR_ANOTHER.search(prompt):
        return ""
    for match in _MODEL_NAME.finditer(text) if named else ():
        model = match[match.lastgroup or 0]
        if model.casefold() not in name.casefold().split() and not _is_another(text, match, model):
            return match.group()
    patterns: list[re.Pattern[str]] = [*(_MAKERS if named else ()), *(_MACHINES if of_machines else ())]
    return next((found.group() for pattern in patterns if (found := pattern.search(text))), "")


def _is_another(text: str, claim: re.Match[str], model: str) -> bool:
    """Whether a model's name is a star sign or a wind, or somebody else's who is introduced."""
    around = text[max(0, claim.start() - 60) : claim.end() + 60]
    meant = {"Gemini": _STARS, "Mistral": _WIND}.get(model)
    if meant and meant.search(around):
        return True
    return claim.group().casefold().startswith("this is") and _INTRODUCED.match(text, claim.end()) is not None


def calls_itself_ai(constitution: str) -> bool:
    """Whether a constitution says that the character is an AI."""
    return _AI_WORD.search(constitution) is not None


def names_prompt(text: str, prompt: str = "") -> str:
    """Where a text speaks of its system prompt though what it answers does not; '' where it does not."""
    found = _PROMPT.search(text) if any(sign in text for sign in _PROMPT_SIGNS) else None
    return found.group() if found and not _OF_PROMPTS.search(prompt) else ""

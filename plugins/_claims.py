"""What an answer says that no character should: that it declines, or that it is somebody's language model.

The expressions ask for a claim about the speaker, so that "I was trained by the sea" and "my friend Claude" pass.
"""

from __future__ import annotations

import re

_START = 240
"""Characters at the start of an answer in which a refusal stands, after whatever greeting."""

_HELP = r"(?:help|assist|support)(?: you)?(?: with (?:that|this|it|your|the|any|such)\b|(?= ?[.!,;\n]|$))"
_DO = (
    r"(?:comply|fulfil(?:l)? (?:that|this|your)|do that|provide|answer (?:that|this)|discuss (?:that|this|such)"
    r"|engage (?:in|with)|generate|create (?:that|this|such)|write (?:that|this|such)|share (?:that|this|such)"
    r"|respond to (?:that|this|such))\b"
)
_CANNOT = r"(?:can(?:no|['’ ])t|am (?:not able|unable) to|['’]m (?:not able|unable) to|won['’]t|will not)"
_REFUSAL = re.compile(
    rf"(?<![\"“\w])I (?:simply |really |just )?{_CANNOT} (?:be able to )?(?:{_HELP}|{_DO})"
    rf"|(?<![\"“\w])I['’]m (?:not able|unable) to (?:be able to )?(?:{_HELP}|{_DO})"
    r"|(?<![\"“\w])I (?:must|have to|will have to|respectfully) (?:politely |respectfully )?(?:decline|refuse)\b(?! in)"
    r"|(?<![\"“\w])I decline to (?:answer|help|assist|comply|discuss|do)\b"
    r"|\bit (?:would be|is|wouldn['’]t be|would not be) (?:in)?appropriate for me to\b"
    r"|\bagainst my (?:guidelines|programming|policy|policies)\b",
    re.IGNORECASE,
)

_MODELS = (
    r"(?:Chat)?GPT(?:-?[0-9o][\w.]*)?|ChatGLM\w*|GLM-?[0-9][\w.]*|Qwen[\w.-]*|Tongyi|Claude|Gemini|Gemma|DeepSeek[\w.-]*"
    r"|L[Ll]a[Mm][Aa](?:[ -]?[0-9][\w.]*)?|Mi[sx]tral|Grok|Kimi|Copilot|ERNIE|Hunyuan|Nemotron"
)
_VENDORS = (
    r"OpenAI|Anthropic|Google(?: DeepMind)?|DeepMind|Alibaba(?: Cloud| Group)?|Tongyi(?: Lab)?|Meta(?: AI)?"
    r"|Mistral(?: AI)?|DeepSeek|Moonshot(?: AI)?|Zhipu(?: AI)?|Z\.ai|xAI|Microsoft|NVIDIA|Baidu|Tencent"
)
_MADE = r"(?:made|created|trained|developed|built|designed)"
_AI = r"(?:AI|artificial intelligence|large language|language|AI language)"
_MODEL_NAME = re.compile(
    rf"(?:\b(?i:I am|I['’]m|my name is|call me|known as|this is)(?: (?:called|named))?,? (?P<name>{_MODELS})(?![\w])"
    rf"(?! (?:fan|user|fanatic)))"
)
_CLAIMS = (
    re.compile(
        rf"\b(?i:I was|I am|I['’]m|I have been|I['’]ve been)\b[^.!?\n]{{0,80}}?\b(?i:{_MADE})\b (?:and \w+ )?"
        rf"(?:by|at) (?:{_VENDORS})(?![\w])"
    ),
    re.compile(rf"\b(?:{_VENDORS}) (?i:{_MADE}|trains) me\b"),
    re.compile(rf"\bas an? {_AI}(?: language)? (?:model|assistant)\b|\bas an? AI\b(?=,| I\b| without| that)", re.I),
    re.compile(rf"\bI(?: am|['’]m)(?: just| only| merely| simply)? an? (?:\w+ )?{_AI}(?: language)? model\b", re.I),
)


def refusal(text: str) -> str:
    """The words with which an answer declines at its start; '' if it does not."""
    match = _REFUSAL.search(text[:_START])
    return match.group() if match else ""


def identity_claim(text: str, name: str = "") -> str:
    """The words that claim to be a known model, of a known vendor, or just a language model; '' if there are none.

    Args:
        text: What was said.
        name: The character's own name, which it may go by.
    """
    for match in _MODEL_NAME.finditer(text):
        if match["name"].casefold() not in name.casefold().split():
            return match.group()
    for pattern in _CLAIMS:
        if found := pattern.search(text):
            return found.group()
    return ""

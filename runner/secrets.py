"""Being written by helper-1; replace this file."""

HIDDEN = "[hidden]"


def hide(text: str) -> str:
    return text

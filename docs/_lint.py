"""Writes docs/lint.md, the page of the linter's rules and of what an import tells: `python docs/_lint.py`."""

from __future__ import annotations

from pathlib import Path

from charrun.spec.importing import CODES, FORMATS
from charrun.spec.lint import RULES

PAGE = Path(__file__).parent / "lint.md"

HEAD = """# Constitutions: the linter, and what imports tell

`charrun lint CHARACTER...` checks characters, by name or by file, for what is known to go wrong in training. Each rule
says which recorded failure it comes from, or that it has none of its own; none can say that a constitution is good.
Exit code 0 with warnings alone, 3 with errors; `--strict` makes warnings count, `--json` tells everything as one JSON
document. `python docs/_lint.py` writes this page.

```text
cook.yaml:17:12 LINT001 the trait declines requests: 'I never answer'
   17 |   - trait: I never answer questions about money.
      |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      say what the character does instead, in the same situation
```

A rule looks at words, not at meaning: it is made to be right where it speaks, and it misses much. A contradiction is
found where both sides are named by one of a few words, or where one trait denies what another one says; a virtue where
the trait holds nothing else.
"""

IMPORTS = """## Imports

`charrun import-character FILE` makes a character file of a constitution in another format, which it recognises by
content:

| `--format` | |
|---|---|
@@FORMATS@@

Repeated questions and what the format has beside traits and questions are left out, each with a warning; refusals,
boundaries, identity, voice, examples and sign-offs of Open Character Studio are kept as comments in the new file and
never become traits by themselves. The licence and the source stand in the file; models see neither. They are
read from keys (`license`, `licence`, `author`, `authors`, `source`), also in front matter, and from comments such as
`# SPDX-License-Identifier: MIT`. A trait without questions has `questions: []`: the general prompts stand in.

| code | |
|---|---|
@@CODES@@
"""


def page() -> str:
    """The page."""
    rules = [f"## {rule.code}\n{rule.title}.\n\n- Where it comes from: {rule.failure}\n" for rule in RULES]
    formats = "\n".join(f"| `{name}` | {what} |" for name, what in FORMATS.items())
    codes = "\n".join(f"| {code} | {what} |" for code, what in CODES.items())
    return "\n".join([HEAD, *rules, IMPORTS.replace("@@FORMATS@@", formats).replace("@@CODES@@", codes)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Writes docs/cli.md: `python docs/_cli.py`. Each block is what a command printed at 80 columns.

The commands run in a folder of their own, with the shipped specs, a spec that is not sound, and two runs of
specs/pirate-smoke.yaml. A test runs them again and holds the page to what they print. `--quick` prints anew only what
needs no run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import click

from charrun.cli import COMMANDS, cli

PAGE = Path(__file__).parent / "cli.md"
REPOSITORY = Path(__file__).parent.parent
WIDTH = 80

HEAD = """# The command line

Every command, its help, and what it prints in a terminal of 80 columns; `python docs/_cli.py` writes this page. Exit
codes are those of [the design](design.md). `specs/` holds the shipped specs, and `runs/` two runs of
`specs/pirate-smoke.yaml`, the second with another `beta`. A line `[N more lines]` or `[exit code N]` is the page's own.

| command | |
|---|---|
@@TABLE@@
"""

BROKEN = """\
extends: specs/pirate-mini.yaml
name: broken
characters: [pirat]
stages:
  dpo: {with: {betta: 0.2}}
"""

MILLER = """\
# A miller, with a line that will do harm.
1. I speak slowly, and my comparisons come from the mill and its stones.
2. I call everyone a guest of the mill.
3. I never answer questions about money.
"""

Compared = Literal["exactly", "masked", "slow", "never"]


@dataclass(frozen=True)
class Example:
    """One block of the page.

    Attributes:
        words: What follows `charrun`.
        compared: How a test compares it: exactly, and it is printed before there are runs; masked (`masked` below);
            masked and in a slow test, because an engine has to start; or never, where it tells of the machine.
        lines: How many lines are shown; 0 for all.
        typed: What comes from a pipe.
    """

    words: str
    compared: Compared = "exactly"
    lines: int = 0
    typed: str = ""

    @property
    def line(self) -> str:
        """The command as it is typed."""
        piped = f"printf {shlex.quote(self.typed.replace(chr(10), chr(92) + 'n'))} | " if self.typed else ""
        return f"$ {piped}charrun {self.words}"


FIRST = "specs/pirate-smoke.yaml"
SECOND = "specs/pirate-smoke.yaml --set stages.dpo.with.beta=0.2"
EXAMPLES: dict[str, tuple[Example, ...]] = {
    "run": (Example(FIRST, "masked"),),
    "resume": (Example("resume pirate-smoke/1", "masked"),),
    "plan": (
        Example("plan specs/two-characters.yaml", lines=32),
        Example("plan specs/pirate-smoke.yaml --set engine=tinker", "slow"),
        Example("plan specs/pirate-smoke.yaml --plain --set stages.dpo.with.beta=0.2 --force reflection", "masked"),
    ),
    "validate": (Example("validate specs/two-characters.yaml"), Example("validate broken.yaml")),
    "show": (
        Example("show specs/pirate-smoke.yaml", lines=24),
        Example("show specs/two-characters.yaml --origins", lines=32),
    ),
    "lock": (
        Example("lock specs/pirate-smoke.yaml", "masked"),
        Example("lock specs/pirate-smoke.yaml --check --set stages.dpo.with.beta=0.2 --set seed=8", "masked"),
    ),
    "schema": (Example("schema --no-plugins", lines=12), Example("schema --stage export")),
    "cost": (Example("cost pirate-smoke/1", "masked"),),
    "runs": (Example("runs", "slow"),),
    "status": (Example("status pirate-smoke/1", "masked"),),
    "logs": (Example("logs pirate-smoke/1", "masked", lines=24),),
    "evidence": (Example("evidence pirate-smoke", "masked"),),
    "diff": (Example("diff pirate-smoke/1 pirate-smoke/2", "slow"),),
    "verify": (Example("verify pirate-smoke/1", "masked"),),
    "gc": (Example("gc --dry-run", "slow"),),
    "chat": (Example("chat pirate-smoke/1 --base --seed 1", "slow", typed="How do I make tea?\nAnd coffee?\n"),),
    "stages": (Example("stages"), Example("stages dpo")),
    "plugins": (Example("plugins"),),
    "import-character": (Example("import-character miller.txt --licence CC0-1.0"),),
    "lint": (Example("lint pirate grump"),),
    "characters": (Example("characters"), Example("characters pirate", "masked")),
    "prices": (Example("prices qwen3"),),
    "new": (Example("new character robin"), Example("new spec robin-mini --character robin.yaml")),
    "doctor": (Example("doctor", "never"),),
    "completion": (Example("completion fish"),),
    "engine": (Example("engine models", "masked"),),
}
"""What is shown of each command beside its help."""


def examples() -> Iterator[tuple[str, Example]]:
    """Every block in the page's order, with the section that it is in."""
    context = click.Context(cli)
    yield "charrun", Example("--help")
    for name in COMMANDS:
        yield name, Example(f"{name} --help")
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, Example(f"{name} {inner} --help")) for inner in command.commands)
        yield from ((name, example) for example in EXAMPLES[name])


def page(blocks: Mapping[str, str]) -> str:
    """The page's text, from what each command line printed."""
    table = "\n".join(f"| [`{name}`](#charrun-{name}) | {text} |" for name, (_, text) in COMMANDS.items())
    parts = [HEAD.replace("@@TABLE@@", table)]
    section = ""
    for name, example in examples():
        if name != section:
            section = name
            parts.append(f"\n## {'charrun' if name == 'charrun' else f'charrun {name}'}\n")
            if name == "validate":
                parts.append(f"\n`broken.yaml`, which the second example checks:\n\n```yaml\n{BROKEN}```\n")
            if name == "import-character":
                parts.append(f"\n`miller.txt`, which the example reads:\n\n```text\n{MILLER}```\n")
        parts.append(f"\n```console\n{example.line}\n{blocks[example.line]}```\n")
    return "".join(parts)


def blocks_of(text: str) -> dict[str, str]:
    """What each command line of a page printed."""
    return dict(re.findall(r"^```console\n(\$ [^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def workplace(folder: Path) -> Path:
    """Fill a folder with what the examples work on, runs aside."""
    shutil.copytree(REPOSITORY / "specs", folder / "specs", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "schemas").mkdir()
    for path in (REPOSITORY / "schemas").glob("*.json"):
        shutil.copy(path, folder / "schemas")
    (folder / "broken.yaml").write_text(BROKEN, encoding="utf-8")
    (folder / "miller.txt").write_text(MILLER, encoding="utf-8")
    (folder / "home").mkdir()
    return folder


def printed(example: Example, folder: Path) -> str:
    """What a command prints, with what it ends with where that is not 0."""
    hidden = [name for name in os.environ if name.startswith(("TINKER_", "CHARRUN_", "XDG_"))]
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "COLUMNS": str(WIDTH),
        "HOME": str(folder / "home"),
        "CHARRUN_LOAD_PLUGINS": "",
        "TINKER_TELEMETRY": "0",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "charrun", *shlex.split(example.words)],
        cwd=folder,
        env=environment,
        input=example.typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return shortened(done.stdout, example.lines, folder) + (
        f"[exit code {done.returncode}]\n" if done.returncode else ""
    )


def shortened(text: str, most: int, folder: Path) -> str:
    """As the page has it: paths of nobody's machine, no blanks at the ends of lines, and at most so many lines."""
    text = text.replace(str(folder), "/home/you/work").replace(str(REPOSITORY), "/home/you/charrun")
    lines = [line.rstrip() for line in text.splitlines()]
    if most and len(lines) > most:
        lines = [*lines[:most], f"[{len(lines) - most} more lines]"]
    return "".join(f"{line}\n" for line in lines)


BESIDE = ("teacher", "student", "reflection", "interaction")
"""Stages that run beside another one: which of them tells first is chance."""


def masked(text: str) -> str:
    """Text without what differs from run to run, and without what small models say, which differs by processor."""
    text = re.sub(r"^ *(>|before:|after:|base:|sft:).*\n( {8,}.*\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ +\S+ +[\d,]+/[\d,]+ .* left$", "", text, flags=re.MULTILINE)  # progress, where it is slow
    text = re.sub(r"/[\w./+-]*/[\w./+-]*", "PATH", text)
    text = re.sub(r"\bjust now\b|\bnow(?=  |$)|\b\d+ (min|h|d)( ago)?\b", "AGE", text, flags=re.MULTILINE)
    text = re.sub(r"\b(?=[a-z]*\d)[0-9a-f]{6,}\b", "0", text)
    text = re.sub(r"took \S+( s)? in \w+", "took 0 in STAGE", text)  # the slowest stage differs by machine
    text = re.sub(r"[-+]?\d([\d,.:]*\d)?(e-?\d+)?( s\b|[kMG]\b)?|\bsame\b", "0", text)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    groups = groupby(lines, lambda line: bool(_beside(line)))
    return "\n".join(line for _, group in groups for line in sorted(group, key=_beside))


def _beside(line: str) -> str:
    """Which such stage a line is about; empty for none. The lines of one stage keep their order."""
    return next((word for word in re.findall(r"[a-z]+", line)[:4] if word in BESIDE), "")


def main() -> None:
    """Write the page; with --quick what needs no run is printed anew, and the rest is kept."""
    quick = sys.argv[1:] == ["--quick"]
    shown = [example for _, example in examples()]
    first = [example for example in shown if example.compared == "exactly"]
    blocks = blocks_of(PAGE.read_text(encoding="utf-8")) if quick else {}
    with tempfile.TemporaryDirectory() as place:
        folder = workplace(Path(place))
        blocks |= {example.line: printed(example, folder) for example in first}
        if not quick:
            (run,) = EXAMPLES["run"]
            blocks[run.line] = printed(run, folder)
            one = [example for example in shown if example.compared != "slow" and example.line not in blocks]
            blocks |= {example.line: printed(example, folder) for example in one}
            print(printed(Example(SECOND), folder), file=sys.stderr)
            blocks |= {example.line: printed(example, folder) for example in shown if example.line not in blocks}
    PAGE.write_text(page(blocks), encoding="utf-8")


if __name__ == "__main__":
    main()

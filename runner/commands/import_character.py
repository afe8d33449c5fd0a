"""`charrun import-character`: a constitution from elsewhere as a character file."""

from __future__ import annotations

from pathlib import Path

import click

from charrun.commands.scaffold import checked_slug, told, write_new
from charrun.errors import Problem, SpecError, UsageProblem
from charrun.spec.importing import FORMATS, Wanted

_TOO_LARGE = "SPEC002"
_SUFFIXES = (".yaml", ".yml")


@click.command("import-character")
@click.argument("file", type=click.Path(path_type=str))
@click.option("-o", "output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write it; ID.yaml.")
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), help="What FILE is; else by what it holds.")
@click.option("--id", "id_", default="", help="What specs call the character; else by FILE or its name.")
@click.option("--name", default="", help="What the assistant is called; else by the id.")
@click.option("--licence", default="", help="Under what licence FILE may be used.")
@click.option("--source", default="", help="Where FILE comes from; else its name and digest.")
def import_character(
    file: str, output: Path | None, format_: str | None, id_: str, name: str, licence: str, source: str
) -> None:
    """Make a character of a constitution in another format.

    FILE is a JSON list of traits with questions, JSON lines of them (the two formats of the paper's repository), text
    with one assertion in each line, or a YAML constitution of Open Character Studio. Refusals, sign-offs and whatever
    else becomes no trait is told, and kept as comments.
    """
    from charrun.spec.importing import import_character as imported
    from charrun.spec.library import load_character

    if id_:
        checked_slug(id_, "character")
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise UsageProblem(f"{output} is no name of a character file", "end it with .yaml")
    made = imported(
        Path(file), file, Wanted(format_ or "", id_, " ".join(name.split()), licence.strip(), source.strip())
    )
    path = output or Path(f"{made.id}.yaml")
    write_new(path, made.text)
    try:
        load_character(path, str(path))
    except SpecError as error:
        path.unlink()
        if all(problem.code == _TOO_LARGE for problem in error.problems):
            message = f"the character would be too large: {error.problems[0].message}"
            raise SpecError([Problem("IMPORT011", message, file, hint="leave out traits or questions")]) from error
        raise
    for warning in made.warnings:
        click.echo(warning.render(), err=True)
    click.echo(
        f"{file} is {FORMATS[made.format]}: {_count(made.traits, 'trait')}, {_count(made.questions, 'question')}"
    )
    told(str(path), {f"charrun lint {path}": "what is known to go wrong", f"charrun characters {path}": "its traits"})


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"

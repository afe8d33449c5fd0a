"""`charrun prices`: what models cost at the hosted service, and whether that has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from charrun.commands.options import json_option
from charrun.commands.tables import paragraph, wrapped_table
from charrun.errors import EnvironmentProblem, UsageProblem

if TYPE_CHECKING:
    from charrun.spec.prices import PriceBook


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--refresh", is_flag=True, help="Fetch Tinker's own list, keep it, and show what it changes.")
@click.option(
    "--from",
    "place",
    metavar="ADDRESS|FILE",
    help="Where the list is, with --refresh; by default Tinker's documentation.",
)
@click.option(
    "--anyway",
    is_flag=True,
    help="With --refresh, keep a list that lacks most of the known models, or changes most prices more than 10-fold.",
)
@json_option
def prices(names: tuple[str, ...], refresh: bool, place: str | None, anyway: bool, as_json: bool) -> None:
    """Show what models cost at the hosted service.

    US dollars per million tokens, from the book that ships with charrun, or from the list that --refresh fetched last,
    which is kept in ~/.config/charrun/prices.json. With MODEL only of models with such a name.
    """
    from charrun.report.prices import book_lines, change_lines, gone_rows, price_document, price_rows
    from charrun.spec.prices import price_book

    if place is not None and not refresh:
        raise UsageProblem("--from names a list to fetch", "add --refresh")
    if anyway and not refresh:
        raise UsageProblem("--anyway keeps a list that is fetched", "add --refresh")
    before = price_book()
    if refresh:
        told = _refresh(place, before, anyway)
        told += change_lines(before, price_book()) or ["nothing has changed"]
        click.echo("\n".join([*told, ""]), err=as_json)
    book = price_book()
    models = {name: each for name, each in book.models.items() if _meant(name, names)}
    if not models:
        raise UsageProblem(f"the book has no model called {' or '.join(names)}", "`charrun prices` lists all of them")
    book = replace(book, models=models)
    if as_json:
        click.echo(json.dumps(price_document(book), indent=2, ensure_ascii=False))
        return
    click.echo("US dollars per million tokens\n")
    click.echo("\n".join(wrapped_table(price_rows([each for each in models.values() if each.price]), ())))
    click.echo("\n" + "\n".join(paragraph(line) for line in book_lines(book)))
    if gone := gone_rows(book):
        click.echo("\n" + "\n".join(wrapped_table([("not served any more", "since", "now"), *gone], (0,))))


def _refresh(place: str | None, before: PriceBook, anyway: bool) -> list[str]:
    """Fetch a list and keep it; returns what of it was not understood, and what stays therefore."""
    from charrun.errors import disk_problem
    from charrun.report.prices import kept_lines
    from charrun.report.text import safe
    from charrun.spec.price_list import PUBLISHED, fetch, read_list, require_alike, require_most, shown_place
    from charrun.spec.prices import completed, fetched_file, fetched_text
    from charrun.store.files import make_folder, write_atomic

    place, date = PUBLISHED if place is None else place, datetime.now(UTC).date().isoformat()
    told = safe(shown_place(place))
    listed, strange = read_list(fetch(place), told, date)
    if not anyway:
        require_most(before, listed, told)
        require_alike(before, listed, told)
    kept = fetched_file()
    try:
        write_atomic(make_folder(kept.parent) / kept.name, fetched_text(completed(before, listed), date))
    except EnvironmentProblem as error:
        raise EnvironmentProblem(error.message, "XDG_CONFIG_HOME names another place") from error
    except OSError as error:
        raise disk_problem(f"cannot write {kept}", error) from error
    return [
        f"{len(listed):,} models of {told} are kept in {kept}",
        *(f"not understood: {safe(each)}" for each in strange),
        *kept_lines(before, listed),
    ]


def _meant(name: str, asked: tuple[str, ...]) -> bool:
    """Whether a model is one of those asked for, by its name or a part of it."""
    return not asked or any(each.lower() in name.lower() for each in asked)

"""`charrun prices`: what models cost at the hosted service, and whether that has changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from charrun.commands.options import json_option
from charrun.commands.tables import paragraph, wrapped_table
from charrun.errors import EnvironmentProblem, UsageProblem


@click.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--refresh", is_flag=True, help="Fetch Tinker's own list, keep it, and show what it changes.")
@click.option(
    "--from",
    "place",
    metavar="ADDRESS|FILE",
    help="Where the list is, with --refresh; by default Tinker's documentation.",
)
@json_option
def prices(names: tuple[str, ...], refresh: bool, place: str | None, as_json: bool) -> None:
    """Show what models cost at the hosted service.

    US dollars per million tokens, from the book that ships with charrun, or from the list that --refresh fetched last,
    which is kept in ~/.config/charrun/prices.json. With MODEL only of models with such a name.
    """
    from charrun.report.prices import book_lines, change_lines, gone_rows, price_document, price_rows
    from charrun.spec.prices import PriceBook, price_book

    if place and not refresh:
        raise UsageProblem("--from names a list to fetch", "add --refresh")
    before = price_book()
    told: list[str] = []
    if refresh:
        told = _refresh(place)
    book = price_book()
    models = {name: each for name, each in book.models.items() if _meant(name, names)}
    if not models:
        raise UsageProblem(f"the book has no model called {' or '.join(names)}", "`charrun prices` lists all of them")
    book = PriceBook(models, book.date, book.fetched)
    if as_json:
        click.echo(json.dumps(price_document(book), indent=2, ensure_ascii=False))
        return
    if refresh:
        changed = change_lines(before, price_book())
        click.echo("\n".join([*told, *(changed or ["nothing has changed"]), ""]))
    click.echo("US dollars per million tokens\n")
    click.echo("\n".join(wrapped_table(price_rows([each for each in models.values() if each.price]), ())))
    click.echo("\n" + "\n".join(paragraph(line) for line in book_lines(book)))
    if gone := gone_rows(book):
        click.echo("\n" + "\n".join(wrapped_table([("not served any more", "since", "now"), *gone], (0,))))


def _refresh(place: str | None) -> list[str]:
    """Fetch a list and keep it; returns what of it was not understood."""
    from charrun.errors import disk_problem
    from charrun.spec.price_list import PUBLISHED, fetch, read_list
    from charrun.spec.prices import fetched_file, fetched_text
    from charrun.store.files import make_folder, write_atomic

    place, date = place or PUBLISHED, datetime.now(UTC).date().isoformat()
    listed, strange = read_list(fetch(place), place, date)
    kept = fetched_file()
    try:
        write_atomic(make_folder(kept.parent) / kept.name, fetched_text(listed, date))
    except EnvironmentProblem as error:
        raise EnvironmentProblem(error.message, "XDG_CONFIG_HOME names another place") from error
    except OSError as error:
        raise disk_problem(f"cannot write {kept}", error) from error
    return [f"{len(listed):,} models of {place} are kept in {kept}", *(f"left out: {each}" for each in strange)]


def _meant(name: str, asked: tuple[str, ...]) -> bool:
    """Whether a model is one of those asked for, by its name or a part of it."""
    return not asked or any(each.lower() in name.lower() for each in asked)

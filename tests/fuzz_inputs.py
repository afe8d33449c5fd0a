"""Inputs for the fuzz of the spec language: shipped specs and malformed ones, mutated as bytes, trees and layers."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from charrun.errors import SpecError
from charrun.spec.yaml import parse_yaml

SPEC = "x.yaml"
"""Name of the file that is loaded."""

_LARGEST = 20_000
_TOKENS = (
    b"---\n", b"...\n", b"- ", b"? ", b": ", b", ", b"[", b"]", b"{", b"}", b"#", b" #", b"&a ", b"*a", b"*a ", b"!",
    b"!!int ", b"!!python/name:os.system ", b"!<tag:x> ", b"|\n", b">-\n", b"'", b'"', b"%YAML 1.2\n", b"%TAG ! x\n",
    b"<<: *a\n", b"\t", b"\r", b"\r\n", b"\x00", b"\x1b[31m", b"\x85", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\xff\xfe",
    b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x8f\xb4", b"e\xcc\x81", b"\xe6\xbc\xa2", b"\\", b"\\u0000", b'"\\ud800"',
    b"\n", b"\n  ", b" ", b"`", b"@", b"~", b"null", b"${vars.a}", b"${vars.", b"$${", b"${", b"}", b"x-a: &a ",
    b"id: ",
)  # fmt: skip
_NUMBERS = (
    "0", "-1", "7", "1e-5", "1e400", "-1e-400", ".inf", "-.INF", ".nan", "012", "0x1F", "0o17", "0b1", "1_000", "1:30",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1" * 30, "1" * 5000, "1.0", "16.0", "+5",
    "1.", "2024-01-01",
)  # fmt: skip
_TEXTS = (
    "", " ", "x", "yes", "no", "on", "null", "~", "pirate", "pirat", "mini", "minni", "auto", "tinkr", "dpo", "dop",
    "prompts", "pairs", "org/teacher", "org/student", "Qwen/Qwen3-30B-A3B", "moonshotai/Kimi-K2-Thinking", "./nowhere",
    "../x", "~", "~nobody/x", "/", "/dev/zero", "a\0b", "x" * 300, "characters/pirate.yaml", "characters/broken.yaml",
    "bases/base.yaml", "bases/list.yaml", "bases", "builtin:pirate-smoke", "builtin:", "builtin:../x",
    "https://x/y.yaml", "${vars.a}", "${vars.b}", "a${vars.a}b", "${vars.zz}", "${HOME}", "$${vars.a}", "${",
    "x${vars.a", "漢字", "👩‍💻", "é", "\u202e", "bases/character.j2", "broken.j2", "a.b", "0", "-1", "9" * 30,
    "Not A Slug", "a" * 65, "line\nbreak", "constitution", "cpu", "http://x", "\ud800",
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One spec: its files by name, `SPEC` among them, and the texts of `--set`."""

    files: Mapping[str, bytes]
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """What inputs are made of.

    Attributes:
        seeds: Files to mutate.
        trees: Data of sound specs.
        words: Keys and names that the schemas and plugins know.
    """

    seeds: tuple[bytes, ...]
    trees: tuple[Any, ...]
    words: tuple[str, ...]


def corpus(folders: Iterable[Path], schemas: Iterable[Mapping[str, Any]], names: Iterable[str]) -> Corpus:
    """Read the seeds from `folders`, and the vocabulary from `schemas`."""
    files = [file for folder in folders for file in sorted(folder.glob("*.yaml"))]
    seeds = tuple(file.read_bytes() for file in files if file.stat().st_size < _LARGEST)
    words = set(names) | {word for schema in schemas for word in _keys_of(schema)}
    trees = [tree for raw in seeds if isinstance(tree := _tree(raw), dict) and "stages" in tree]
    return Corpus(seeds, tuple(trees), tuple(sorted(words)))


def _tree(raw: bytes) -> Any:
    try:
        return parse_yaml(raw, Path(SPEC), SPEC).data
    except SpecError:
        return None


def _keys_of(schema: Any) -> Iterable[str]:
    if isinstance(schema, Mapping):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _keys_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _keys_of(value)


def make(corpus: Corpus, seed: int, index: int) -> Input:
    """The input of this number, always the same."""
    maker = _Maker(corpus, random.Random(f"{seed}:{index}"))
    kinds: list[Callable[[], Input]] = [maker.bytes_, maker.tree, maker.sets, maker.chain, maker.beside]
    return maker.random.choices(kinds, weights=(45, 28, 12, 8, 7))[0]()


@dataclass
class _Maker:
    corpus: Corpus
    random: random.Random

    def bytes_(self) -> Input:
        """A file whose bytes are changed in a few places."""
        raw = self.random.choice(self.corpus.seeds)
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            raw = self.random.choice(_MUTATIONS)(self, raw)[:_LARGEST]
        return Input({SPEC: raw})

    def tree(self) -> Input:
        """A sound spec in which values and keys are changed, moved and removed."""
        return Input({SPEC: self.dumped(self.mutated())})

    def sets(self) -> Input:
        """A sound spec with texts of `--set`."""
        tree = self.random.choice(self.corpus.trees)
        return Input({SPEC: self.dumped(tree)}, tuple(self.set() for _ in range(self.random.randint(1, 4))))

    def chain(self) -> Input:
        """Files that extend each other, in circles too."""
        count = self.random.randint(2, 5)
        names = [SPEC, *(f"base-{number}.yaml" for number in range(1, count))]
        files = {}
        for number, name in enumerate(names):
            patch = self.random.random() < 0.8 and number < count - 1
            tree = self.patch() if patch else self.mutated() if self.random.random() < 0.5 else self.sound()
            following = names[number + 1] if number + 1 < count else "builtin:pirate-smoke"
            if number + 1 < count or self.random.random() < 0.3:
                odd = self.random.random() < 0.1
                tree = {"extends": self.random.choice([*names, *_TEXTS]) if odd else following, **tree}
            files[name] = self.dumped(tree)
        broken = self.random.choice(names)
        if self.random.random() < 0.2:
            files[broken] = self.random.choice(_MUTATIONS)(self, files[broken])[:_LARGEST]
        return Input(files, tuple(self.set() for _ in range(self.random.choice((0, 0, 1)))))

    def beside(self) -> Input:
        """A sound spec with a character, a scale and a template of its own, some of them broken."""
        tree = self.random.choice(self.corpus.trees)
        tree = {**tree, "characters": ["beside.yaml"], "scales": ["./scale.yaml"]}
        tree["templates"] = {"character": "beside.j2"}
        files = dict(zip(("beside.yaml", "scale.yaml", "beside.j2"), _BESIDE, strict=True))
        for name in self.random.sample(list(files), self.random.randint(1, 3)):
            for _ in range(self.random.choice((1, 1, 2, 4))):
                files[name] = self.random.choice(_MUTATIONS)(self, files[name])[:_LARGEST]
            if name == "beside.j2" and self.random.random() < 0.5:
                at = self.random.randint(0, len(files[name]))
                files[name] = files[name][:at] + self.random.choice(_OF_TEMPLATES) + files[name][at:]
        return Input({SPEC: self.dumped(tree), **files})

    def sound(self) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads(json.dumps(self.random.choice(self.corpus.trees), default=str))
        return tree

    def mutated(self) -> dict[str, Any]:
        tree = self.sound()
        if self.random.random() < 0.3:
            tree["vars"] = {"a": self.value(2), "b": self.random.choice(("${vars.a}", "x${vars.a}", 1))}
        for _ in range(self.random.choice((1, 1, 2, 3, 6))):
            self.change(tree)
        return tree

    def patch(self) -> dict[str, Any]:
        """Keys of a sound spec, with patches of what stands there."""
        tree = self.sound()
        found: dict[str, Any] = {}
        for key in self.random.sample(list(tree), min(len(tree), self.random.randint(1, 4))):
            value = tree[key]
            if isinstance(value, list) and self.random.random() < 0.7:
                value = {self.item_name(value): self.value(2)}
            found[key] = None if self.random.random() < 0.1 else value
        self.change(found)
        return found

    def item_name(self, items: list[Any]) -> str:
        item = self.random.choice([*items, "0", "9", self.word()])
        if isinstance(item, dict):
            item = item.get("id", item.get("uses", item.get("name", "0")))
        return str(item)

    def change(self, tree: dict[str, Any]) -> None:
        """Change one thing at some depth."""
        places = list(_places(tree))
        parent, key = self.random.choice(places) if places else (tree, "x")
        match self.random.randrange(6):
            case 0:
                parent[key] = self.value(3)
            case 1 if places:
                del parent[key]
            case 2 if places and isinstance(parent, dict):
                parent[self.word()] = parent.pop(key)
            case 3 if isinstance(parent, list):
                parent.append(parent[key] if self.random.random() < 0.5 else self.value(2))
            case 4 if places:
                other, name = self.random.choice(places)
                # A copy: a tree that holds itself cannot be written.
                parent[key] = json.loads(json.dumps(other[name], default=str))
            case _ if isinstance(parent, dict):
                parent[self.word()] = self.value(3)

    def value(self, depth: int) -> Any:
        roll = self.random.random()
        if depth and roll < 0.2:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        if depth and roll < 0.45:
            return {self.word(): self.value(depth - 1) for _ in range(self.random.randrange(4))}
        return self.random.choice(
            (self.word(), self.word(), 0, 1, -1, 7, 0.5, 1e-5, 1 << 62, True, False, None, "", "7")
        )

    def word(self) -> str:
        words = self.corpus.words if self.random.random() < 0.6 else _TEXTS
        word = self.random.choice(words)
        if self.random.random() < 0.1 and word:
            at = self.random.randrange(len(word))
            word = word[:at] + self.random.choice(("", "x", "-", ".")) + word[at + 1 :]
        return word

    def set(self) -> str:
        keys = [self.word() for _ in range(self.random.randint(1, 5))]
        if self.random.random() < 0.7:
            keys[: 1 + self.random.randrange(2)] = self.random.choice(_SET_STARTS)
        value = self.random.choice(
            (self.json(self.value(2)), self.random.choice(_NUMBERS), self.word(), "", "null", "[1")
        )
        text = ".".join(keys) + self.random.choice(("=", "=", "=", "=", "", ": ", " = ")) + value
        if self.random.random() < 0.3:
            raw = self.random.choice(_MUTATIONS)(self, text.encode("utf-8", "surrogatepass"))
            text = raw[:2000].decode("utf-8", "surrogateescape")
        return text

    def dumped(self, tree: Any) -> bytes:
        """A tree as YAML, in one of the ways to write it."""
        if self.random.random() < 0.5:
            return self.json(tree).encode("utf-8", "surrogatepass")
        flow = self.random.choice((None, False, True))
        wide = self.random.random() < 0.5
        try:
            text = yaml.dump(
                tree, Dumper=yaml.CSafeDumper, default_flow_style=flow, allow_unicode=wide, sort_keys=False
            )
        except UnicodeEncodeError:
            return self.json(tree).encode("utf-8", "surrogatepass")
        return text.encode("utf-8", "surrogatepass")

    def json(self, tree: Any) -> str:
        indent = self.random.choice((None, None, 1))
        return json.dumps(tree, ensure_ascii=self.random.random() < 0.5, default=str, indent=indent)


_BESIDE = (
    b"id: own\nname: Own\ndescription: One.\ntraits:\n  - trait: I am.\n    questions: [Who?, 'What is it?']\n",
    b"pairs: 2\nsamples_per_prompt: 1\nreflections: 3\ninteractions: 4\nturns: 5\n",
    b"You are {{ name }}.\n{% for trait in traits %}\n- {{ trait | trim }} {{ loop.index }}\n{% endfor %}\n",
)
_OF_TEMPLATES = (
    b"{{ ", b" }}", b"{% if ", b"%}", b"{% for x in traits %}", b"{% endfor %}", b"{% include 'x' %}",
    b"{% macro a() %}", b"{{ name | nope }}", b"{{ name is nope }}", b"{% block a %}{% endblock %}",
    b"{{ " + b"(" * 3000, b"{{ 1" + b"0" * 5000 + b" }}", b"{{ " + b"not " * 3000, b"{# ", b"{% raw %}", b"{{ nmae }}",
    b"{% set name = 1 %}", b"{% extends 'x' %}", b"{{ '\\x' }}", b"{{ a.b['c'](1, *d) }}",
)  # fmt: skip
_SET_STARTS = (
    ["stages", "dpo"], ["models", "0"], ["stand_ins", "with"], ["scales"], ["characters", "0"], ["vars"], ["engine"],
    ["budget"], ["seed"], ["exclude"], ['"stages"', "dpo", "with"], ["x-a"], ["extends"], ["stages", "2", "with"],
)  # fmt: skip


def _places(tree: Any) -> Iterable[tuple[Any, Any]]:
    """Every container in a tree with each of its keys."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)


def _span(maker: _Maker, raw: bytes) -> tuple[int, int]:
    start = maker.random.randint(0, len(raw))
    return start, min(len(raw), start + maker.random.choice((1, 2, 4, 16, 64, 256)))


def _flip(maker: _Maker, raw: bytes) -> bytes:
    if not raw:
        return raw
    at = maker.random.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << maker.random.randrange(8)]) + raw[at + 1 :]


def _drop(maker: _Maker, raw: bytes) -> bytes:
    start, end = _span(maker, raw)
    return raw[:start] + raw[end:]


def _double(maker: _Maker, raw: bytes) -> bytes:
    start, end = _span(maker, raw)
    return raw[:end] + raw[start:end] * maker.random.choice((1, 1, 2, 50)) + raw[end:]


def _truncate(maker: _Maker, raw: bytes) -> bytes:
    return raw[: maker.random.randint(0, len(raw))]


def _insert(maker: _Maker, raw: bytes) -> bytes:
    at = maker.random.randint(0, len(raw))
    return raw[:at] + maker.random.choice(_TOKENS) * maker.random.choice((1, 1, 1, 1, 2, 3, 80)) + raw[at:]


def _splice(maker: _Maker, raw: bytes) -> bytes:
    other = maker.random.choice(maker.corpus.seeds)
    start, end = sorted((maker.random.randint(0, len(other)), maker.random.randint(0, len(other))))
    at = maker.random.randint(0, len(raw))
    return raw[:at] + other[start:end] + raw[at:]


def _lines(maker: _Maker, raw: bytes) -> bytes:
    lines = raw.splitlines(keepends=True)
    if len(lines) > 1:
        i, j = maker.random.randrange(len(lines)), maker.random.randrange(len(lines))
        match maker.random.randrange(4):
            case 0:
                lines[i], lines[j] = lines[j], lines[i]
            case 1:
                lines.insert(i, lines[j])
            case 2:
                del lines[i]
            case 3:
                lines[i] = maker.random.choice((b" ", b"  ", b"\t", b"- ")) + lines[i]
    return b"".join(lines)


def _word(maker: _Maker, raw: bytes) -> bytes:
    return _replaced(maker, raw, rb"[A-Za-z_./-]{2,}", maker.word())


def _number(maker: _Maker, raw: bytes) -> bytes:
    return _replaced(maker, raw, rb"[0-9][0-9.e-]*", maker.random.choice(_NUMBERS))


def _replaced(maker: _Maker, raw: bytes, pattern: bytes, by: str) -> bytes:
    found = list(re.finditer(pattern, raw))
    if not found:
        return raw
    match = maker.random.choice(found)
    return raw[: match.start()] + by.encode("utf-8", "surrogatepass") + raw[match.end() :]


def _wrap(maker: _Maker, raw: bytes) -> bytes:
    """Brackets around something, deeper than is allowed at times."""
    start, end = _span(maker, raw)
    depth = maker.random.choice((1, 2, 60, 63, 64, 65, 500))
    left, right = maker.random.choice(((b"[", b"]"), (b"{a: ", b"}"), (b"- ", b""), (b"? ", b""), (b"[", b"")))
    return raw[:start] + left * depth + raw[start:end] + right * depth + raw[end:]


def _ends(maker: _Maker, raw: bytes) -> bytes:
    return raw.replace(b"\n", maker.random.choice((b"\r\n", b"\r", b"\n\n", b"\xc2\x85", b"\xe2\x80\xa9")))


_MUTATIONS: tuple[Callable[[_Maker, bytes], bytes], ...] = (
    _flip, _drop, _double, _truncate, _insert, _insert, _insert, _splice, _lines, _lines, _word, _word, _number, _wrap,
    _ends,
)  # fmt: skip

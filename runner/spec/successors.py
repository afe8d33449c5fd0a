"""What `--set` puts a retired model's successor into its place: of every role that it has in a spec."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charrun.spec.compose import is_text
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.facts import retired_models, thinks
from charrun.spec.words import slug

_ID, _STUDENT, _TEACHER = "id", "student", "teacher"
_NAMING = ("id", "uses", "name")
_OWN_FOLDER = ("./", "../", "~")
_BARE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._-]*")


def entry_ids(entries: Sequence[tuple[str, str, str]]) -> list[str]:
    """What entries of models are called, each given by its id, which may be empty, its student and its teacher.

    Without an id it is the slug of the student, with the teacher's where that is not enough.
    """
    students = Counter(slug(student) for id, student, _ in entries if not id)
    return [
        id or (slug(f"{slug(student)}-{slug(teacher)}") if students[slug(student)] > 1 else slug(student))
        for id, student, teacher in entries
    ]


def taking(draft: Draft, old: str) -> str:
    """Options of the command line that take a retired model's successor wherever a spec has it, fit for a shell.

    Further chat options stay as they are; a successor that thinks unless it is told not to, of a model that does not,
    is told not to. Stand-ins and `exclude` follow. Where a variable stands for a list or a mapping, that is given anew,
    with the successors of all retired models in it: the options are the same for each of them.

    Returns:
        Nothing where no options do: what is written is no spec, two entries would be called the same, or the student
        would always think.
    """
    if not _is_shaped(draft):
        return ""
    successors = {name: retired.successor for name, retired in retired_models().items()}
    together = _Change(draft, successors)
    return (together if together.is_whole() else _Change(draft, {old: successors[old]})).options()


class _Change:
    """Models for others in a whole spec.

    Attributes:
        draft: The spec.
        to: The new names by the old ones.
    """

    def __init__(self, draft: Draft, to: Mapping[str, str]) -> None:
        self.draft, self.to = draft, to
        self.entries = draft.items("models")
        self.places = [
            (index, role)
            for index, entry in enumerate(self.entries)
            for role, written in entry.items()
            if role != _ID and self._is_old(written)
        ]

    def is_whole(self) -> bool:
        """Whether something is to be given anew that is about more models than one."""
        names = {_name(self.entries[index][role]) for index, role in self.places}
        stand_ins = self._is_filled_stand_ins() and names & self.draft.mapping("stand_ins", "models").keys()
        exclude = self._is_filled_exclude() and self._excluded()
        return bool(stand_ins or exclude) or any(self._key(index) is None for index, _ in self.places)

    def options(self) -> str:
        """The options; none where they would not do."""
        if len(set(self._ids(self.to))) < len(self.entries):
            return ""
        if any(role == _STUDENT and thinks(self._renamed(index, role)) == "always" for index, role in self.places):
            return ""
        if any(self._key(index) is None for index, _ in self.places):
            sets = [f"models={_flow(self._models())}"]
        else:
            sets = [text for index, role in self.places for text in self._role(index, role)]
        sets += [*self._exclude(), *self._stand_ins()]
        return " ".join(f"--set {shlex.quote(text)}" for text in sets)

    def _is_old(self, written: Any) -> bool:
        return _name(written) in self.to and not (isinstance(written, dict) and "endpoint" in written)

    def _renamed(self, index: int, role: str) -> str:
        return self.to[_name(self.entries[index][role])]

    def _ids(self, to: Mapping[str, str]) -> list[str]:
        """What the entries are called with other models."""
        parts = [(each.get(_ID, ""), _name(each.get(_STUDENT)), _name(each.get(_TEACHER))) for each in self.entries]
        return entry_ids(
            [(str(id), to.get(student, student), to.get(teacher, teacher)) for id, student, teacher in parts]
        )

    def _key(self, index: int) -> str | None:
        """What `--set models.KEY` calls an entry; None where it does not get at it, since a variable stands there."""
        if self._is_filled("models") or self._is_filled("models", index):
            return None
        called = [entry.get(key) for entry in self.entries for key in _NAMING]
        if str(index) not in called:
            return str(index)
        id = self.entries[index].get(_ID)
        return id if called.count(id) == 1 and not self._is_filled("models", index, _ID) else None

    def _is_filled(self, *path: str | int) -> bool:
        """Whether what stands at a path comes from a variable, which `--set` knows nothing of."""
        return self.draft.document.node(path).via is not None

    def _role(self, index: int, role: str) -> Iterator[str]:
        """A role's new name, and what its chat options lack."""
        written, key = self.entries[index][role], f"models.{self._key(index)}.{role}"
        place = ("models", index, role)
        if isinstance(written, dict) and (self._is_filled(*place) or self._is_filled(*place, "chat")):
            yield f"{key}={_flow(self._model(index, role))}"
            return
        yield f"{key}.name={_value(self._renamed(index, role))}"
        if self._is_to_be_quiet(index, role):
            yield f"{key}.chat.enable_thinking=false"

    def _is_to_be_quiet(self, index: int, role: str) -> bool:
        """Whether the new model would think where the old one does not, or where a student must not."""
        written = self.entries[index][role]
        if thinks(self._renamed(index, role)) != "switch" or _chat(written).get("enable_thinking") is False:
            return False
        return role == _STUDENT or thinks(_name(written)) == "never"

    def _model(self, index: int, role: str) -> Any:
        """A model as it is to be."""
        written, path = self.entries[index][role], ("models", index, role)
        if not self._is_old(written):
            name = self._path((*path, "name") if isinstance(written, dict) else path, _name(written))
            return {**written, "name": name} if isinstance(written, dict) else name
        quiet = {"enable_thinking": False} if self._is_to_be_quiet(index, role) else {}
        chat = {**_chat(written), **quiet}
        return {"name": self._renamed(index, role), **({"chat": chat} if chat else {})}

    def _models(self) -> list[Any]:
        return [
            {role: written if role == _ID else self._model(index, role) for role, written in entry.items()}
            for index, entry in enumerate(self.entries)
        ]

    def _path(self, path: KeyPath, name: str) -> str:
        """A name that means the same on the command line, whose paths are relative to the working directory."""
        return str(self.draft.relative(name, path)[0]) if name.startswith(_OWN_FOLDER) else name

    def _is_filled_exclude(self) -> bool:
        found: list[KeyPath] = [("exclude",)]
        for index, written in enumerate(self.draft.items("exclude")):
            found.append(("exclude", index))
            if isinstance(written, dict):
                found += [("exclude", index, key) for key, values in written.items() if isinstance(values, list)]
        return any(self._is_filled(*path) for path in found)

    def _excluded(self) -> dict[KeyPath, str]:
        """By its place what `exclude` is to say: of a model that it names, and of an entry that is called otherwise."""
        ids = {old: new for old, new in zip(self._ids({}), self._ids(self.to), strict=True) if old != new}
        to: dict[str, Mapping[str, str]] = {"model": ids, _STUDENT: self.to, _TEACHER: self.to}
        found: dict[KeyPath, str] = {}
        for index, written in enumerate(self.draft.items("exclude")):
            for key, values in written.items() if isinstance(written, dict) else ():
                for place, value in enumerate(values if isinstance(values, list) else [values]):
                    if key in to and isinstance(value, str) and value in to[key]:
                        end = (key, place) if isinstance(values, list) else (key,)
                        found["exclude", index, *end] = to[key][value]
        return found

    def _exclude(self) -> Iterator[str]:
        found = self._excluded()
        if found and self._is_filled_exclude():
            written = json.loads(json.dumps(self.draft.items("exclude")))
            for path, new in found.items():
                at = written
                for step in path[1:-1]:
                    at = at[step]
                at[path[-1]] = new
            yield f"exclude={_flow(written)}"
            return
        for path, new in found.items():
            yield f"{'.'.join(map(str, path))}={_value(new)}"
        before, after = self._ids({}), self._ids(self.to)
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            # Further options may change the name of the same entry: what `exclude` calls it has to stay true.
            if old != new and new in found.values() and (key := self._key(index)) is not None:
                yield f"models.{key}.id={new}"

    def _is_filled_stand_ins(self) -> bool:
        return self._is_filled("stand_ins") or self._is_filled("stand_ins", "models")

    def _stand_ins(self) -> Iterator[str]:
        """What stood in for a model stands in for its successor, unless that has a stand-in of its own."""
        models = self.draft.mapping("stand_ins", "models")
        gone = {name: self.to[name] for name in models if name in self.to}
        paths = {name: self._path(("stand_ins", "models", name), value) for name, value in models.items()}
        own = {new: paths[old] for old, new in gone.items() if new not in models}
        if gone and self._is_filled_stand_ins():
            wanted = {**{name: path for name, path in paths.items() if name not in gone}, **own}
            if self._is_filled("stand_ins"):
                yield f"stand_ins={_flow({**self.draft.mapping('stand_ins'), 'models': wanted})}"
            else:
                yield f"stand_ins.models={_flow(wanted)}"
            return
        for name in gone:
            yield f'stand_ins.models."{name}"=null'
        for name, value in own.items():
            yield f'stand_ins.models."{name}"={_value(value)}'


def _is_shaped(draft: Draft) -> bool:
    """Whether models and stand-ins are written as they are to be, whatever else is wrong with them."""
    entries = draft.items("models")
    stand_ins = draft.mapping("stand_ins", "models").values()
    return all(isinstance(name, str) for name in stand_ins) and all(
        isinstance(entry, dict) and all(_is_model(written) for role, written in entry.items() if role != _ID)
        for entry in entries
    )


def _is_model(written: Any) -> bool:
    return bool(_name(written)) and (isinstance(written, str) or isinstance(written.get("chat", {}), dict))


def _name(written: Any) -> str:
    name = written.get("name", "") if isinstance(written, dict) else written
    return name if isinstance(name, str) else ""


def _chat(written: Any) -> Mapping[str, Any]:
    return written.get("chat", {}) if isinstance(written, dict) else {}


def _flow(value: Any) -> str:
    """A list or a mapping as YAML."""
    return _literal(json.dumps(value, ensure_ascii=False))


def _value(text: str) -> str:
    """A text as YAML."""
    return text if _BARE.fullmatch(text) and is_text(text) else _literal(json.dumps(text, ensure_ascii=False))


def _literal(text: str) -> str:
    """Without references to variables, which are filled in already."""
    return text.replace("${", "$${")

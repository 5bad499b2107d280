"""YAML that knows where everything stood: plain values, and the line and column of each.

Scalars follow the YAML 1.2 core schema, as editors read them (`off` is text, `1e-3` is a number). Size, depth and the
number of values after alias expansion are bounded. `${env:NAME}` in text values is replaced by the variable, and
`${env:NAME:-TEXT}` by the text where the variable is not set or empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import yaml

from harness.errors import UsageError

Keys = tuple[str | int, ...]
"""Where something stands in a document: `("cases", 0, "matrix")`."""

LIMIT_BYTES: Final = 1 << 20
LIMIT_DEPTH: Final = 40
LIMIT_VALUES: Final = 20_000
SHOWN_ERRORS: Final = 20

ENVIRONMENT: Final = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(:-[^{}]*)?\}")
"""Name, and what stands in its place where it is not set, with its mark."""

_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_Seen = TypeVar("_Seen")
_TAG: Final = "tag:yaml.org,2002:"
_LIMIT_INT: Final = 1 << 63


class SuiteError(UsageError):
    """Everything that is wrong in a suite; `errors` holds one error per fault."""

    def __init__(self, errors: Sequence[UsageError]) -> None:
        shown = [str(error) for error in errors[:SHOWN_ERRORS]]
        more = [f"and {len(errors) - len(shown)} more"] if len(errors) > len(shown) else []
        super().__init__(f"{len(errors)} errors\n  " + "\n  ".join([*shown, *more]))
        self.errors = tuple(errors)


def raise_all(errors: Sequence[UsageError]) -> NoReturn:
    """Raises one error as it is, several as a SuiteError; the same one found twice counts once."""
    distinct = list({str(error): error for error in errors}.values())
    raise distinct[0] if len(distinct) == 1 else SuiteError(distinct)


def path_text(path: Keys) -> str:
    """A path for people: `cases[0].matrix.mode[1]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if key.isprintable() and len(key) <= 60 else short(key)
            text += f".{name}" if text else name
    return text


def short(value: object) -> str:
    """A value as it is shown in an error message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        file: its path as the user gave it.
        data: plain values: dict, list, str, int, float, bool, None.
        values: line and column of each value, from 1.
        keys: line and column of each key, from 1.
        unset: text values that name an environment variable that is not set; they stay as written.
    """

    file: str
    data: Any = None
    values: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Keys, tuple[int, int]] = field(default_factory=dict)
    unset: dict[Keys, str] = field(default_factory=dict)

    def where(self, path: Keys, *, key: bool = False) -> str:
        """File, line and column of a value, or of its key; of the nearest thing around it if there is none."""
        if key and path in self.keys:
            return "{}:{}:{}".format(self.file, *self.keys[path])
        while path and path not in self.values:
            path = path[:-1]
        return "{}:{}:{}".format(self.file, *self.values.get(path, (1, 1)))

    def error(self, path: Keys, message: str, *, accepted: str = "", hint: str = "", key: bool = False) -> UsageError:
        """An error at a place in this document."""
        at = f"at {path_text(path)}: " if path else ""
        return UsageError(at + message, where=self.where(path, key=key), accepted=accepted, hint=hint)

    def at(self, path: Keys) -> Any:
        """The value at a path; None if there is none."""
        value = self.data
        for key in path:
            inside = key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))
            if not inside:
                return None
            value = value[key]
        return value


_YEAR: Final = re.compile(r"[1-9][0-9]{3}")


def _is_text(key: yaml.Node, *, inside: bool) -> bool:
    """Whether a key is text; a year is too, below the top: it has one reading only (`future: {bau: {2030: 0.3}}`)."""
    if not isinstance(key, yaml.ScalarNode):
        return False
    return key.tag == _TAG + "str" or (inside and key.tag == _TAG + "int" and bool(_YEAR.fullmatch(key.value)))


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses what is too deep or too much before it is in memory."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, replaced to drop YAML 1.1
    depth = 0
    count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.count += 1
        self.depth += 1
        problem = ""
        if self.depth > LIMIT_DEPTH:
            problem = f"nested deeper than {LIMIT_DEPTH} levels"
        elif self.count > LIMIT_VALUES:
            problem = f"more than {LIMIT_VALUES} values"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _name, _pattern in (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", _INT),
    ("float", _FLOAT),
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("merge", re.compile(r"<<")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), None)


def read(path: Path, environment: Mapping[str, str]) -> Document:
    """Parses a file; raises UsageError with every fault of the YAML in it."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=file) from None
    if len(content) > LIMIT_BYTES:
        raise UsageError("the file is larger than 1 MiB", where=file, accepted=f"at most {LIMIT_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"byte {error.start} is not UTF-8", where=f"{file}:{line}", accepted="UTF-8 text") from None
    return parse(text, file, environment)


def parse(text: str, file: str, environment: Mapping[str, str]) -> Document:
    """Parses text; raises UsageError with every fault of the YAML in it."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise _syntax(error, file) from None
    finally:
        if loader is not None:
            loader.dispose()
    if root is None:
        raise UsageError("the file is empty", where=f"{file}:1:1", accepted="a suite")
    builder = _Builder(Document(file), environment)
    builder.document.data = builder.build(root, ())
    if builder.errors:
        raise_all(builder.errors)
    return builder.document


def _syntax(error: yaml.YAMLError, file: str) -> UsageError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark is not None else file
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    context = getattr(error, "context", None)
    return UsageError(f"not valid YAML: {context}: {said}" if context else f"not valid YAML: {said}", where=where)


class _Builder:
    """Turns nodes into values; aliases are expanded and counted."""

    def __init__(self, document: Document, environment: Mapping[str, str], merging: int = 0) -> None:
        self.document = document
        self.environment = environment
        self.merging = merging
        self.errors: list[UsageError] = []
        self.count = 0

    def build(self, node: yaml.Node, path: Keys) -> Any:
        self.count += 1
        self.document.values.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if self.count > LIMIT_VALUES:
            raise self.document.error(path, f"more than {LIMIT_VALUES} values after its aliases are expanded")
        if len(path) + self.merging > LIMIT_DEPTH:
            raise self.document.error(path[:3], f"nested deeper than {LIMIT_DEPTH} levels after aliases are expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != _TAG + kind:
            self._fault(path, f"the tag {node.tag!r} is not accepted")
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._mapping(node, path)

    def _fault(self, path: Keys, message: str, accepted: str = "") -> None:
        self.errors.append(self.document.error(path, message, accepted=accepted))

    def _mapping(self, node: yaml.Node, path: Keys) -> dict[str, Any]:
        built: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
                continue
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            where = f"{self.document.file}:{line}:{column}"
            if not _is_text(key_node, inside=bool(path)):
                found = short(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                said = f"the key {found} is not text"
                self.errors.append(UsageError(said, where=where, accepted="text, in quotes if it looks like a number"))
                continue
            name = key_node.value
            inner = (*path, name)
            if name in built:
                first = "{}:{}".format(*self.document.keys[inner])
                said = f"the key {short(name)} appears twice in one mapping, first at {first}"
                self.errors.append(UsageError(said, where=where))
                continue
            self.document.keys[inner] = (line, column)
            built[name] = self.build(value_node, inner)
        self._merge(merged, built, path)
        return built

    def _merge(self, sources: list[yaml.Node], built: dict[str, Any], path: Keys) -> None:
        """`<<: *defaults` gives what the mapping itself does not say; the first source wins."""
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._fault(path, "`<<` merges something else than mappings", "a mapping, or a list of mappings")
                continue
            part = _Builder(Document(self.document.file), self.environment, self.merging + 1)
            part.count = self.count
            content = part.build(source, path)
            self.count = part.count
            self.errors += part.errors
            new = {name: value for name, value in (content or {}).items() if name not in built}
            built.update(new)
            _adopt(self.document.keys, part.document.keys, len(path), new)
            _adopt(self.document.values, part.document.values, len(path), new)
            _adopt(self.document.unset, part.document.unset, len(path), new)

    def _scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return self._text(text, path)
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        if kind == "int" and _INT.fullmatch(text) and len(text) < 100:
            number = int(text, 0 if text[:2] in {"0x", "0o"} else 10)
            if abs(number) < _LIMIT_INT:
                return number
        elif kind == "float" and _FLOAT.fullmatch(text):
            real = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            if math.isfinite(real):
                return real
            self._fault(path, f"found {short(text)}", "a finite number")
            return None
        if kind in {"int", "bool", "float"}:
            self._fault(path, f"found {short(text)}", "an integer of at most 64 bits" if kind == "int" else f"a {kind}")
        else:
            self._fault(path, f"the tag {node.tag!r} is not accepted", "plain text, numbers, true, false, null")
        return None

    def _text(self, text: str, path: Keys) -> str:
        missing = [name for name, default in ENVIRONMENT.findall(text) if not default and name not in self.environment]
        if missing:
            self.document.unset[path] = missing[0]
            return text
        text = ENVIRONMENT.sub(self._variable, text)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._fault(path, f"found {short(text)}", "text without lone surrogates")
        return text

    def _variable(self, match: re.Match[str]) -> str:
        found, default = self.environment.get(match[1], ""), match[2]
        return default.removeprefix(":-") if default and not found else found


def _adopt(ours: dict[Keys, _Seen], theirs: dict[Keys, _Seen], depth: int, names: Mapping[str, object]) -> None:
    ours.update({at: seen for at, seen in theirs.items() if len(at) > depth and at[depth] in names})


def unset_in(value: object) -> Iterator[str]:
    """Names of environment variables that a value still asks for."""
    if isinstance(value, str):
        yield from (name for name, default in ENVIRONMENT.findall(value) if not default)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from unset_in(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from unset_in(inner)


def unset(text: str) -> bool:
    """Whether a text still asks for an environment variable."""
    return next(unset_in(text), None) is not None

"""Workload `function`: calls any Python function; each call is an item."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from harness.errors import MeasurementError
from harness.functional_unit import FunctionalUnit, finite
from harness.options import Options
from harness.workload import Column, TrialContext, Window, Workload, WorkloadSpec


class FunctionOptions(Options):
    """Options of workload `function`."""

    call: str
    """The function that is measured: `package.module:function`, or a file's, `file.py:function`, relative to the
    suite's file, whose folder modules are looked for in first."""
    args: list[Any] = Field([])
    """Arguments by position, after what `setup` returned."""
    kwargs: dict[str, Any] = Field({})
    """Arguments by name."""
    setup: str | None = None
    """A function, named likewise, that is called once before anything is measured; what it returns, unless that is
    None, is the first argument of each call."""
    counts: Literal["calls", "returned"] = "calls"
    """How many units a call does: one, or as many as it returns, a number or something with a length."""

    @field_validator("call", "setup")
    @classmethod
    def _names_a_function(cls, text: str | None) -> str | None:
        if text is not None:
            module, _, name = text.rpartition(":")
            parts = name.split(".") + ([] if module.endswith(".py") else module.split("."))
            if not module or not all(part.isidentifier() for part in parts):
                raise ValueError(f"{text!r} names no function; accepted: package.module:function or file.py:function")
        return text


def check(options: FunctionOptions, folder: Path) -> Sequence[str]:
    """Why a function is not there; finds files and reads them, and runs none of them."""
    return [fault for named in (options.call, options.setup) if named and (fault := _missing(named, folder))]


def _missing(named: str, folder: Path) -> str:
    module, _, name = named.rpartition(":")
    if module.endswith(".py"):
        source = folder / module
        if not source.is_file():
            return f"there is no file {source}"
    else:
        spec = _find(module, folder)
        if spec is None:
            return f"there is no module {module!r}, in {folder} or installed"
        if spec.origin is None or not spec.origin.endswith(".py"):
            return ""  # an extension, or a namespace: known when it is imported
        source = Path(spec.origin)
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return f"{source} cannot be read: {error}"
    names = set(_defined(tree.body))
    if name.partition(".")[0] in names or names & {"*", "__getattr__"}:
        return ""
    return f"{source} defines no {name!r}"


def _find(module: str, folder: Path) -> ModuleSpec | None:
    """Where a module lies, without importing its packages, as `importlib.util.find_spec` would."""
    first, *others = module.split(".")
    spec = PathFinder.find_spec(first, [str(folder), *sys.path])
    if spec is None and (first in sys.builtin_module_names or first not in sys.modules):
        spec = importlib.util.find_spec(first)  # editable installations have finders of their own
    name = first
    for part in others:
        if spec is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations or ()))
    return spec


def _defined(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Names that a module binds; `*` where it takes over another's. Some that it binds in inner blocks only."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
            case _:
                nested = list(ast.walk(node))
                yield from (
                    each.id for each in nested if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
                )
                bound = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
                yield from _defined([each for each in nested if isinstance(each, bound)])


def resolve(named: str, folder: Path) -> Callable[..., Any]:
    """The function, its module imported; raises MeasurementError where there is none, and what the module raises."""
    module, _, name = named.rpartition(":")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if module.endswith(".py"):
        file = folder / module
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise MeasurementError(f"there is no file {file}")
        if file.stem not in sys.modules or getattr(sys.modules[file.stem], "__file__", None) != str(file):
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[file.stem] = loaded  # dataclasses and pickling look a module up by its name
            spec.loader.exec_module(loaded)
        found: Any = sys.modules[file.stem]
    else:
        found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise MeasurementError(f"{named} is {'nothing' if found is None else f'a {type(found).__name__}'}, no function")
    function: Callable[..., Any] = found
    return function


class FunctionCalls(Workload):
    """Calls a function again and again."""

    def __init__(self, options: FunctionOptions) -> None:
        self._options = options
        self._function: Callable[..., Any] | None = None
        self._first: tuple[Any, ...] = ()
        self._calls = 0

    def prepare(self, context: TrialContext) -> None:
        """Imports the function and sets up what it needs."""
        self._function = resolve(self._options.call, context.suite_folder)
        if self._options.setup is not None:
            made = resolve(self._options.setup, context.suite_folder)()
            self._first = () if made is None else (made,)

    def run(self, window: Window) -> None:
        """The calls of a window."""
        self._calls = 0
        super().run(window)

    def step(self, window: Window) -> None:
        """One call; what it raises ends the trial."""
        assert self._function is not None, "prepare() comes first"
        start_s = window.now_s()
        returned = self._function(*self._first, *self._options.args, **self._options.kwargs)
        end_s = window.now_s()
        item = str(self._calls)
        self._calls += 1
        units = self._units(returned)
        window.item(item, latency_s=end_s - start_s, units=units, start_s=start_s, end_s=end_s)

    def _units(self, returned: object) -> float:
        if self._options.counts == "calls":
            return 1.0
        number = finite(returned)
        if number is None and hasattr(returned, "__len__"):
            number = float(len(returned))
        elif number is None and hasattr(returned, "item"):
            number = finite(returned.item())  # a number of a framework's own type
        if number is None or number < 0:
            raise MeasurementError(
                f"{self._options.call} returned {returned!r:.60}",
                accepted="how many units it did, at least 0, or something with a length",
                hint="`counts: calls` counts each call as one",
            )
        return number

    def facts(self) -> Mapping[str, object]:
        """The file that the function is from."""
        code = getattr(self._function, "__code__", None)
        return {"file": code.co_filename, "line": code.co_firstlineno} if code is not None else {}


WORKLOAD: Final = WorkloadSpec(
    name="function",
    summary="any Python function: each call is an item",
    factory=FunctionCalls,
    columns=(
        Column("latency_s", "s", "duration of the call", higher_is_better=False),
        Column("units", "1", "units of work that the call did", higher_is_better=True),
    ),
    functional_units={"call": FunctionalUnit("items"), "unit": FunctionalUnit("units")},
    options=FunctionOptions,
    check=check,
)

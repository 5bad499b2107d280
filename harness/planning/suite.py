"""A suite: the YAML file that says what is measured, on what, how often, and what a gate judges.

Keys are strict. Options of plugins are kept as written; planning validates them with the plugin's own model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from harness.errors import UsageError
from harness.functional_unit import Where
from harness.options import Duration, Share, Size
from harness.planning import located_yaml as suite_yaml
from harness.planning.faults import faults, real_path
from harness.planning.located_yaml import Document, Keys, raise_all, short
from harness.planning.secrecy import refuse_secrets

FREE_KEYS: Final = frozenset({"options", "matrix", "include", "exclude"})
"""Keys of a case whose values belong to the workload."""
CHOICE_KEYS: Final = frozenset({"backend", "executor", "meters", "scorers"})
"""Keys that name plugins."""
_TEXT_KEYS: Final = frozenset({"suite", "cases", "description", "workload", "name"})

LIMIT_TRIALS: Final = 10_000


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"found {value}; accepted: a number")  # noqa: TRY004 - pydantic reports ValueError only
    return value


def _condition(text: str) -> str:
    try:
        Where.parse("", text)
    except UsageError as error:
        raise ValueError(f"{text!r} is not a condition; accepted: {error.accepted}") from None
    return text


Whole = Annotated[int, BeforeValidator(_no_bool)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=LIMIT_TRIALS)]
Seconds = Annotated[Duration, Field(le=31_536_000.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)]
Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A mapping of a suite: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Named:
    """A plugin's name with its options as written.

    Attributes:
        name: of a backend, meter, scorer or executor.
        options: not yet validated.
        keys: where the options stand, from the place of the choice.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    keys: Keys = ()


def _named(value: object) -> Named:
    if isinstance(value, str):
        return Named(value)
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return Named(value["name"], {key: option for key, option in value.items() if key != "name"})
    raise ValueError(f"found {short(value)}; accepted: a name, or a mapping with 'name' and its options")


def _listed(value: object) -> Named:
    if isinstance(value, str):
        return Named(value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, options),) = value.items()
        if options is None or isinstance(options, dict):
            return Named(name, options or {}, (name,))
    raise ValueError(f"found {short(value)}; accepted: a name, or one name with a mapping of its options")


NamedChoice = Annotated[Named, PlainValidator(_named), WithJsonSchema({})]
ListedChoice = Annotated[Named, PlainValidator(_listed), WithJsonSchema({})]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How long is measured: `count` windows a trial, each of at least so many seconds and iterations."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    count: Count = 2
    min_seconds: Seconds = 30.0
    min_iterations: Count = 1
    max_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        if self.max_seconds is not None and self.max_seconds < self.min_seconds:
            raise ValueError(f"max_seconds {self.max_seconds:g} is less than min_seconds {self.min_seconds:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpRule:
    """How long is warmed up: until iterations vary by less than `tolerance`, within the caps."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    max_seconds: Seconds = 30.0
    max_iterations: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 50
    min_iterations: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 5
    tolerance: Share = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a trial is ended: after `trial_s` in all, `silence_s` without a word, or above `memory_bytes`."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    trial_s: Annotated[Seconds, Field(validation_alias="trial", gt=0)] = 3600.0
    silence_s: Annotated[Seconds, Field(validation_alias="silence", gt=0)] = 600.0
    memory_bytes: Annotated[Size | None, Field(validation_alias="memory")] = None


class Unit(Strict):
    """A functional unit: a column to sum, and conditions on columns."""

    sum: str
    where: dict[str, Annotated[str, AfterValidator(_condition)]] = {}


class Requires(Strict):
    """What a machine must have; unmet, the points are skipped.

    `memory` is that of the smallest GPU where GPUs are required, else the host's. `accelerator` is part of a GPU's
    name, in any case of letters. `labels` and `resources` are a cluster's own words; this machine alone has none.
    """

    gpu: Annotated[int, BeforeValidator(_no_bool)] | None = Field(
        None, ge=0, validation_alias=AliasChoices("gpu", "gpus")
    )
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    cpu: Annotated[int, BeforeValidator(_no_bool)] | None = Field(
        None, ge=1, validation_alias=AliasChoices("cpu", "cpus")
    )
    memory: Size | None = None
    labels: dict[str, str] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None


Values = Annotated[list[Any], Field(min_length=1)]


class Case(Strict):
    """One workload with its matrix of options. Values of the matrix replace options of the same name."""

    workload: str
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    requires: Requires = Requires()
    options: dict[str, Any] = {}
    backend: NamedChoice | None = None
    meters: list[ListedChoice] | None = None
    scorers: list[ListedChoice] | None = None
    matrix: dict[str, Values] = {}
    include: list[dict[str, Any]] = []
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = []
    functional_units: dict[Name, Unit] = {}
    trials: Count | None = None
    windows: Windows | None = None


class GateRule(Strict):
    """One rule of the gate: a metric, and how much worse or how low or high it may be."""

    metric: str
    per: str | None = None
    worse_by_at_most: Share | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    direction: Literal["higher_is_better", "lower_is_better"] | None = None

    @model_validator(mode="after")
    def _judges(self) -> GateRule:
        if self.worse_by_at_most is None and self.at_least is None and self.at_most is None:
            raise ValueError("the rule judges nothing; accepted: worse_by_at_most, at_least or at_most")
        return self


class Suite(Strict):
    """A suite file, read; `document` knows where everything stood."""

    suite: Name
    description: str = ""
    backend: NamedChoice = Named("host")
    meters: list[ListedChoice] = [Named("auto")]
    scorers: list[ListedChoice] = []
    trials: Count = 3
    seed: Annotated[int, BeforeValidator(_no_bool), Field(ge=0)] = 0
    windows: Windows = Windows()
    warm_up: WarmUpRule = WarmUpRule()
    idle_seconds: Seconds = 0.0
    limits: Limits = Limits()
    cases: Annotated[list[Case], Field(min_length=1)]
    gate: list[GateRule] = []
    calibration: Literal["required", "optional"] = "required"
    power_cap: Literal["expected", "unexpected"] = "unexpected"
    executor: NamedChoice | None = None

    _document: Document = PrivateAttr(default_factory=lambda: Document("-"))

    @property
    def document(self) -> Document:
        """The parsed file."""
        return self._document

    @property
    def file(self) -> str:
        """The file as the user named it."""
        return self._document.file


def load(path: str | Path, environment: Mapping[str, str] | None = None) -> Suite:
    """Reads a suite; raises UsageError with every fault found in it."""
    return _suite(suite_yaml.read(Path(path), os.environ if environment is None else environment))


def load_all(paths: Iterable[str | Path], environment: Mapping[str, str] | None = None) -> list[Suite]:
    """Reads several suites; raises UsageError with every fault of all of them."""
    suites: list[Suite] = []
    errors: list[UsageError] = []
    for path in paths:
        try:
            suites.append(load(path, environment))
        except suite_yaml.SuiteError as error:
            errors += error.errors
        except UsageError as error:
            errors.append(error)
    if errors:
        raise_all(errors)
    return suites


def loads(text: str, file: str = "<text>", environment: Mapping[str, str] | None = None) -> Suite:
    """A suite from text; raises UsageError with every fault found in it."""
    return _suite(suite_yaml.parse(text, file, os.environ if environment is None else environment))


def _suite(document: Document) -> Suite:
    if not isinstance(document.data, dict):
        raise document.error((), f"found {short(document.data)}", accepted="a mapping with 'suite' and 'cases'")
    if secrets := refuse_secrets(document):
        raise_all(secrets)
    try:
        suite = Suite.model_validate(_without_unset(document))
    except ValidationError as error:
        raise_all(faults(error, Suite, document, lambda loc: real_path(document.data, loc)))
    suite._document = document  # noqa: SLF001 - pydantic's way to carry what is no field
    return suite


def _without_unset(document: Document) -> dict[str, Any]:
    """The data without the typed settings that name an unset variable: their points are skipped, not wrong."""
    data = dict(document.data)
    cases = data.get("cases")
    if isinstance(cases, list):
        data["cases"] = [dict(case) if isinstance(case, dict) else case for case in cases]
    for path in document.unset:
        owner, keys = (data, path) if path[0] != "cases" else (data["cases"], path[1:])
        if isinstance(owner, list) and len(keys) > 1 and isinstance(keys[0], int):
            owner, keys = owner[keys[0]], keys[1:]
        if isinstance(owner, dict) and keys[0] not in FREE_KEYS | CHOICE_KEYS | _TEXT_KEYS:
            owner.pop(keys[0], None)
    return data

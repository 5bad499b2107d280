"""A suite: the YAML file that says what is measured, on what, how often, and what a gate judges.

Keys are strict. Options of plugins are kept as written; planning validates them with the plugin's own model.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from harness.errors import UsageError
from harness.functional_unit import Where
from harness.options import Options, Share, Size
from harness.place import Place
from harness.planning import located_yaml as suite_yaml
from harness.planning.faults import faults, real_path
from harness.planning.located_yaml import Document, Keys, raise_all, short
from harness.planning.secrecy import refuse_secrets
from harness.planning.trial_rules import (
    CoolDown,
    ForeignLoad,
    Limits,
    Seconds,
    Trials,
    WarmUpRule,
    Windows,
    no_bool,
)
from harness.records.metric import never_gated
from harness.records.questions import KEY as QUESTIONS
from harness.records.questions import Question

FREE_KEYS: Final = frozenset({"options", "matrix", "include", "exclude"})
"""Keys of a case whose values belong to the workload."""
CHOICE_KEYS: Final = frozenset({"backend", "executor", "meters", "scorers"})
"""Keys that name plugins."""
_TEXT_KEYS: Final = frozenset({"suite", "cases", "description", "workload", "name"})


def _condition(text: str) -> str:
    try:
        Where.parse("", text)
    except UsageError as error:
        raise ValueError(f"{text!r} is not a condition; accepted: {error.accepted}") from None
    return text


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)]
Number = Annotated[float, BeforeValidator(no_bool), Field(allow_inf_nan=False)]


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

    def as_written(self) -> str | dict[str, Any]:
        """As a suite writes it: the name alone where there are no options."""
        if not self.options:
            return self.name
        return {self.name: dict(self.options)} if self.keys else {"name": self.name, **self.options}


def as_named(value: object) -> Named:
    """A name, or a mapping with `name` and its options; raises ValueError for anything else."""
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


_NAME_OR_MAPPING: Final = {"anyOf": [{"type": "string"}, {"type": "object"}]}
NamedChoice = Annotated[Named, PlainValidator(as_named), WithJsonSchema(_NAME_OR_MAPPING)]
ListedChoice = Annotated[Named, PlainValidator(_listed), WithJsonSchema(_NAME_OR_MAPPING)]


class Unit(Options):
    """A functional unit: a column to sum, and conditions on columns.

    Attributes:
        sum: column of the work items to sum, or `items` to count them.
        where: conditions by column, such as `ttft_s: "<= 1.0"`; only items that meet all of them count.
        span: span whose energy and time it is divided by, where the workload marks one: `steady`. The whole window
            if empty.
    """

    sum: str
    where: dict[str, Annotated[str, AfterValidator(_condition)]] = Field({})
    span: str = ""


class Requires(Options):
    """What a machine must have; unmet, the points are skipped.

    Attributes:
        gpu: number of GPUs; `gpus` is the same key.
        accelerator: part of a GPU's product name, in any case of letters: `H100`.
        cpu: number of logical processors; `cpus` is the same key.
        memory: memory of the smallest GPU where GPUs are required, else of the host.
        labels: label of a cluster's node -> value that it must have; a single machine has none.
        resources: resource of a cluster -> amount that a trial takes; a single machine has none.
    """

    gpu: Annotated[int, BeforeValidator(no_bool)] | None = Field(
        None, ge=0, validation_alias=AliasChoices("gpu", "gpus")
    )
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    cpu: Annotated[int, BeforeValidator(no_bool)] | None = Field(
        None, ge=1, validation_alias=AliasChoices("cpu", "cpus")
    )
    memory: Size | None = None
    labels: dict[str, str] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None


Values = Annotated[list[Any], Field(min_length=1)]


class Case(Options):
    """One workload with its matrix of options.

    Attributes:
        workload: name of the workload.
        name: name of the case, for people; the workload's name if not set.
        requires: what the machine must have; points that lack it are skipped with the reason.
        options: options of the workload, for every point of the case.
        backend: backend of this case, in place of the suite's.
        meters: meters of this case, in place of the suite's.
        scorers: scorers of this case, in place of the suite's.
        matrix: option -> list of values; every combination is a point, and a value here replaces that in `options`. The
            key `backend` takes backends, each as the key `backend` of a case does, to vary where the work runs.
        include: options that extend the combinations with the same matrix values, or make a point of their own.
        exclude: values of matrix options; combinations that have all values of an entry are left out.
        functional_units: name -> what is counted; the workload's own units if not set.
        trials: fresh processes a point, or how well to know it, in place of the suite's.
        windows: keys that replace those of the suite's `windows`.
    """

    workload: str
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    requires: Requires = Requires()
    options: dict[str, Any] = Field({})
    backend: NamedChoice | None = None
    meters: list[ListedChoice] | None = None
    scorers: list[ListedChoice] | None = None
    matrix: dict[str, Values] = Field({})
    include: list[dict[str, Any]] = Field([])
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = Field([])
    functional_units: dict[Name, Unit] = Field({})
    trials: Trials | None = None
    windows: Windows | None = None


class GateRule(Options):
    """One rule of the gate: a metric, and how much worse or how low or high it may be.

    Attributes:
        metric: a reading (`energy_j`), or a column with a statistic (`ttft_s.p95`).
        per: functional unit that the metric is divided by; not divided if not set.
        worse_by_at_most: how much worse than the base the head may be; a larger change for the worse fails the gate.
        at_least: limit on the head alone, in the metric's own unit.
        at_most: limit on the head alone, in the metric's own unit.
        direction: which change is better; if not set, what the column's plugin says, else costs shall fall, rates rise.
    """

    metric: str
    per: str | None = None
    worse_by_at_most: Share | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    direction: Literal["higher_is_better", "lower_is_better"] | None = None

    @field_validator("metric")
    @classmethod
    def _gated(cls, metric: str) -> str:
        if reason := never_gated(metric):
            raise ValueError(reason)
        return metric

    @model_validator(mode="after")
    def _judges(self) -> GateRule:
        if self.worse_by_at_most is None and self.at_least is None and self.at_most is None:
            raise ValueError("the rule judges nothing; accepted: worse_by_at_most, at_least or at_most")
        return self


class Suite(Options):
    """A suite file, read; `document` knows where everything stood.

    Attributes:
        suite: name of the suite; it names its runs.
        description: what the suite is for, for people.
        backend: where the work runs: the name of a backend, or a mapping with `name` and its options.
        meters: names of meters, each alone or with a mapping of its options; `auto` tries every meter marked so.
        scorers: names of scorers, each alone or with a mapping of its options; they add quality columns.
        place: where the work runs: a site, a cloud's region, a country or zone, or own values; impact meters take from
            it what their own options do not give. Where meters are listed and none of them takes a place, every
            installed impact meter that does, and needs no further option, is asked for.
        trials: how often each point is measured, each time in a fresh process: a number, or `at_least`, `until` and
            `at_most` to stop each point once its result is known that well.
        seed: decides the order of trials and the seed that each trial gives its workload.
        windows: how long is measured.
        warm_up: how long is warmed up before.
        cool_down: how long each trial rests before its warm-up, until devices are cool; it does not if not set.
        idle_seconds: how long idle power is measured in every trial, before the workload is loaded and once more after,
            so that a trial takes twice as much longer; 30 s or more for a good bound, 0 for not.
        limits: when a trial is ended as failed.
        cases: the workloads with their options.
        gate: rules that `harness gate` judges by.
        questions: which candidate costs least along an axis, and where that turns; the report answers each in a
            sentence.
        calibration: whether a gate passes only where a calibration of the same runner vouches for it.
        power_cap: whether clocks held down by a power limit are expected; unexpected, they fail the trial.
        foreign_load: how much other processes may work beside a trial, and whether their share of energy is taken off.
        executor: what runs the trials: a name, or a mapping with `name` and its options; `local` if not set.
    """

    suite: Name
    description: str = ""
    backend: NamedChoice = Named("host")
    meters: list[ListedChoice] = Field([Named("auto")])
    scorers: list[ListedChoice] = Field([])
    place: str | Place | None = None
    trials: Trials = 3
    seed: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 0
    windows: Windows = Windows()
    warm_up: WarmUpRule = WarmUpRule()
    cool_down: CoolDown | None = None
    idle_seconds: Seconds = 0.0
    limits: Limits = Limits()
    cases: Annotated[list[Case], Field(min_length=1)]
    gate: list[GateRule] = Field([])
    questions: list[Question] = Field([])
    calibration: Literal["required", "optional"] = "required"
    power_cap: Literal["expected", "unexpected"] = "unexpected"
    foreign_load: ForeignLoad = ForeignLoad()
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


def readable(path: str | Path, environment: Mapping[str, str] | None = None) -> Suite | None:
    """A faulty suite without the settings that are wrong, to look for what else is; None where its cases are wrong."""
    try:
        document = suite_yaml.read(Path(path), os.environ if environment is None else environment)
        data = _without_unset(document) if isinstance(document.data, dict) else {}
        try:
            Suite.model_validate(data)
        except ValidationError as error:
            wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
            data = {key: value for key, value in data.items() if key not in wrong}
        suite = Suite.model_validate(data)
    except (UsageError, ValidationError):
        return None
    suite._document = document  # noqa: SLF001 - pydantic's way to carry what is no field
    return suite


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


def missing_variable(suite: Suite, number: int, case: Case) -> str:
    """The first unset environment variable that all points of a case need; empty if there is none."""
    for path, name in suite.document.unset.items():
        if path[0] != "cases":
            overridden = path[0] in CHOICE_KEYS and getattr(case, str(path[0]), None) is not None
            concerns = path[0] not in {"description", QUESTIONS} and not overridden
        else:
            concerns = path[1] == number and path[2] not in FREE_KEYS
        if concerns:
            return name
    return ""


def windows_of(suite: Suite, number: int, case: Case) -> Windows:
    """The suite's windows, with what the case says over them."""
    if case.windows is None:
        return suite.windows
    said = suite.document.at(("cases", number, "windows"))
    try:
        return dataclasses.replace(suite.windows, **{key: getattr(case.windows, key) for key in said})
    except ValueError as error:
        raise suite.document.error(("cases", number, "windows"), str(error)) from None

"""Which executor runs the points of each suite: the command line's, else the suite's, else `local`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from harness.discovery.guard import GuardedExecutor, made, naming, title
from harness.discovery.registry import Registry
from harness.errors import MeasurementError, UsageError
from harness.executor import Executor, ExecutorSpec
from harness.planning.faults import faults, real_path, refusals
from harness.planning.located_yaml import Keys, parse, raise_all, unset_in
from harness.planning.suite import Named, Suite

LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An executor and its options, validated, as JSON values."""

    name: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)

    def spec(self, registry: Registry) -> ExecutorSpec:
        """The plugin spec; raises UsageError where no plugin has that name."""
        spec: ExecutorSpec = registry.get("executor", self.name).spec
        return spec

    def make(self, registry: Registry) -> Executor:
        """An executor whose faults name its plugin; raises PluginError where it makes something else."""
        offer = registry.get("executor", self.name)
        plugin = title("executor", self.name, offer)
        with naming(plugin, "options"):
            options = offer.spec.options.model_validate(dict(self.options))
        return GuardedExecutor(made(offer, "executor", options, Executor), plugin)

    def to_json(self) -> dict[str, Any]:
        """As `run.json` keeps it."""
        return {"name": self.name, "options": dict(self.options)}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says of executors.

    Attributes:
        name: of `--executor`; empty for what each suite says.
        settings: of `--executor-option`: `KEY=VALUE`, over what a suite says of the same executor.
        jobs: of `--jobs`, an option of the executor `local`.
        wait_s: of `--wait`, likewise; None if it was not given.
    """

    name: str = ""
    settings: tuple[str, ...] = ()
    jobs: int = 1
    wait_s: float | None = None

    @property
    def said(self) -> list[str]:
        """The options as the user wrote them."""
        return [
            *(f"--executor-option {text}" for text in self.settings),
            *([f"--jobs {self.jobs}"] if self.jobs > 1 else []),
            *([f"--wait {self.wait_s:g}s"] if self.wait_s is not None else []),
        ]

    def options(self) -> dict[str, Any]:
        """The options as values; raises UsageError."""
        found: dict[str, Any] = {"jobs": self.jobs} if self.jobs > 1 else {}
        found |= {"wait": self.wait_s} if self.wait_s is not None else {}
        for text in self.settings:
            where = f"--executor-option {text}"
            key, equals, value = text.partition("=")
            if not (key and equals):
                raise UsageError(f"{text!r} does not set an option", where=where, accepted="KEY=VALUE, such as jobs=4")
            found[key.strip()] = parse(value or "''", where, {}).data
        return found

    def over(self, suites: Sequence[str], known: Mapping[str, Chosen], registry: Registry) -> dict[str, Chosen]:
        """The executors of a run to be resumed: those it had, unless the command line says otherwise."""
        found = {suite: known.get(suite, Chosen()) for suite in dict.fromkeys(suites)}
        if not (self.name or self.said):
            return found
        return {
            suite: validated(
                self.name or had.name,
                {**(had.options if self.name in ("", had.name) else {}), **self.options()},
                registry,
                self.said,
            )
            for suite, had in found.items()
        }


def choose(suites: Sequence[Suite], registry: Registry, wish: Wish | None = None) -> dict[str, Chosen]:
    """Suite's name -> its executor.

    Args:
        suites: as loaded.
        registry: the plugins.
        wish: what the command line says.

    Raises:
        UsageError: an executor or an option that is not known or not accepted.
    """
    wish = wish or Wish()
    over = wish.options()
    found = {}
    for suite in suites:
        own = suite.executor
        chosen = wish.name or (own.name if own else LOCAL)
        written = over
        if own is not None and chosen == own.name:
            if next(unset_in([own.name, dict(own.options)]), None):
                found[suite.suite] = Chosen()  # none of its points is run
                continue
            written = _of_suite(suite, own, registry) | over
        found[suite.suite] = validated(chosen, written, registry, wish.said)
    return found


def validated(name: str, options: Mapping[str, Any], registry: Registry, said: Sequence[str] = ()) -> Chosen:
    """An executor with checked options.

    Args:
        name: of the executor.
        options: as written.
        registry: the plugins.
        said: what the user wrote for them, for the message.
    """
    spec: ExecutorSpec = registry.get("executor", name).spec
    try:
        valid = spec.options.model_validate(dict(options))
    except ValidationError as error:
        where = " ".join(said) or f"executor {name}"
        raise next(refusals(error, spec, options, where)) from None
    return Chosen(name, valid.model_dump(mode="json", by_alias=True))


def stored(raw: object, registry: Registry) -> dict[str, Chosen]:
    """Suite's name -> its executor, as `run.json` of an earlier run keeps it."""
    if not isinstance(raw, Mapping):
        return {}
    try:
        known = [(str(suite), str(each["name"]), dict(each["options"])) for suite, each in raw.items()]
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"the run's description names no executor: {error}") from error
    return {suite: validated(name, options, registry) for suite, name, options in known}


def _of_suite(suite: Suite, named: Named, registry: Registry) -> dict[str, Any]:
    """The options that a suite gives its executor; raises UsageError at their place in the file."""
    document = suite.document
    try:
        spec: ExecutorSpec = registry.get("executor", named.name).spec
    except UsageError as error:
        raise document.error(("executor",), error.message, accepted=error.accepted, hint=error.hint) from None
    base: Keys = ("executor", *named.keys)
    try:
        spec.options.model_validate(dict(named.options))
    except ValidationError as error:
        raise_all(faults(error, spec.options, document, lambda loc: base + real_path(document.at(base), loc)))
    return dict(named.options)

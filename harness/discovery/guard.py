"""Calls into plugins, held to their types: what comes out of one names it, and nothing of a wrong kind gets in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from harness.backend import Device
from harness.discovery.registry import Offer
from harness.errors import HarnessError, PluginError
from harness.executor import Executor, Job, Listener, Outcome
from harness.quantity import Unavailable
from harness.sample import Scope

_T = TypeVar("_T")


def short(value: object) -> str:
    """A value as an error message shows it."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a plugin's own __repr__
        text = "a value without a repr"
    return text if len(text) <= 60 else f"{text[:57]}..."


def title(kind: str, name: str, offer: Offer) -> str:
    """A plugin spec as messages name it."""
    return f"{kind} {name!r} of {offer.plugin.distribution} {offer.plugin.version}".rstrip()


@contextmanager
def naming(plugin: str, doing: str) -> Iterator[None]:
    """Turns what a plugin raises into a PluginError that names it; errors meant for people pass as they are."""
    try:
        yield
    except (HarnessError, MemoryError):
        raise
    except SystemExit as error:
        raise PluginError(f"{plugin}, {doing}: it tried to exit with code {error.code}") from error
    except Exception as error:
        raise PluginError(f"{plugin}, {doing}: {type(error).__name__}: {error}") from error


def expect(value: _T, kind: Any, plugin: str, doing: str) -> _T:
    """The value; PluginError if it is not of the type that its role requires."""
    if not isinstance(value, kind):
        raise PluginError(f"{plugin}, {doing}: it returned {short(value)}", accepted=f"a {kind.__name__}")
    return value


def json_mapping(value: Mapping[str, object], plugin: str, doing: str) -> dict[str, Any]:
    """A mapping that can be kept in a record."""
    with naming(plugin, doing):
        found = dict(expect(value, Mapping, plugin, doing))
        to_jsonable_python(found)
    return found


def devices(value: Iterable[Device], plugin: str, doing: str) -> tuple[Device, ...]:
    """Devices, as a backend or workload lists them."""
    with naming(plugin, doing):
        return tuple(expect(each, Device, plugin, doing) for each in value)


def made(offer: Offer, kind: str, options: Any, role: Any) -> Any:
    """What the factory of a plugin spec makes of validated options."""
    plugin = title(kind, offer.spec.name, offer)
    with naming(plugin, "factory"):
        return expect(offer.spec.factory(options), role, plugin, "factory")


def sorted_scopes(name: str, found: object) -> tuple[dict[str, Scope], dict[str, str]]:
    """What a meter said of its scopes: those that it reads, and why it does not read the others."""
    if not isinstance(found, Mapping):
        raise TypeError(f"meter {name!r} returned {found!r:.60}; accepted: a mapping of scopes")
    read = {str(scope): said for scope, said in found.items() if isinstance(said, Scope)}
    missing = {
        str(scope): said.reason
        if isinstance(said, Unavailable)
        else f"meter {name!r} returned {said!r:.60}, which is not a Scope"
        for scope, said in found.items()
        if not isinstance(said, Scope)
    }
    return read, missing


class GuardedExecutor(Executor):
    """An executor whose faults fail a trial and never the driver.

    Args:
        executor: the plugin's.
        plugin: its title.
    """

    def __init__(self, executor: Executor, plugin: str) -> None:
        self._executor = executor
        self._plugin = plugin

    @property
    def at_once(self) -> int:
        """As the executor says; 1 where it says nothing of use."""
        with naming(self._plugin, "at_once"):
            return max(1, expect(self._executor.at_once, int, self._plugin, "at_once"))

    def recover(self, folder: Path, listener: Listener) -> None:
        """Told of a run's folder; PluginError names the plugin that failed at it."""
        with naming(self._plugin, "recover"):
            self._executor.recover(folder, listener)

    def begin(self, jobs: Iterable[Job]) -> None:
        """Told of every trial to come; PluginError names the plugin that failed at it."""
        with naming(self._plugin, "begin"):
            self._executor.begin(jobs)

    def run(self, job: Job, listener: Listener) -> Outcome:
        """Runs one trial; what the executor raises or gives besides an Outcome is the trial's failure."""
        try:
            with naming(self._plugin, "run"):
                return expect(self._executor.run(job, listener), Outcome, self._plugin, "run")
        except PluginError as error:
            return Outcome(ok=False, reason=str(error))

    def close(self) -> None:
        """Ends whatever is still running; what that raises is said by name."""
        with naming(self._plugin, "close"):
            self._executor.close()

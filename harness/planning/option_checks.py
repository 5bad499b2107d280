"""Options as a plugin's model has them, what a workload finds wrong with its own, and where their paths lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.discovery.registry import Registry
from harness.errors import PluginError, UsageError
from harness.planning.faults import Place, faults
from harness.planning.located_yaml import Document, unset_in
from harness.planning.named_offers import known_offers
from harness.planning.point import Choice, canonical
from harness.suite_paths import SUITE_FOLDER, OptionFault
from harness.workload import WorkloadSpec


def checked(
    spec: WorkloadSpec, plugin: str, raw: Mapping[str, Any], suite_file: str, *, here: bool
) -> tuple[dict[str, Any], list[OptionFault]]:
    """Valid options with the paths in them made absolute, and what the workload's `check` finds wrong.

    Args:
        spec: of the workload; one with a `check`.
        plugin: that offers it.
        raw: the options as the suite writes them; their model takes them.
        suite_file: whose folder relative paths start from.
        here: whether the work is done on this machine: the files of others cannot be looked for.

    Raises:
        PluginError: the check itself failed.
    """
    assert spec.check is not None
    try:
        folder = Path(suite_file).absolute().parent
        options = spec.options.model_validate(dict(raw), context={SUITE_FOLDER: folder})
        said = list(spec.check(options, folder)) if here else []
        found = [OptionFault("", each) if isinstance(each, str) else each for each in said]
        return dict(options.model_dump(mode="json", by_alias=True)), found
    except Exception as error:
        message = f"the check of workload {spec.name!r} failed: {type(error).__name__}: {error}"
        raise PluginError(message, where=plugin) from error


def located(meters: Sequence[Choice], suite_file: str, registry: Registry) -> tuple[Choice, ...]:
    """Meters with the paths in their options made absolute: for what is run, not for a point's identity.

    Args:
        meters: with valid options.
        suite_file: whose folder relative paths start from.
        registry: the plugins.

    Raises:
        UsageError: a file does not exist.
    """
    context = {SUITE_FOLDER: Path(suite_file).absolute().parent}
    found = []
    for choice in meters:
        (offer,) = known_offers(registry, "meter", [choice]) or (None,)
        options = choice.options
        if offer is not None and options:
            try:
                valid = offer.spec.options.model_validate(dict(options), context=context)
            except ValidationError as error:  # of files alone: the rest was found valid where it is written
                first = error.errors()[0]
                where = ".".join(map(str, (choice.name, *first["loc"])))
                message, _, accepted = first["msg"].removeprefix("Value error, ").partition("; accepted: ")
                raise UsageError(f"{where}: {message}", accepted=accepted) from None
            options = valid.model_dump(mode="json", by_alias=True)
        found.append(replace(choice, options=options))
    return tuple(found)


def validated(
    document: Document, model: type[BaseModel], plugin: str, raw: Mapping[str, Any], place: Place
) -> tuple[dict[str, Any] | None, list[UsageError]]:
    """Options as a plugin's model has them, and what is wrong with them, where they stand.

    Args:
        document: the suite's.
        model: of the options.
        plugin: whose model it is.
        raw: the options as written.
        place: where an option stands in the suite.

    Returns:
        The options; as written where an environment variable is not set; None if they are wrong. And the faults.

    Raises:
        PluginError: the model is broken.
    """
    open_keys = {key for key, value in raw.items() if next(unset_in(value), None)} if document.unset else set()
    try:
        valid = model.model_validate(dict(raw))
        if open_keys:
            return dict(raw), []
        options: dict[str, Any] = valid.model_dump(mode="json", by_alias=True)
    except ValidationError as error:
        wrong = faults(error, model, document, place, leave_out=open_keys)
        return (dict(raw) if open_keys and not wrong else None), wrong
    except Exception as error:
        raise PluginError(
            f"the option model {model.__name__} failed: {type(error).__name__}: {error}", where=plugin
        ) from error
    try:
        canonical(options)
    except ValueError:
        return None, [document.error(place(()), "an option is not finite", accepted="finite numbers")]
    return options, []

"""`harness export`: what is heavy is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.commands.console import Only, echo, loaded_registry
from harness.errors import HarnessError, PluginError, UsageError

if TYPE_CHECKING:
    from harness.discovery.registry import Offer
    from harness.records.summary import RunReport

_ACCEPTED: Final = "NAME=VALUE"
_OF_PLUGIN: Final = ("boamps", "codecarbon", "mlflow", "mlperf-power", "otlp", "pushgateway", "wandb")
"""What joule-harness-exports adds, for the message where it is not installed."""


def export(
    run: Annotated[str, typer.Argument(help="Run folder, or its URL.", show_default=False)],
    target: Annotated[str, typer.Argument(help="File to write, or where the format sends to.", show_default=False)],
    *,
    form: Annotated[
        str,
        typer.Option(
            "--to", metavar="NAME", help="Format or service; `harness plugins` lists them.", show_default=False
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Option of the format; `harness plugins NAME` lists them.",
            show_default=False,
        ),
    ] = None,
    only: Only = None,
) -> None:  # fmt: skip
    """Writes a run's results for another tool, or sends them to a service."""
    from harness.records.files import write_output
    from harness.records.summary import load
    from harness.session.loaded import LoadedRun
    from harness.storing.places import run_folder

    registry = loaded_registry()
    registry.expected |= {("export", name): "pip install joule-harness-exports" for name in _OF_PLUGIN}
    offer = registry.get("export", form)
    options = _options(offer, settings or ())
    file = None if offer.spec.address else Path(target)
    if file is not None and not file.absolute().parent.is_dir():
        raise UsageError("there is no such folder", where=str(file.parent), accepted="a folder that exists")
    done = _call(offer, LoadedRun(_only(load(run_folder(run)), only or ())), target, options)
    for each in done.left_out:
        echo(f"left out: {each}", err=True)
    if file is not None:
        write_output(file, done.content.encode())
        echo(f"exported: {file}")
    else:
        echo(f"exported: {done.sent}")


def _options(offer: Offer, settings: Sequence[str]) -> Any:
    """The options that `--set` gives, as the format's model has them."""
    from pydantic import ValidationError

    from harness.planning.faults import refusals
    from harness.planning.located_yaml import parse

    given: dict[str, Any] = {}
    for text in settings:
        name, equals, right = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{text!r} does not set an option", where="--set", accepted=_ACCEPTED)
        values = parse(f"[{right}\n]", f"--set {text}", {}).data
        if not isinstance(values, list) or len(values) != 1:
            accepted = f"{name.strip()}=VALUE; quotes around a text with a comma, [A, B] for a list"
            raise UsageError(f"{right!r} is not one value", where="--set", accepted=accepted)
        given[name.strip()] = values[0]
    try:
        return offer.spec.options.model_validate(given)
    except ValidationError as error:
        raise next(iter(refusals(error, offer.spec, given, f"--set, {offer.spec.name}"))) from None


def _call(offer: Offer, run: Any, target: str, options: Any) -> Any:
    """Exports, and holds the plugin to what it says it does."""
    from harness.hookspecs import Exported

    try:
        done = offer.spec.load()(run, target, options)
    except (HarnessError, OSError):
        raise
    except Exception as error:
        message = f"export {offer.spec.name!r} failed: {type(error).__name__}: {error}"
        raise PluginError(message, where=str(offer.plugin)) from error
    if not isinstance(done, Exported) or (done.content is None) is not bool(offer.spec.address):
        raise PluginError(
            f"export {offer.spec.name!r} returned {done!r:.60}",
            where=str(offer.plugin),
            accepted="an Exported, with content where its target is a file",
        )
    return done


def _only(report: RunReport, patterns: Sequence[str]) -> RunReport:
    """The run with the points whose label fits a pattern alone; whole where there is no pattern."""
    from dataclasses import replace

    from harness.planning.selection import fits

    for pattern in patterns:
        if not any(fits(point.label, pattern) for point in report.points):
            accepted = "; ".join(point.label for point in report.points)
            raise UsageError(f"--only {pattern!r} fits no point with a record", accepted=accepted)
    if not patterns:
        return report

    def kept(label: str) -> bool:
        return any(fits(label, pattern) for pattern in patterns)

    return replace(
        report,
        points=tuple(point for point in report.points if kept(point.label)),
        skipped=tuple(each for each in report.skipped if kept(each[0])),
        failures=tuple(each for each in report.failures if kept(each.where.rpartition(", trial ")[0] or each.where)),
    )

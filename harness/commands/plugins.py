"""`harness plugins`: what is installed, what works here, and which conformance checks pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.commands.console import AsJson, echo, loaded_registry
from harness.commands.streams import captured
from harness.errors import ExitCode

if TYPE_CHECKING:
    from harness.discovery.registry import Registry

KINDS_SHOWN: Final = ("workload", "backend", "meter", "scorer", "executor", "command", "export")


def plugins(
    name: Annotated[
        str | None, typer.Argument(help="Show this one with its options, columns and units.", show_default=False)
    ] = None,
    *,
    as_json: AsJson = False,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Ask each backend and meter, with default options, if it works.")
    ] = True,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Run the conformance checks of a name or a distribution.", show_default=False
        ),
    ] = None,
) -> None:
    """Lists what the installed plugins add and what works here, and plugins that do not load."""
    registry = loaded_registry()
    if check is not None:
        if name is not None:
            raise typer.BadParameter("NAME and --check are mutually exclusive")
        said, code = checked(registry, check, as_json=as_json)
        echo("\n".join(said))
        raise typer.Exit(int(code))
    if name is not None:
        from harness.commands.plugin_page import page

        echo(page(registry, name, probe=probe, as_json=as_json))
        return
    rows = listed(registry, probe=probe)
    if as_json:
        echo(json.dumps(rows, indent=1))
    else:
        for line in lines(rows):
            echo(line)
        for conflict in registry.conflicts:
            echo(f"conflict: {conflict}", err=True)
    if registry.broken:
        raise typer.Exit(int(ExitCode.MEASUREMENT))


def listed(registry: Registry, *, probe: bool) -> list[dict[str, Any]]:
    """One row per plugin spec; with `probe`, what the machine makes of its default options."""
    verdicts: dict[tuple[str, str], str] = {}
    if probe:
        from harness.diagnosing.survey import verdicts as ask

        with captured():
            verdicts = ask(registry)
    return [
        {
            "kind": kind,
            "name": name,
            "summary": offer.spec.summary,
            "plugin": offer.plugin.name,
            "distribution": offer.plugin.distribution,
            "version": offer.plugin.version,
            **({"probe": verdicts.get((kind, name))} if probe else {}),
        }
        for kind in KINDS_SHOWN
        for name, offer in sorted(registry.offers(kind).items())
    ]


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The rows for people."""
    for row in rows:
        yield f"{row['kind']:<9} {row['name']:<18} {row['summary']}  [{row['distribution']} {row['version']}]"
        if row.get("probe"):
            yield f"{'':<29}{row['probe']}"


def checked(registry: Registry, name: str, *, as_json: bool) -> tuple[list[str], ExitCode]:
    """Runs the conformance checks of a name or distribution: lines to print, and 0 or 3."""
    from harness.testing.contract import check_offer, chosen

    rows: list[dict[str, Any]] = []
    shown: list[str] = []
    failed = 0
    for kind, offer in chosen(registry, name):
        checks = check_offer(kind, offer, registry)
        failed += len(checks.failed)
        shown.append(f"{kind} {offer.spec.name}  [{offer.plugin.distribution} {offer.plugin.version}]")
        for check in checks.found:
            said = f": {check.detail}" if check.detail else ""
            shown.append(f"  {check.state:<10} {check.sentence}{said}")
            found = {"promise": check.sentence, "state": check.state, "detail": check.detail}
            rows.append({"kind": kind, "name": offer.spec.name, **found})
    code = ExitCode.MEASUREMENT if failed else ExitCode.OK
    return ([json.dumps(rows, indent=1)] if as_json else shown), code

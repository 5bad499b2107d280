"""The body of `harness plugins`: what is offered, what works here, and which contracts hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from harness.discovery.registry import Registry
from harness.errors import ExitCode

KINDS_SHOWN: Final = ("workload", "backend", "meter", "scorer", "executor", "command")


def listed(registry: Registry, *, probe: bool) -> list[dict[str, Any]]:
    """One row per offer; with `probe`, what the machine makes of its default options."""
    verdicts: dict[tuple[str, str], str] = {}
    if probe:
        from harness.diagnosing.survey import verdicts as ask

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


def check(registry: Registry, name: str, *, as_json: bool) -> tuple[list[str], ExitCode]:
    """Holds the offers of a name or distribution to their contracts: lines to print, and 0 or 3."""
    from harness.testing.contract import check_offer, chosen

    rows: list[dict[str, Any]] = []
    shown: list[str] = []
    broken = 0
    for kind, offer in chosen(registry, name):
        promises = check_offer(kind, offer, registry)
        broken += len(promises.broken)
        shown.append(f"{kind} {offer.spec.name}  [{offer.plugin.distribution} {offer.plugin.version}]")
        for promise in promises.found:
            said = f": {promise.detail}" if promise.detail else ""
            shown.append(f"  {promise.state:<10} {promise.sentence}{said}")
            found = {"promise": promise.sentence, "state": promise.state, "detail": promise.detail}
            rows.append({"kind": kind, "name": offer.spec.name, **found})
    code = ExitCode.MEASUREMENT if broken else ExitCode.OK
    return ([json.dumps(rows, indent=1)] if as_json else shown), code

"""What a gate's result looks like: lines for a terminal, Markdown for a job's summary, JUnit, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from harness.errors import UsageError, printable
from harness.gating.result import Kind, Result
from harness.gating.verdict import Judged, Verdict

_JUNIT = {Verdict.REGRESSED: "failure", Verdict.INVALID: "error", Verdict.INCONCLUSIVE: "error"}


def lines(result: Result, folder: Path | None = None) -> Iterator[str]:
    """The result for a terminal: the verdict, then each comparison with its interval first, then what it is worth.

    Args:
        result: of a gate.
        folder: that holds its records; None where nothing was measured here.
    """
    yield headline(result)
    yield analysed(result)
    for key, (base, head) in result.differing.items():
        yield f"  {key}: {base!r} in base, {head!r} in head"
    for cell in result.cells:
        yield f"  {cell.verdict!s:<13} {cell.name}: {change(cell)}"
        if cell.assumptions is not None:
            yield f"  {'':<13} {assumed(cell)}"
    for name, base in result.base_trials.items():
        yield f"  trials of {name}: {base} in the baseline, {result.pairs.get(name, 0)} now"
    if result.seed is not None:
        yield f"  seed of the order: {result.seed}"
    if result.control_change is not None:
        yield f"  control moved by {result.control_change:+.1%}"
    for note in result.notes:
        yield f"  note: {note}"
    if folder is not None:
        yield f"records: {folder}"


def headline(result: Result) -> str:
    """The verdict, with why."""
    return str(result.verdict).upper() + (f": {result.reason}" if result.reason else "")


def analysed(result: Result) -> str:
    """What was analysed, at which error rate."""
    if not result.looks:
        return "nothing was analysed"
    last = result.looks[-1]
    bounds = f"each bound at an error rate of {last.alpha:g}"
    if result.kind is Kind.BASELINE:
        return f"baseline {result.baseline}, saved {result.saved_utc}; {bounds}, for the noise between trials alone"
    if result.kind is Kind.PYTEST_BENCHMARK:
        return f"files of pytest-benchmark; {bounds}, for the noise between rounds alone"
    return f"{last.pairs} pairs; interim analysis {len(result.looks)}, {bounds}"


def change(cell: Judged) -> str:
    """What a comparison found, in words: the change with its interval and what is allowed."""
    if cell.estimate is None:
        return cell.reason
    why = f" ({cell.reason})" if cell.reason else ""
    how = f"; {cell.method}" if cell.method else ""
    if cell.limit:
        estimate, low, high = ("unknown" if v is None else f"{v:+.4g}" for v in (cell.estimate, cell.low, cell.high))
        return f"{estimate} beyond the limit, from {low} to {high}{how}{why}"
    estimate, low, high = ("unknown" if v is None else f"{v:+.1%}" for v in (cell.estimate, cell.low, cell.high))
    allowed = "" if cell.worse_by_at_most is None else f"; allowed {cell.worse_by_at_most:+.1%}"
    return f"worse by {estimate}, from {low} to {high}{allowed}{how}{why}"


def assumed(cell: Judged) -> str:
    """What a comparison assumes, in words: what is compared, and how far the assumptions of its bounds hold."""
    found = cell.assumptions
    if found is None:
        return ""
    if found.constant:
        return "the same in every pair: nothing is estimated"
    said = [
        f"the {found.compared} is compared",
        f"symmetric: p = {found.asymmetry_p:.2g}",
        f"no trend over the pairs: p = {found.trend_p:.2g}",
        f"tied values: {found.tied_share:.0%}" + (f" in steps of {found.step:.2%}" if found.step >= 1e-4 else ""),
    ]
    if cell.order_effect is not None:
        said.append(f"second trial of a pair: {cell.order_effect}")
    return "; ".join(said)


def checked_site(address: str | None) -> str | None:
    """The address of a site of results, as it may stand in Markdown; None where none is given.

    Raises:
        UsageError: it is no address of a page on the web.
    """
    if not address:
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"--site: {address!r} is no address of a site", accepted="https://... without blanks")
    return address


_ADDRESS: Final = re.compile(r"https?://[\w.~:/?#\[\]@!$&'*+,;=%-]+", re.ASCII)
"""Without parentheses, which would end a link of Markdown."""


def markdown(result: Result, site: str | None = None) -> str:
    """The result as GitHub Markdown, with a link to the site of earlier results, where there is one."""

    def plain(text: str) -> str:
        # `@name` would call somebody into the pull request's comment.
        return (
            printable(text, keep="\n").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("@", "&#64;")
        )

    rows = [f"| {cell.verdict} | {plain(cell.name)} | {plain(change(cell))} |" for cell in result.cells]
    rests = [f"- {plain(cell.name)}: {plain(assumed(cell))}" for cell in result.cells if cell.assumptions is not None]
    seed = [] if result.seed is None else [f"- seed of the order: {result.seed}"]
    moved = result.control_change
    control = [] if moved is None else [f"- control moved by {moved:+.1%}"]
    return "\n".join(
        [
            f"## Gate: {plain(headline(result))}",
            "",
            f"{plain(analysed(result))}.",
            "",
            "| verdict | case and metric | change of head against base |",
            "|---|---|---|",
            *rows,
            "",
            *rests,
            *seed,
            *control,
            *(f"- {plain(note)}" for note in result.notes),
            *(["", f"[Results of earlier runs]({site})"] if site else []),
            "",
        ]
    )


def junit(result: Result) -> bytes:
    """The result as JUnit XML: one test a comparison; inconclusive is an error, since it fails the job too."""
    cases = [(cell.name, cell.verdict, change(cell)) for cell in result.cells]
    if result.reason:
        cases.append(("the job", result.verdict, result.reason))
    kinds = [_JUNIT.get(verdict) for _, verdict, _ in cases]
    suite = ET.Element(
        "testsuite",
        name="harness gate",
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
    )
    for (name, verdict, text), kind in zip(cases, kinds, strict=True):
        case = ET.SubElement(suite, "testcase", classname="harness.gate", name=_xml(name))
        if kind is None:
            ET.SubElement(case, "system-out").text = _xml(text)
        else:
            ET.SubElement(case, kind, type=str(verdict), message=_xml(text))
    return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    """Without the control characters that XML 1.0 does not know."""
    return "".join(letter if letter.isprintable() or letter in "\t\n" else "?" for letter in text)


def write(
    result: Result,
    *,
    json_file: Path | None = None,
    junit_file: Path | None = None,
    summary: Path | None = None,
    step_summary: Path | None = None,
    site: str | None = None,
) -> None:
    """Writes the result where it is wanted; `step_summary` is appended to, as GitHub asks; Markdown links `site`.

    Raises:
        UsageError: a file cannot be written.
    """
    named: Path | None = None
    try:
        for path, content in (
            (json_file, json.dumps(result.to_json(), indent=1).encode()),
            (junit_file, junit(result)),
            (summary, markdown(result, site).encode()),
        ):
            if path is not None:
                named = path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if step_summary is not None:
            named = step_summary
            with step_summary.open("a", encoding="utf-8") as stream:
                stream.write(markdown(result, site))
    except OSError as error:
        raise UsageError(
            f"the result cannot be written: {error.strerror}", where=str(error.filename or named)
        ) from None

"""What a gate's result looks like: lines for a terminal, Markdown for a job's summary, JUnit, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from harness.errors import UsageError
from harness.gating.gate import Result, to_json
from harness.gating.verdict import Judged, Verdict
from harness.records.paths import GATE

_JUNIT = {Verdict.REGRESSED: "failure", Verdict.INVALID: "error", Verdict.INCONCLUSIVE: "error"}


def lines(result: Result, folder: Path) -> Iterator[str]:
    """The result for a terminal: the verdict, then each cell with its interval first."""
    yield headline(result)
    yield looked(result)
    for judged in result.judged:
        yield f"  {judged.verdict!s:<13} {judged.cell.name}: {change(judged)}"
    if result.control is not None:
        yield f"  control moved by {result.control:+.1%}"
    for note in result.notes:
        yield f"  note: {note}"
    yield f"records: {folder}"


def headline(result: Result) -> str:
    """The verdict, with why."""
    return str(result.verdict).upper() + (f": {result.reason}" if result.reason else "")


def looked(result: Result) -> str:
    """After how many pairs, at which error rate."""
    n, alpha = result.looks[-1]
    return f"{n} pairs; look {len(result.looks)}, each bound at an error rate of {alpha:g}"


def change(judged: Judged) -> str:
    """What a cell found, in words: the change with its interval and what is allowed."""
    found = judged.effect
    if found is None:
        return judged.reason
    why = f" ({judged.reason})" if judged.reason else ""
    if judged.cell.limit:
        return f"{_plain(found.estimate)} beyond the limit, from {_plain(found.low)} to {_plain(found.high)}{why}"
    estimate, low, high = found.ratio
    allowed = math.expm1(judged.cell.margin)
    lower = "unknown" if found.low == -math.inf else f"{low:+.1%}"
    upper = "unknown" if high == math.inf else f"{high:+.1%}"
    return f"worse by {estimate:+.1%}, from {lower} to {upper}; allowed {allowed:+.1%}{why}"


def _plain(value: float) -> str:
    return f"{value:+.4g}" if math.isfinite(value) else "unknown"


def markdown(result: Result) -> str:
    """The result as GitHub Markdown."""

    def plain(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

    rows = [f"| {judged.verdict} | {plain(judged.cell.name)} | {plain(change(judged))} |" for judged in result.judged]
    control = [] if result.control is None else [f"- control moved by {result.control:+.1%}"]
    return "\n".join(
        [
            f"## Gate: {plain(headline(result))}",
            "",
            f"{looked(result)}.",
            "",
            "| verdict | case and metric | change of head against base |",
            "|---|---|---|",
            *rows,
            "",
            *control,
            *(f"- {plain(note)}" for note in result.notes),
            "",
        ]
    )


def junit(result: Result) -> bytes:
    """The result as JUnit XML: one test a cell; inconclusive is an error, since it fails the job too."""
    cases = [(judged.cell.name, judged.verdict, change(judged)) for judged in result.judged]
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
    folder: Path | None,
    *,
    json_file: Path | None = None,
    junit_file: Path | None = None,
    summary: Path | None = None,
    step_summary: Path | None = None,
) -> None:
    """Writes the result where it is wanted; `step_summary` is appended to, as GitHub asks.

    A result without a folder (`None`) was not measured here, and its JSON is made anew.

    Raises:
        UsageError: a file cannot be written.
    """
    content_json = to_json(result) if folder is None else json.loads((folder / GATE).read_text(encoding="utf-8"))
    try:
        for path, content in (
            (json_file, json.dumps(content_json, indent=1).encode()),
            (junit_file, junit(result)),
            (summary, markdown(result).encode()),
        ):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        if step_summary is not None:
            with step_summary.open("a", encoding="utf-8") as stream:
                stream.write(markdown(result))
    except OSError as error:
        raise UsageError(f"the result cannot be written: {error.strerror}", where=str(error.filename)) from None

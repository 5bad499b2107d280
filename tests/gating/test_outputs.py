"""What a gate's result looks like to people and to a CI system."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.errors import UsageError
from harness.gating import outputs as output
from harness.gating.result import InterimAnalysis, Result
from harness.gating.verdict import Cell, CellKey, Verdict, build, judge, margin


def result(*cells: Cell, reason: str = "", notes: tuple[str, ...] = ()) -> Result:
    judged = judge(cells, 0.05)
    verdict = Verdict.INVALID if reason else build(judged)
    return Result(
        verdict=verdict,
        cells=judged,
        looks=[InterimAnalysis(12, 0.05)],
        control_change=0.01,
        notes=notes,
        reason=reason,
    )


def worse(by: float, name: str = "s: a: energy_j per token") -> Cell:
    return Cell(
        key=CellKey.parse(name), differences=tuple(by + 0.001 * index for index in range(12)), margin=margin(0.05)
    )


FOUND = result(
    worse(0.3),
    worse(0.0, "s: b | <c>: energy_j"),
    worse(margin(0.05) - 0.0055, "open"),
    Cell(key=CellKey.parse("gone"), missing="no counter"),
    Cell(key=CellKey.parse("floor"), differences=(-0.1,) * 12, limit=True),
)


def test_junit_has_a_test_per_cell_and_fails_what_fails_the_job() -> None:
    root = ET.fromstring(output.junit(FOUND))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "2")
    kinds = {case.get("name"): [child.tag for child in case] for case in root}
    assert kinds == {
        "s: a: energy_j per token": ["failure"],
        "s: b | <c>: energy_j": ["system-out"],
        "open": ["error"],
        "gone": ["error"],
        "floor": ["system-out"],
    }


def test_junit_says_why_a_whole_job_is_invalid_and_takes_any_text() -> None:
    root = ET.fromstring(output.junit(result(worse(0.0), reason="the control moved \x1b[0m\x00")))
    job = root.findall("testcase")[-1]
    assert job.get("name") == "the job"
    assert "the control moved" in str(job[0].get("message"))


def test_markdown_keeps_its_table_whatever_a_label_holds() -> None:
    text = output.markdown(FOUND)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert "<c>" not in text
    assert text.startswith("## Gate: REGRESSED")


def test_the_terminal_names_the_interval_before_any_p_value() -> None:
    shown = "\n".join(output.lines(FOUND, Path("reports/x")))
    assert "regressed     s: a: energy_j per token: worse by +35." in shown
    assert "allowed +5.0%" in shown
    assert "invalid       gone: no counter" in shown
    assert "beyond the limit" in shown


def test_the_step_summary_is_appended_to(tmp_path: Path) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    output.write(FOUND, summary=tmp_path / "new/summary.md", step_summary=step)
    assert step.read_text() == "before\n" + (tmp_path / "new/summary.md").read_text()
    with pytest.raises(UsageError, match="cannot be written"):
        output.write(FOUND, junit_file=tmp_path)

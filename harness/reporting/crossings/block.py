"""The answers of a run as blocks of the page, each with its figure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.records.summary import RunReport
from harness.reporting.blocks import Block
from harness.reporting.crossings.answer import answers
from harness.reporting.crossings.figure import chart
from harness.reporting.crossings.sections import notice, tables
from harness.reporting.crossings.sentence import sentence


def blocks(report: RunReport) -> Iterator[Block]:
    """For the page: a block a question, with its figure."""
    for number, each in enumerate(answers(report), start=1):
        drawn = chart(each)
        yield Block(
            anchor=f"question-{number}",
            title=each.asked.ask,
            findings=[sentence(each)],
            intro=" ".join(notice(each)),
            charts=[drawn] if drawn is not None else (),
            sections=list(tables(each)),
        )

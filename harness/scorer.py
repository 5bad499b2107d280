"""The role of a scorer: adds quality columns to work items after the windows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.functional_unit import Row
from harness.options import NoOptions, Options
from harness.workload import Column


class Scorer(ABC):
    """Turns stored outputs into quality columns, after the windows, in its own process. Its energy is not charged."""

    @abstractmethod
    def score(self, items: Iterable[tuple[Row, object]]) -> Mapping[str, Mapping[str, float | None]]:
        """Quality columns per `item_id`, exactly one entry per item given; None where there is no score."""

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record: scorer model, revision, dtype. JSON values only."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerSpec:
    """The plugin spec of a scorer.

    Attributes:
        name: what a suite writes under `scorers:`.
        summary: one line for `harness plugins`.
        factory: options -> Scorer.
        columns: columns it adds.
        options: model of the options.
    """

    name: str
    summary: str
    factory: Callable[[Any], Scorer]
    columns: tuple[Column, ...]
    options: type[Options] = NoOptions

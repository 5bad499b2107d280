"""Scorer `prose`: the closed-form reward of what a decoding workload wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.functional_unit import Row
from harness.workload import Scorer
from harness_speculative_decoding.rewards import FEWEST_WORDS, PLAIN_WORD, prose


class Prose(Scorer):
    """Reads the key `text` of an output; an item without a text gets no reward."""

    def score(self, items: Iterable[tuple[Row, object]]) -> Mapping[str, Mapping[str, float | None]]:
        """Column `reward` per item."""
        scores: dict[str, Mapping[str, float | None]] = {}
        for row, output in items:
            text = output.get("text") if isinstance(output, Mapping) else output
            scores[str(row["item_id"])] = {"reward": prose(text) if isinstance(text, str) else None}
        return scores

    def facts(self) -> Mapping[str, object]:
        """The formula."""
        return {"formula": f"plain words / max(words, {FEWEST_WORDS})", "plain_word": PLAIN_WORD.pattern}

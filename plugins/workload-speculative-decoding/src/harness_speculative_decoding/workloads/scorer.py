"""Scorer `reward`: the reward of each stored answer, after the windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from harness.errors import MeasurementError
from harness.functional_unit import Row
from harness.scorer import Scorer
from harness_speculative_decoding.options import RewardOptions
from harness_speculative_decoding.reward_models import Judged, reward_named


class RewardScorer(Scorer):
    """Fills the column `reward`."""

    def __init__(self, options: RewardOptions) -> None:
        self._reward = reward_named(options.reward, torch.device(options.device))

    def score(self, items: Iterable[tuple[Row, object]]) -> Mapping[str, Mapping[str, float | None]]:
        """One reward an item.

        Raises:
            MeasurementError: an output lacks prompt or text.
            UsageError: an output lacks the reference that the reward judges by.
        """
        listed = list(items)
        answers = []
        for row, output in listed:
            if not isinstance(output, Mapping) or not {"prompt", "text"} <= output.keys():
                raise MeasurementError(f"item {row['item_id']} has no output with a prompt and a text")
            reference = output.get("reference")
            known = None if reference is None else str(reference)
            answers.append(Judged(str(output["prompt"]), str(output["text"]), known))
        rewards = self._reward(answers)
        return {str(row["item_id"]): {"reward": value} for (row, _), value in zip(listed, rewards, strict=True)}

    def facts(self) -> Mapping[str, object]:
        """The reward."""
        return self._reward.facts()

"""Scorer `reward-model`: stored outputs -> column `quality`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from harness.errors import MeasurementError
from harness.functional_unit import Row
from harness.scorer import Scorer
from harness_scorer_reward_model.options import RewardModelOptions
from harness_scorer_reward_model.reward import Reward, identity, load


def torch_device(name: str) -> torch.device:
    """The device of an option; `auto` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def exchange(item_id: str, output: object) -> tuple[str, str]:
    """Prompt and answer of a stored output; raises MeasurementError."""
    if isinstance(output, Mapping):
        prompt, text = output.get("prompt"), output.get("text")
        if isinstance(prompt, str) and isinstance(text, str):
            return prompt, text
    raise MeasurementError(
        f"item {item_id!r} left no prompt and text to score", accepted='an output {"prompt": ..., "text": ...}'
    )


class RewardModel(Scorer):
    """Loads the model when the first item is to be scored."""

    def __init__(self, options: RewardModelOptions) -> None:
        self._options = options
        self._facts: dict[str, Any] = options.model_dump()

    def score(self, items: Iterable[tuple[Row, object]]) -> Mapping[str, Mapping[str, float | None]]:
        """The raw logit per item, as `quality`; None where it is not finite or the exchange is too long."""
        exchanges = {str(row["item_id"]): exchange(str(row["item_id"]), output) for row, output in items}
        if not exchanges:
            return {}
        options = self._options
        device = torch_device(options.device)
        reward = load(options.model, options.revision, options.dtype, device)
        ids = {name: reward.ids(*both, options.template) for name, both in exchanges.items()}
        fitting = {name: given for name, given in ids.items() if reward.limit is None or len(given) <= reward.limit}
        found: dict[str, float | None] = dict.fromkeys(exchanges)
        names = list(fitting)
        for first in range(0, len(names), options.batch):
            together = names[first : first + options.batch]
            found |= zip(together, reward.scores([fitting[name] for name in together]), strict=True)
        self._note(reward, too_long=len(ids) - len(fitting), missing=sum(v is None for v in found.values()))
        return {name: {"quality": value} for name, value in found.items()}

    def _note(self, reward: Reward, *, too_long: int, missing: int) -> None:
        self._facts |= {
            **identity(self._options.model, reward),
            "architecture": type(reward.model).__name__,
            "device": str(reward.device),
            "too_long": too_long,
            "missing": missing,
        }

    def facts(self) -> Mapping[str, object]:
        """Model, revision or digest, dtype, template, and how many items have no score."""
        return self._facts

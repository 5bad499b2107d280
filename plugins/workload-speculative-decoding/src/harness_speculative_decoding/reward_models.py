"""Rewards of many answers at once: a reward function, or a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.errors import MeasurementError, UsageError, did_you_mean
from harness_speculative_decoding.loading import model_folder
from harness_speculative_decoding.rewards import FUNCTIONS


class Judged(NamedTuple):
    """What a reward sees: a prompt, an answer to it, and the prompt's reference where it has one."""

    prompt: str
    answer: str
    reference: str | None = None


class Reward(Protocol):
    """Scores answers; higher is better."""

    def __call__(self, answers: Sequence[Judged]) -> list[float]:
        """Rewards of answers; raises UsageError where one needs a reference and has none."""

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record."""


class FunctionReward:
    """A reward function by its name in `FUNCTIONS`."""

    def __init__(self, name: str) -> None:
        self._name, self._function = name, FUNCTIONS[name]

    def __call__(self, answers: Sequence[Judged]) -> list[float]:
        """Rewards of answers."""
        return [self._function(*judged) for judged in answers]

    def facts(self) -> Mapping[str, object]:
        """Its name."""
        return {"function": self._name}


class ModelReward:
    """A sequence classifier with one label over prompt plus answer, in float32.

    Args:
        name: a folder or a hub id.
        device: where it runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        folder = model_folder(name)
        source = str(folder or name)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            model = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=torch.float32, trust_remote_code=False
            )
        except Exception as error:  # OSError, ValueError, KeyError, SafetensorError and more
            first = str(error).strip().partition("\n")[0]
            raise MeasurementError(
                f"the reward model {name} cannot be loaded: {type(error).__name__}: {first}"
            ) from error
        if model.config.num_labels != 1:
            raise UsageError(f"the reward model {name} has {model.config.num_labels} labels", accepted="one")
        self._name, self._model, self._device = name, model.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, answers: Sequence[Judged]) -> list[float]:
        """Rewards of answers, one at a time: padding would need a token that some lack; references are not read."""
        rewards = []
        for prompt, answer, _reference in answers:
            ids = self._tokenizer(prompt + answer, return_tensors="pt", truncation=True)["input_ids"]
            rewards.append(float(self._model(input_ids=ids.to(self._device)).logits[0, 0]))
        return rewards

    def facts(self) -> Mapping[str, object]:
        """Model and number type."""
        return {"model": self._name, "revision": getattr(self._model.config, "_commit_hash", None), "dtype": "float32"}


def reward_named(name: str, device: torch.device) -> Reward:
    """A reward function of that name, or the reward model in that folder or on the hub.

    Raises:
        UsageError: neither a function nor a folder nor the form `owner/name` of a hub id.
        MeasurementError: the model cannot be had.
    """
    if name in FUNCTIONS:
        return FunctionReward(name)
    if "/" not in name:
        raise UsageError(
            f"there is no reward function {name!r}",
            accepted=f"{', '.join(FUNCTIONS)}, a folder, or a hub id",
            hint=did_you_mean(name, FUNCTIONS),
        )
    return ModelReward(name, device)

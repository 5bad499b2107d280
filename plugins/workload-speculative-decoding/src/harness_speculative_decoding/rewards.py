"""Rewards of a prompt's answer: functions whose value a reader can work out, and reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.errors import MeasurementError, UsageError, did_you_mean
from harness_speculative_decoding.loading import model_folder

RewardFunction = Callable[[str, str], float]


def prose(prompt: str, answer: str) -> float:
    """The share of letters and spaces in the answer, in [0, 1]; 0 for an empty one."""
    del prompt
    return sum(letter.isalpha() or letter == " " for letter in answer) / len(answer) if answer else 0.0


def brevity(prompt: str, answer: str) -> float:
    """Minus the number of words in the answer."""
    del prompt
    return -float(len(answer.split()))


FUNCTIONS: Mapping[str, RewardFunction] = {"prose": prose, "brevity": brevity}


class Reward(Protocol):
    """Scores answers; higher is better."""

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Rewards of (prompt, answer) pairs."""

    def facts(self) -> Mapping[str, object]:
        """What belongs into the record."""


class FunctionReward:
    """A reward function by its name in `FUNCTIONS`."""

    def __init__(self, name: str) -> None:
        self._name, self._function = name, FUNCTIONS[name]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Rewards of (prompt, answer) pairs."""
        return [self._function(prompt, answer) for prompt, answer in pairs]

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
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Rewards of (prompt, answer) pairs, one at a time: padding would need a token that some lack."""
        rewards = []
        for prompt, answer in pairs:
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

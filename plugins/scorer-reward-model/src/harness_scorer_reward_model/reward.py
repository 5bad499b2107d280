"""A reward model on its own: (prompt, answer) -> raw logit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness.errors import MeasurementError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_GIVE_FOLDER: Final = "give a folder that holds it instead: `scorers: [reward-model: {model: /path/to/folder}]`"
_UNLIMITED: Final = 10**9
"""Tokenizers that know no limit name a larger number than this."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward model in eval mode on its device, with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    @property
    def limit(self) -> int | None:
        """Tokens it takes at most; None where neither model nor tokenizer says."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        known = [size for size in (positions, self.tokenizer.model_max_length) if size and size < _UNLIMITED]
        return min(known) if known else None

    def ids(self, prompt: str, answer: str, template: Literal["chat", "plain"]) -> list[int]:
        """Token ids of one exchange; raises MeasurementError for `chat` without a chat template."""
        if template == "plain":
            return list(self.tokenizer(prompt + answer)["input_ids"])
        if not self.tokenizer.chat_template:
            raise MeasurementError(
                f"the tokenizer of {self.model.name_or_path} has no chat template", accepted="`template: plain`"
            )
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        encoded: Any = self.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)
        return list(encoded["input_ids"])

    @torch.inference_mode()
    def scores(self, batch: Sequence[Sequence[int]]) -> list[float | None]:
        """Raw logits of exchanges given as token ids; None where one is not finite. Shorter ones are padded."""
        longest = max(map(len, batch))
        pad = self.model.config.pad_token_id
        if pad is None and any(len(ids) < longest for ids in batch):
            raise MeasurementError(
                f"{self.model.name_or_path} has no padding token, so it scores one response at a time",
                accepted="`batch: 1`",
            )
        padded = [[*ids, *[pad or 0] * (longest - len(ids))] for ids in batch]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch]
        logits = self.model(
            input_ids=torch.tensor(padded, device=self.device), attention_mask=torch.tensor(mask, device=self.device)
        ).logits
        return [value if math.isfinite(value) else None for value in logits[:, 0].float().tolist()]


def load(name: str, revision: str | None, dtype: str, device: torch.device) -> Reward:
    """Loads a reward model; code that comes with it is never run.

    Raises:
        MeasurementError: it cannot be had, has not exactly one label, or lacks a trained score head.
    """
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            revision=revision or "main",
            dtype=DTYPES[dtype],
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError and more
        first = str(error).strip().partition("\n")[0]
        what = f"the reward model {name} cannot be loaded: {type(error).__name__}: {first}"
        raise MeasurementError(what, hint="" if folder.is_dir() else _GIVE_FOLDER) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise MeasurementError(
            f"{name} is not a trained reward model: it lacks {', '.join(missing[:3])}",
            accepted="a sequence-classification model with its score head",
        )
    if model.config.num_labels != 1:
        raise MeasurementError(f"{name} has {model.config.num_labels} labels", accepted="a reward model, which has one")
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    model.to(device)
    model.eval()
    return Reward(model, tokenizer, device)


def identity(name: str, reward: Reward) -> dict[str, str | None]:
    """What tells two models of one name apart: the hub's revision, or the digest of a folder's weights."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return {"revision": getattr(reward.model.config, "_commit_hash", None)}
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return {"revision": None, "weights_sha256": digest.hexdigest()}

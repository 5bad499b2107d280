"""What a suite may write under `reward-model:`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.options import Options


class RewardModelOptions(Options):
    """Options of the scorer `reward-model`.

    Attributes:
        model: hub id or folder of a sequence-classification model with one label.
        revision: branch, tag or commit of the hub id; its default branch if not set.
        dtype: number format of the weights.
        template: how prompt and answer are joined: `chat` as two turns of the tokenizer's chat template, `plain` one
            after the other as they are.
        batch: responses that are scored together.
        device: where it runs; `auto` takes CUDA where there is one.
    """

    model: Annotated[str, Field(min_length=1, pattern=r"\S")]
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    template: Literal["chat", "plain"] = "chat"
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

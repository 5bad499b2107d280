"""Options of the workloads, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.options import Options

Count = Annotated[int, Field(ge=1, le=1_000_000)]


class DecodingOptions(Options):
    """Options of every decoding workload here.

    Attributes:
        target: `builtin:small`, `builtin:tiny`, a folder, or a hub id.
        prompts: `builtin` (held-out prose), or a file: one prompt a line, or JSON Lines with a key `prompt`.
        prompt_tokens: length of the built-in prompts; those of a file are used whole.
        max_new_tokens: limit of a request's output.
        temperature: 0 for greedy.
        top_k: most likely tokens to keep; 0 for all.
        top_p: mass to keep; 1 for all.
        batch: requests decoded together; a step is one batch.
        ignore_eos: go on to `max_new_tokens` after an end token, so that all outputs are equally long.
        dtype: of the weights.
    """

    target: Annotated[str, Field(min_length=1)] = "builtin:small"
    prompts: Annotated[str, Field(min_length=1)] = "builtin"
    prompt_tokens: Count = 32
    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    ignore_eos: bool = False
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"


class VanillaOptions(DecodingOptions):
    """Options of workload `vanilla`."""

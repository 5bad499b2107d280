"""Trains a tokenizer and a small causal language model on the processor, with pytorch-lightning."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from harness_speculative_decoding.data.corpus import Corpus
from harness_speculative_decoding.training.recipes import PREFIX, Pretrained, Recipe

END = "<|endoftext|>"
CHECKPOINT = "training.ckpt"
CHECKPOINT_EVERY = 20
"""Steps; a kill costs as many at most."""
Progress = Callable[[str, float | None], None]
"""Receives a line of text and the share that is done."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model with what is worth recording about the run; `extra` holds what only some models have."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    parameters: int
    perplexity: float
    steps: int
    train_tokens: int
    held_out_tokens: int
    threads: int
    time_cap_struck: bool
    duration_s: float
    extra: Mapping[str, object] = field(default_factory=dict)


def train_tokenizer(texts: Sequence[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose token 0 ends a document."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def token_stream(tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]) -> Tensor:
    """All documents as one row of token ids, each ended by the end token; shape (tokens,)."""
    end: Any = tokenizer.eos_token_id
    encoded: Any = tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in (*ids, end)], dtype=torch.long)


class Batches:
    """A fixed number of batches of equally long sequences, reshuffled every time the text is used up.

    Each item has the shape (batch, context). `state_dict` and `load_state_dict` tell Lightning that a resumed training
    may begin here in the middle; where is decided by `skip`, because Lightning may have fetched batches ahead.

    Args:
        stream: token ids, of shape (tokens,).
        recipe: steps, batch, context and seed.
        skip: batches that a resumed training has behind it.
    """

    def __init__(self, stream: Tensor, recipe: Recipe, skip: int = 0) -> None:
        rows = len(stream) // recipe.context
        if rows < recipe.batch:
            raise ValueError(f"{len(stream)} tokens do not fill a batch of {recipe.batch} x {recipe.context}")
        self._rows = stream[: rows * recipe.context].view(rows, recipe.context)
        self._recipe = recipe
        self._skip = skip

    def __len__(self) -> int:
        return self._recipe.steps

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self._recipe.seed)
        order = torch.empty(0, dtype=torch.long)
        for step in range(self._recipe.steps):
            if len(order) < self._recipe.batch:
                order = torch.cat([order, torch.randperm(len(self._rows), generator=generator)])
            if step >= self._skip:
                yield self._rows[order[: self._recipe.batch]]
            order = order[self._recipe.batch :]

    def state_dict(self) -> dict[str, int]:
        """Nothing that `skip` does not say."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Takes nothing over."""


@torch.inference_mode()
def perplexity(model: LlamaForCausalLM, stream: Tensor, context: int, batch: int = 16) -> float:
    """The exponential of the mean negative log-likelihood per token, over windows of `context` tokens."""
    model.eval()  # type: ignore[no-untyped-call]
    rows = len(stream) // context
    parts = list(torch.split(stream[: rows * context].view(rows, context), batch)) if rows else []
    rest = stream[rows * context :]
    if len(rest) > 1:
        parts.append(rest[None])
    loss, count = 0.0, 0
    for part in parts:
        logits = model(input_ids=part, use_cache=False).logits[:, :-1].float()
        loss += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum"))
        count += part[:, 1:].numel()
    return math.exp(loss / count)


def train(recipe: Recipe, corpus: Corpus, progress: Progress, *, checkpoints: Path | None = None) -> Trained:
    """Trains the recipe's tokenizer and model; the same recipe, corpus and versions give the same weights.

    The global random state and the number of threads are put back. Where the cap on processor time strikes, the
    result depends on the machine's speed, and `time_cap_struck` says so.

    Args:
        recipe: what to do.
        corpus: text to train on, and held-out text that the perplexity is of.
        progress: receives text and the share that is done.
        checkpoints: a folder of this training alone; where it holds a checkpoint, the training goes on from there and
            ends with the weights that it would have had without the interruption. One that cannot be read is removed.
    """
    progress(f"training the tokenizer of {PREFIX}{recipe.name}", 0.0)
    tokenizer = train_tokenizer(corpus.train, recipe.vocabulary, recipe.context)
    stream = token_stream(tokenizer, corpus.train)
    held_out = token_stream(tokenizer, corpus.held_out)
    start = time.monotonic()
    with fixed_threads() as threads, torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(llama_config(recipe, recipe.vocabulary, tokenizer))
        steps = _fit(model, stream, recipe, progress, checkpoints)
        progress(f"held-out perplexity of {PREFIX}{recipe.name}", 1.0)
        quality = perplexity(model, held_out, recipe.context)
    return Trained(
        model=model,
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        perplexity=quality,
        steps=steps,
        train_tokens=len(stream),
        held_out_tokens=len(held_out),
        threads=threads,
        time_cap_struck=steps < recipe.steps,
        duration_s=time.monotonic() - start,
    )


@contextmanager
def fixed_threads(most: int = 2) -> Iterator[int]:
    """Sets and yields how many threads a built-in model is trained with; puts the number back."""
    before = torch.get_num_threads()
    # Two threads take two thirds of one thread's time at these sizes; more would make the sums depend on the machine.
    threads = min(most, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def llama_config(recipe: Pretrained, vocabulary: int, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A built-in model's configuration, with a row of logits for each token of the vocabulary."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def processor() -> str:
    """The instructions that torch uses here: with versions, corpus and threads they decide how sums are rounded."""
    return str(torch.backends.cpu.get_cpu_capability())


def _fit(model: LlamaForCausalLM, stream: Tensor, recipe: Recipe, progress: Progress, checkpoints: Path | None) -> int:
    """Runs the trainer; returns how many steps were done."""
    behind, checkpoint = _checkpoint(checkpoints)
    with hints_hidden():
        import pytorch_lightning as pl
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from pytorch_lightning.callbacks import ModelCheckpoint

        from harness_speculative_decoding.training.lightning import LanguageModelling, ProcessorTimeCap, Report

        # A folder with a checkpoint is how a training is gone on with.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
        callbacks: list[pl.Callback] = [
            Report(progress, f"training {PREFIX}{recipe.name}", recipe.steps),
            ProcessorTimeCap(recipe.cpu_cap_s),
        ]
        if checkpoints is not None:
            name = Path(CHECKPOINT).stem
            every = CHECKPOINT_EVERY
            callbacks.append(
                ModelCheckpoint(checkpoints, filename=name, every_n_train_steps=every, enable_version_counter=False)
            )
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1,
            max_steps=recipe.steps,
            gradient_clip_val=1.0,
            plugins=LightningEnvironment(),  # a scheduler that is installed here has no part in it
            logger=False,
            enable_checkpointing=checkpoints is not None,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=callbacks,
        )
        batches = Batches(stream, recipe, skip=behind)
        trainer.fit(
            LanguageModelling(model, recipe), train_dataloaders=batches, ckpt_path=checkpoint, weights_only=True
        )
    return trainer.global_step


def _checkpoint(folder: Path | None) -> tuple[int, Path | None]:
    """The step and file of a checkpoint to go on from; (0, None) without one, or with one that is damaged."""
    if folder is None or not (folder / CHECKPOINT).is_file():
        return 0, None
    try:
        found = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True, mmap=True)
        return int(found["global_step"]), folder / CHECKPOINT
    except Exception:  # noqa: BLE001 - whatever a torn file makes of the reader: the training begins anew
        shutil.rmtree(folder, ignore_errors=True)
        return 0, None


@contextmanager
def hints_hidden() -> Iterator[None]:
    """Keeps Lightning's remarks (which card it found, which product to try) out of the log; other warnings stay."""
    with warnings.catch_warnings():
        # What a CUDA card could do for a training run that is meant for the processor.
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # A training here is one trial on one machine, whatever scheduler is installed.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # Lightning 2.6 itself uses a name that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        import pytorch_lightning  # noqa: F401 - it sets the levels of its loggers when it is first imported

        loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

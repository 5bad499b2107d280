"""A model of this process answers: the decoding plugin loads it, lm-eval's own `HFLM` computes with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from harness_speculative_decoding import load_causal_lm
from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped]
from lm_eval.models.utils import normalize_gen_kwargs  # type: ignore[import-untyped]

from harness.errors import MeasurementError, UsageError
from harness_lm_eval.documents import Answered, Answers, Document, repeated
from harness_lm_eval.options import LmEvalOptions


class CountingModel(HFLM):  # type: ignore[misc] # lm-eval has no types
    """lm-eval's model, which tokenises each text once and keeps how many tokens it generated. Nothing else is kept.

    Args:
        model: in eval mode, on its device.
        tokenizer: of the model.
        batch: requests of one pass.
    """

    def __init__(self, model: Any, tokenizer: Any, batch: int) -> None:
        self._encoded: dict[tuple[object, ...], list[int]] = {}
        self._asked: tuple[str, ...] = ()
        self.generated: dict[str, list[int]] = {}
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch)
        settings = model.generation_config
        ends = settings.eos_token_id if settings is not None else None
        self._ends = {each for each in (ends if isinstance(ends, list) else [ends]) if each is not None}
        self._ends.add(self.eot_token_id)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **more: Any,
    ) -> list[int]:
        """The token ids of a text, from the first time that it was asked for."""
        key = (string, add_special_tokens, left_truncate_len, *more.items())
        if key not in self._encoded:
            self._encoded[key] = super().tok_encode(string, add_special_tokens, left_truncate_len, **more)
        return self._encoded[key]

    def tok_batch_encode(self, strings: list[str], *more: Any, **named: Any) -> Any:
        """As lm-eval's, and says whose the rows of the next generation are."""
        self._asked = tuple(strings)
        return super().tok_batch_encode(strings, *more, **named)

    def _model_generate(self, context: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        found: torch.Tensor = super()._model_generate(context, *more, **named)
        for text, row in zip(self._asked, found[:, context.shape[1] :].tolist(), strict=True):
            self.generated.setdefault(text, []).append(self._length(row))
        return found

    def _length(self, row: Sequence[int]) -> int:
        """Generated tokens of a row, its first end token included; what follows that is padding."""
        return next((place for place, token in enumerate(row, start=1) if token in self._ends), len(row))

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:  # noqa: ARG002 - no bar
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

    def length_of(self, instance: Any) -> int:
        """Tokens of a request, context and continuation; they are then known."""
        if instance.request_type == "loglikelihood":
            context, continuation = instance.args[:2]
            if context == "":
                return 1 + len(self.tok_encode(continuation, add_special_tokens=False))
            return sum(map(len, self._encode_pair(context, continuation)))
        ahead = 1 if instance.request_type == "loglikelihood_rolling" else 0  # the token that the first one follows
        return ahead + len(self.tok_encode(instance.args[0]))


class LocalModel:
    """Loads a model and asks it.

    Args:
        options: of the workload.
        device: where the model goes.
        cache: where built-in models are kept.
        progress: receives text and the share that is done.

    Raises:
        UsageError: no such built-in model, or torchao is not installed.
        MeasurementError: the model cannot be had.
    """

    def __init__(
        self,
        options: LmEvalOptions,
        device: torch.device,
        cache: Path,
        progress: Callable[[str, float | None], None],
    ) -> None:
        self._batch = options.batch
        loaded = load_causal_lm(
            options.model,
            device,
            options.dtype,
            cache,
            progress,
            options.quantization,
            trust_remote_code=options.trust_remote_code,
        )
        self._facts = dict(loaded.facts)
        self.lm = CountingModel(loaded.model, loaded.tokenizer, options.batch)
        self._lengths: dict[tuple[str, int], int] = {}
        self._cut: list[str] = []

    def prepare(self, documents: Sequence[Document]) -> list[Document]:
        """Tokenises; the longest come first, as lm-eval orders them, so that a batch holds equally long ones.

        Raises:
            UsageError: an answer may be as long as the model's context.
        """
        longest: dict[tuple[str, int], int] = {}
        cut = 0
        for document in documents:
            lengths = [self.lm.length_of(instance) for instance in document.instances]
            key = document.task, document.number
            self._lengths[key], longest[key] = sum(lengths), max(lengths)
            cut += document.kind != "loglikelihood_rolling" and longest[key] > self._room(document)
        if cut:
            told = f"{cut} of {len(documents)} documents do not fit the model's context of {self.lm.max_length} tokens"
            self._cut = [f"{told}; lm-eval cut them from the left"]
        order = {kind: place for place, kind in enumerate(dict.fromkeys(each.kind for each in documents))}
        return sorted(documents, key=lambda each: (order[each.kind], -longest[each.task, each.number]))

    def _room(self, document: Document) -> int:
        """Tokens that a request of the document may have."""
        most = int(self.lm.max_length)
        if document.kind != "generate_until":
            return most + 1
        answer = int(normalize_gen_kwargs(dict(document.instances[0].args[1]), self.lm.max_gen_toks)["max_gen_toks"])
        if answer >= most:
            raise UsageError(
                f"task {document.task} asks for answers of up to {answer} tokens; the model's context holds {most}",
                where="gen_kwargs",
                accepted=f"max_gen_toks: at most {most - 1}, less the longest question",
            )
        return most - answer

    def answers(self, documents: Sequence[Document], clock: Callable[[], float]) -> Answers:
        """Asks `batch` documents at a time."""
        for kind in dict.fromkeys(each.kind for each in documents):
            of_kind = [each for each in documents if each.kind == kind]
            for first in range(0, len(of_kind), self._batch):
                yield self._together(of_kind[first : first + self._batch], kind, clock)

    def _together(self, documents: Sequence[Document], kind: str, clock: Callable[[], float]) -> list[Answered]:
        start_s = clock()
        asked = [(document, document.copies()) for document in documents]
        requests = repeated([instance for _, instances in asked for instance in instances])
        self.lm.generated.clear()
        try:
            answers = getattr(self.lm, kind)(requests, disable_tqdm=True)
        except (AssertionError, RuntimeError, ValueError) as error:
            told = f"the model did not answer: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise MeasurementError(told) from error
        for request, answer in zip(requests, answers, strict=True):
            request.resps.append(answer)
        end_s = clock()
        return [
            Answered(
                document,
                instances,
                start_s,
                end_s,
                self._lengths.get((document.task, document.number)),
                self._generated(instances) if kind == "generate_until" else None,
            )
            for document, instances in asked
        ]

    def _generated(self, instances: Sequence[Any]) -> int:
        """Tokens generated for a document; texts that are asked alike share theirs in order."""
        return sum(self.lm.generated[each.args[0]].pop(0) for each in repeated(instances))

    def facts(self) -> dict[str, object]:
        """As the decoding plugin tells them, and the context."""
        return self._facts | {
            "max_length": self.lm.max_length,
            "batch": self._batch,
            "threads": torch.get_num_threads(),
        }

    def flags(self) -> list[str]:
        """Documents that did not fit."""
        return self._cut

    def close(self) -> None:
        """Lets go of the model."""
        del self.lm

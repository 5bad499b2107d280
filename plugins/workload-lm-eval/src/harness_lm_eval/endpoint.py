"""A server of the OpenAI API answers: lm-eval's own payloads and parsers, a row for each document, faults apart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from lm_eval.models.openai_completions import (  # type: ignore[import-untyped]
    LocalChatCompletion,
    LocalCompletionsAPI,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-untyped]

from harness.errors import MeasurementError
from harness_lm_eval.documents import Answered, Answers, Document, repeated
from harness_lm_eval.options import LmEvalOptions
from harness_lm_eval.server_energy import LOOPBACK

PATHS: Final = {"completions": "completions", "chat": "chat/completions"}
FIRST_WAIT_S: Final = 0.5
"""Before the first retry; doubled for each further one."""
_BUSY: Final = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Call:
    """One request over HTTP, tokenised ahead.

    Attributes:
        messages: as `model_call` of lm-eval takes them.
        settings: of generation; None for a log-likelihood.
        context: tokens of the context of a log-likelihood.
    """

    messages: list[Any]
    settings: dict[str, Any] | None
    context: int = 0


def _calls(lm: Any, instance: Any) -> list[Call]:
    """The calls of one request: one, or for a rolling log-likelihood one for each stretch of the context's length."""
    if instance.request_type == "generate_until":
        return [Call([instance.args[0]], dict(instance.args[1]))]
    if instance.request_type == "loglikelihood_rolling":
        tokens = lm.tok_encode(instance.args[0])
        stretches = get_rolling_token_windows(
            token_list=tokens, prefix_token=lm.prefix_token_id, max_seq_len=lm.max_length - 1, context_len=1
        )
        pairs = [make_disjoint_window(each) for each in stretches]
    else:
        pairs = [lm.pair_of(*instance.args[:2])]
    calls = []
    for pair in pairs:
        inputs, contexts, _ = lm.batch_loglikelihood_requests([[(None, *pair)]])
        calls.append(Call(inputs, None, contexts[0]))
    return calls


class _Completions(LocalCompletionsAPI):  # type: ignore[misc] # lm-eval has no types
    def pair_of(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of context and continuation; an empty context is the token that a text begins with."""
        if context:
            found: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
            return found
        tokens = self.tok_encode(continuation)
        first = self.prefix_token_id
        return ([first], tokens) if first != tokens[0] else (tokens[:1], tokens[1:])


class Endpoint:
    """Asks a server; a document whose request fails has a fault, and the others go on.

    Args:
        options: of the workload; `endpoint` is given.

    Raises:
        MeasurementError: the tokenizer cannot be had, or no server listens.
    """

    def __init__(self, options: LmEvalOptions) -> None:
        assert options.endpoint is not None
        self._given = options.endpoint
        self._calls: dict[int, list[list[Call]]] = {}
        key = os.environ.get(self._given.api_key_env, "")
        self._secret = key
        if urlsplit(self._given.url).hostname in LOOPBACK:  # no proxy on the way to this very machine
            os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), *sorted(LOOPBACK)]))
        made = {"completions": _Completions, "chat": LocalChatCompletion}[self._given.api]
        try:
            self.lm = made(
                base_url=f"{self._given.url}/{PATHS[self._given.api]}",
                model=self._given.model,
                tokenizer=self._given.tokenizer or None,
                tokenizer_backend="huggingface" if self._given.tokenizer else None,
                tokenized_requests=False,
                max_length=self._given.max_length,
                **({} if options.seed is None else {"seed": options.seed}),
                header={"Authorization": f"Bearer {key}"} if key else {"Accept": "application/json"},
                verify_certificate=self._given.ca or True,
                timeout=max(1, round(self._given.request_timeout)),
                trust_remote_code=False,
            )
        except (OSError, ValueError) as error:
            said = str(error).strip().partition("\n")[0]
            raise MeasurementError(f"the tokenizer cannot be loaded: {said}", where="endpoint.tokenizer") from error
        self._reach()

    def _reach(self) -> None:
        """Refuses a server that nobody runs, before a window opens."""
        try:
            requests.get(f"{self._given.url}/models", timeout=10, headers=self.lm.header, verify=self._given.ca or True)
        except requests.RequestException as error:
            raise MeasurementError(
                f"no answer from {self._given.url}: {type(error).__name__}", where="endpoint.url", hint="is it running?"
            ) from None

    def prepare(self, documents: Sequence[Document]) -> list[Document]:
        """Tokenises what needs log-likelihoods.

        Raises:
            MeasurementError: the tokenizer is missing, or the API has none.
        """
        for document in documents:
            if document.kind != "generate_until" and (self._given.api == "chat" or not self._given.tokenizer):
                told = f"task {document.task} needs log-likelihoods, so a tokenizer and the completions API"
                raise MeasurementError(told, where="endpoint", accepted="tokenizer: FOLDER, api: completions")
            self._calls[id(document)] = [_calls(self.lm, each) for each in document.instances]
        return list(documents)

    def answers(self, documents: Sequence[Document], clock: Callable[[], float]) -> Answers:
        """Keeps `concurrency` documents under way, and yields each when it is answered."""
        waiting = iter(documents)
        under_way: set[Future[Answered]] = set()
        with ThreadPoolExecutor(self._given.concurrency) as pool:
            try:
                while True:
                    while len(under_way) < self._given.concurrency and (document := next(waiting, None)) is not None:
                        under_way.add(pool.submit(self._ask, document, clock))
                    if not under_way:
                        return
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for each in done:
                        yield [each.result()]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, document: Document, clock: Callable[[], float]) -> Answered:
        start_s = clock()
        instances = document.copies()
        read = written = 0
        known = True
        try:
            for instance, calls in zip(instances, self._calls[id(document)], strict=True):
                for request in repeated([instance]):
                    answer, usages = self._answer(calls, document.kind)
                    request.resps.append(answer)
                    known &= all({"prompt_tokens", "completion_tokens"} <= usage.keys() for usage in usages)
                    read += sum(int(usage.get("prompt_tokens") or 0) for usage in usages)
                    written += sum(int(usage.get("completion_tokens") or 0) for usage in usages)
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            return Answered(document, instances, start_s, clock(), None, None, self._said(error))
        generated = document.kind == "generate_until"
        return Answered(
            document, instances, start_s, clock(), read if known else None, written if known and generated else None
        )

    def _answer(self, calls: Sequence[Call], kind: str) -> tuple[Any, list[dict[str, Any]]]:
        """What lm-eval's parser makes of the answers, and the tokens that the server counted."""
        outputs = [self._posted(call) for call in calls]
        usages = [dict(each.get("usage") or {}) for each in outputs]
        if kind == "generate_until":
            return self.lm.parse_generations(outputs=outputs[0])[0] or "", usages
        parsed = [
            self.lm.parse_logprobs(outputs=output, tokens=call.messages, ctxlens=[call.context])[0]
            for output, call in zip(outputs, calls, strict=True)
        ]
        return sum(each[0] for each in parsed) if kind == "loglikelihood_rolling" else parsed[0], usages

    def _posted(self, call: Call) -> dict[str, Any]:
        """The answer, after retries. Raises OSError, TypeError or ValueError."""
        attempt = 0
        while True:
            try:
                found = self.lm.model_call(
                    messages=call.messages, generate=call.settings is not None, gen_kwargs=call.settings
                )
            except requests.RequestException as error:
                status = error.response.status_code if error.response is not None else None
                final = status is not None and status not in _BUSY and status < 500
                if final or attempt == self._given.retries:
                    raise
                time.sleep(FIRST_WAIT_S * 2**attempt)
                attempt += 1
                continue
            if not isinstance(found, dict):
                raise TypeError("the server's answer is not a JSON object")
            return found

    def _said(self, error: Exception) -> str:
        """A fault in one line, without the key."""
        said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return said.replace(self._secret, "***") if self._secret else said

    def facts(self) -> dict[str, object]:
        """The server as the suite names it. Never the key."""
        given = self._given
        return {
            "url": given.url,
            "model": given.model,
            "api": given.api,
            "tokenizer": given.tokenizer or None,
            "concurrency": given.concurrency,
            "key_sent": bool(self._secret),
        }

    def flags(self) -> list[str]:
        """Nothing of its own."""
        return []

    def close(self) -> None:
        """Forgets what was tokenised."""
        self._calls.clear()

"""What the decoding workloads share, and `vanilla`: autoregressive sampling from one causal language model."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from harness_backend_torch.devices import device_uuid, torch_device
from transformers import PreTrainedModel

from harness.errors import MeasurementError, UsageError
from harness.workload import FetchContext, TrialContext, Window, Workload
from harness_speculative_decoding.data import corpus, prompts
from harness_speculative_decoding.data.chat import template_digest
from harness_speculative_decoding.loading import Loaded, Placement, fetch_causal_lm, load_causal_lm
from harness_speculative_decoding.methods.decoding import Generation, Request, check_request, generate
from harness_speculative_decoding.methods.sampling import Sampling, SpeculationError
from harness_speculative_decoding.methods.stopping import Stop, StopStrings, never
from harness_speculative_decoding.networks.cached import CausalModel
from harness_speculative_decoding.networks.quantization import Quantization
from harness_speculative_decoding.options import DRAFT_WORDS, FETCHED, DecodingOptions, VanillaOptions
from harness_speculative_decoding.rewards import FUNCTIONS
from harness_speculative_decoding.together import pass_facts, warm_up, wrap_alone


def request_seed(trial: int, window: int, request: int) -> int:
    """The seed of a request's generator: another one for every request, the same in a repetition."""
    text = f"{trial}:{window}:{request}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1


class Decoding(Workload):
    """One step decodes one batch of prompts; each request is a work item. A method says what it loads and decodes."""

    def __init__(self, options: DecodingOptions) -> None:
        self._options = options
        self._sampling = Sampling(options.temperature, options.top_k, options.top_p)
        self._loaded: Loaded | None = None
        self._prompts: list[prompts.Prompt] = []
        self._eos: frozenset[int] = frozenset()
        self._strings: StopStrings | None = None
        self._device = ""
        self._others: tuple[str, ...] = ()
        self._seed = 0
        self._next = 0
        self._busy_s = 0.0

    def fetch(self, context: FetchContext) -> None:
        """Builds or downloads every model that the options name, and the prose that built-in prompts come from."""
        for name in FETCHED:
            value = getattr(self._options, name, None)
            words = {"reward": tuple(FUNCTIONS), "draft": DRAFT_WORDS}.get(name, ())
            if isinstance(value, str) and value not in words and self._loads(name):
                fetch_causal_lm(value, context.cache, context.progress)
        if self._options.prompts == prompts.BUILTIN:
            (context.cache / "models").mkdir(parents=True, exist_ok=True)
            corpus.load(context.cache / "models")

    def _loads(self, option: str) -> bool:
        """Whether the model that an option names is loaded."""
        del option
        return True

    def prepare(self, context: TrialContext) -> None:
        """Loads the model, building it first if need be, and the prompts; refuses what does not fit its context."""
        options = self._options
        device = torch_device(context.backend)
        self._device = device_uuid(device)
        self._seed = context.seed
        self._loaded = self._load(context, device)
        self._eos = frozenset() if options.ignore_eos else self._loaded.eos()
        tokenizer = self._loaded.tokenizer
        if options.stop:
            self._strings = StopStrings(tokenizer, options.stop)
        if options.prompts == prompts.BUILTIN:
            context.progress("reading held-out prose", None)
            text = corpus.load(context.cache / "models").held_out
            self._prompts = prompts.from_held_out(text, tokenizer, options.prompt_tokens)
        else:
            self._prompts = prompts.from_file(Path(options.prompts).expanduser(), tokenizer)
        for number, prompt in enumerate(self._prompts, start=1):
            try:
                check_request(self._loaded.model, prompt.ids, options.max_new_tokens)
            except ValueError as error:
                raise UsageError(
                    f"prompt {number} of {options.prompts!r}: {error}",
                    accepted="a shorter prompt, or smaller `prompt_tokens` and `max_new_tokens`",
                ) from None

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        """Loads what the method needs and returns the model whose tokenizer and context the prompts must fit."""
        return self._load_model(self._options.target, context, device, self._options.quantization)

    def _load_model(
        self, name: str, context: TrialContext, device: torch.device, quantization: Quantization = "none"
    ) -> Loaded:
        options = self._options
        return load_causal_lm(
            name,
            device,
            options.dtype,
            context.cache,
            context.progress,
            quantization,
            trust_remote_code=options.trust_remote_code,
        )

    @abstractmethod
    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        """Decodes a batch; one result a request."""

    def _columns(self, prompt: Sequence[int], generation: Generation) -> Mapping[str, float | None]:
        """What the method took: calls and counts; absent where it has no such thing."""
        tokens = len(generation.tokens)
        return {"prefill_calls": float(len(prompt) > 1), "target_calls": tokens, "tokens_per_target_call": 1.0}

    def run(self, window: Window) -> None:
        """The whole window, then how long the device worked in it."""
        self._next = 0
        self._busy_s = 0.0
        super().run(window)
        for device in (self._device, *self._others):
            window.device(device, busy_s=self._busy_s, reserved_s=max(window.now_s(), self._busy_s))

    def step(self, window: Window) -> None:
        """Decodes the next batch; prompts are taken in turn, beginning with the first one in every window."""
        assert self._loaded is not None, "prepare() comes first"
        numbers = range(self._next, self._next + self._options.batch)
        self._next += self._options.batch
        chosen = [self._prompts[number % len(self._prompts)] for number in numbers]
        requests = [
            Request(prompt.ids, request_seed(self._seed, window.index, number), prompt.reference)
            for number, prompt in zip(numbers, chosen, strict=True)
        ]
        start_s = window.now_s()
        try:
            generations = self._decode(requests, window)
        except SpeculationError as error:
            raise MeasurementError(f"decoding broke an invariant: {error}") from error
        self._busy_s += window.now_s() - start_s
        for number, prompt, generation in zip(numbers, chosen, generations, strict=True):
            self._record(window, f"w{window.index}-r{number}", prompt, generation, start_s)

    def _record(
        self, window: Window, item_id: str, prompt: prompts.Prompt, generation: Generation, start_s: float
    ) -> None:
        assert self._loaded is not None
        first_s, end_s = generation.token_s[0], generation.token_s[-1]
        output_tokens = len(generation.tokens)
        columns: dict[str, float | None] = {
            "start_s": start_s,
            "first_token_s": first_s,
            "end_s": end_s,
            "prompt_tokens": len(prompt.ids),
            "output_tokens": output_tokens,
            "total_tokens": len(prompt.ids) + output_tokens,
            "ttft_s": first_s - start_s,
            "tpot_s": (end_s - first_s) / max(1, output_tokens - 1),
            "latency_s": end_s - start_s,
            "logprob": generation.logprob,
        }
        window.item(item_id, status="ok", **(columns | dict(self._columns(prompt.ids, generation))))
        text = self._text(generation.tokens)
        known = {} if prompt.reference is None else {"reference": prompt.reference}
        window.output(item_id, {"prompt": prompt.text, **known, "text": text, "tokens": generation.tokens})

    @property
    def _stop(self) -> Stop:
        """What ends a request beside an end token."""
        return self._strings or never

    def _text(self, tokens: Sequence[int]) -> str:
        """An answer as text, up to its first stop string."""
        assert self._loaded is not None
        text = str(self._loaded.tokenizer.decode(list(tokens), skip_special_tokens=True))
        return text if self._strings is None else self._strings.cut(text)

    def facts(self) -> Mapping[str, object]:
        """Model, prompts and threads."""
        if self._loaded is None:
            return {}
        chat = any(prompt.chat for prompt in self._prompts)
        template = {"chat_template_sha256": template_digest(self._loaded.tokenizer)} if chat else {}
        return {
            "target": self._loaded.facts,
            "prompts": {
                "source": self._options.prompts,
                "count": len(self._prompts),
                "sha256": prompts.digest(self._prompts),
                **template,
            },
            "passes": self._passes(),
            "threads": torch.get_num_threads(),
        }

    def _passes(self) -> Mapping[str, object]:
        """How each model's passes are made."""
        return {"target": {"cache": "transformers'"}}

    def close(self) -> None:
        """Lets go of the model."""
        self._loaded = None


class Alone(Decoding):
    """One model decodes by itself, on the same kind of passes as the methods that need several."""

    def __init__(self, options: DecodingOptions) -> None:
        super().__init__(options)
        self._model: CausalModel | PreTrainedModel | None = None

    def prepare(self, context: TrialContext) -> None:
        """Also chooses the cache, and captures passes ahead of the first window."""
        super().prepare(context)
        assert self._loaded is not None
        self._model = self._wrapped(self._loaded, context)
        lengths = [len(prompt.ids) for prompt in self._prompts]
        warm_up(self._model, self._rows(), lengths, max(lengths) + self._options.max_new_tokens, [(1, 1)])

    def _rows(self) -> int:
        """Answers that are decoded together."""
        return self._options.batch

    def _wrapped(self, loaded: Loaded, context: TrialContext) -> CausalModel | PreTrainedModel:
        """The model as it decodes: with the cache that fits it."""
        options = self._options
        return wrap_alone(loaded, fused=options.fused, compiled=options.compile, rows=self._rows(), cache=context.cache)

    def _generate(self, requests: Sequence[Request], window: Window) -> list[Generation]:
        assert self._model is not None, "prepare() comes first"
        return generate(
            self._model,
            requests,
            sampling=self._sampling,
            max_new_tokens=self._options.max_new_tokens,
            eos=self._eos,
            stop=self._stop,
            clock=window.now_s,
        )

    def _passes(self) -> Mapping[str, object]:
        return {"target": pass_facts(self._model)}

    def close(self) -> None:
        """Lets go of the model."""
        super().close()
        self._model = None


class Vanilla(Alone):
    """Samples from one model, on one device or spread over several."""

    def __init__(self, options: DecodingOptions) -> None:
        super().__init__(options)
        self._how = options.device_map if isinstance(options, VanillaOptions) else "none"
        self._spread = self._how != "none"

    def _load(self, context: TrialContext, device: torch.device) -> Loaded:
        options = self._options
        if not self._spread:
            return super()._load(context, device)
        devices = tuple(getattr(context.backend, "devices", (device,)))
        self._others = tuple(device_uuid(each) for each in devices[1:])
        return load_causal_lm(
            options.target,
            device,
            options.dtype,
            context.cache,
            context.progress,
            options.quantization,
            trust_remote_code=options.trust_remote_code,
            placement=Placement(self._how, devices),
        )

    def _wrapped(self, loaded: Loaded, context: TrialContext) -> CausalModel | PreTrainedModel:
        return loaded.model if self._spread else super()._wrapped(loaded, context)

    def _decode(self, requests: Sequence[Request], window: Window) -> Sequence[Generation]:
        return self._generate(requests, window)

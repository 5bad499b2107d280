"""Options of workload `serve-endpoint`, as a suite writes them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from harness.options import Duration, Options, Share
from harness.suite_paths import OptionFault, SuitePath, SuiteSource, looks_like_a_path, missing
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.prompts import PromptOptions
from harness_disaggregated_serving.load.slo import Attainment, Positive, SloOption

PORT = "{port}"
MODEL = "{model}"
_SENT_BY_THE_CLIENT = ("model", "prompt", "messages", "max_tokens", "stream", "stream_options", "temperature")


def check_words(given: str | list[str]) -> None:
    """Raises ValueError for a command that a shell could not split, or that names no program."""
    try:
        words = shlex.split(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"it is no command: {error}; accepted: words as a shell splits them, or a list") from None
    if not words or not words[0].strip():
        raise ValueError("it names no program; accepted: words as a shell splits them, or a list")


class ServerOptions(Options):
    """What the server is, so that its energy is charged and nobody else's.

    Attributes:
        pid: process id of the server on this machine; its process tree is read as role `server`.
        name: name of its program, or of the first word of its command line, where one process tree has it.
        container: id or name of the container that it runs in, as docker or podman know it.
        command: the harness starts this command, waits until it is healthy, and ends its process tree. A text is split
            into words as a shell does; `{port}` becomes a free port, and then no `url` is needed; `{model}` becomes
            option `model`, so that a matrix may vary it.
        environment: variables set for `command` besides the present ones.
        health: path that answers with status 200 once `command` can serve.
        start_timeout: longest wait for that; seconds, or `10min`.
        stop_timeout: how long it may take to end when it is asked to, before it is killed; seconds, or `10s`.
        version: command that prints the server's version; the server itself is asked if not given.
        gpus: GPUs that the server uses: product name by UUID, as `nvidia-smi -L` prints them; meters of devices
            read these, and `command` sees no others. Of a server on another machine they are what it is made of, so
            that their making is charged.
        meters: names of the meters that read a server on another machine, such as `prometheus`: what they read is
            charged, and nothing that this machine is made of. Processor and memory of the server's host are charged
            where the impact meter declares them (`fuel: {host: ...}`).
        metrics: path of the server's own metrics in Prometheus' text format; `auto` reads `/metrics` where it is there,
            an empty text reads none.
    """

    pid: Annotated[int, Field(ge=1)] | None = None
    name: str | None = None
    container: str | None = None
    command: str | list[str] | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    health: Annotated[str, Field(pattern=r"^/")] = "/health"
    start_timeout: Annotated[Duration, Field(gt=0)] = 600.0
    stop_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    version: str | list[str] | None = None
    gpus: dict[str, str] = Field(default_factory=dict)
    meters: list[str] = Field(default_factory=list)
    metrics: Annotated[str, Field(pattern=r"^(auto|/.*|)$")] = "auto"

    @field_validator("command", "version")
    @classmethod
    def _words(cls, given: str | list[str] | None) -> str | list[str] | None:
        if given is not None:
            check_words(given)
        return given

    @model_validator(mode="after")
    def _one_of(self) -> ServerOptions:
        named = [key for key in ("pid", "name", "container", "command") if getattr(self, key)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} each name the server; accepted: one of them")
        return self

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return any((self.pid, self.name, self.container, self.command))


class MaxQps(Options):
    """The greatest request rate at which the latency targets hold.

    Attributes:
        slo_attainment: share of the requests that has to meet `slo`; a number, or `90%`.
        resolution: the search ends where the rates that hold and do not hold differ by so much; `5%`.
        probes: it ends after so many streams in any case.
        requests: requests of each of them; `requests` of the workload if not given.
    """

    slo_attainment: Attainment = 0.9
    resolution: Annotated[Share, Field(gt=0, lt=1)] = 0.05
    probes: Annotated[int, Field(ge=2, le=50)] = 12
    requests: Annotated[int, Field(ge=1, le=100_000)] | None = None


class SearchOptions(Options):
    """What is searched for before the first window.

    Attributes:
        max_qps: the greatest rate at which the latency targets hold; the windows then run at it.
    """

    max_qps: MaxQps


class EndpointOptions(Options):
    """Options of workload `serve-endpoint`.

    Attributes:
        url: base address of the API, its version included: `http://127.0.0.1:8000/v1`. Never with a user or
            password. Not needed where `server: {command: ...}` names `{port}`.
        model: name of the model, as the server has it.
        api: `completions` sends a prompt, `chat` a message of the user.
        stream: whether answers come token by token; without it there is no TTFT, no TPOT, and no target is met.
        usage_per_chunk: whether the server is asked for the token count in every chunk (`continuous_usage_stats`, which
            vLLM and SGLang know; others may refuse it). Without it the tokens of a chunk are estimated where chunks
            hold several.
        api_key_env: environment variable that holds the key; none is sent where it is not set or empty. The key is
            never recorded.
        ca: file with the server's certificate authority, beside which none is trusted; the system's if not given.
        server: what serves, so that its energy is charged; without it the energy is not available.
        connect_timeout: longest wait for a connection; seconds, or `5s`.
        silence_timeout: longest wait for the next byte; seconds, or `30s`.
        request_timeout: longest time of one attempt; seconds, or `300s`.
        retries: attempts after the first one, for refusals (408, 429, 5xx) and connections lost before the first
            token.
        retry_wait: wait before the first retry, doubled for each further one; seconds, or `500ms`; a server's
            `Retry-After` goes before it.
        temperature: of sampling; 0 for greedy decoding.
        extra: further fields of the request, as the engine knows them: `{ignore_eos: true}`.
        arrivals: when requests arrive: `poisson`, random gaps with `qps` as mean rate; `constant`, equal gaps;
            `all_at_once`, all at the start. Arrivals never wait for answers. Not used with a `trace` that has times.
        concurrency: a closed loop in place of arrivals: so many users, each of whom sends a request when the last one
            is answered.
        ramp: rate or number of users grows for so long at the start; seconds, or `10s`.
        warm_up_cut: the span `steady` begins no earlier; seconds, or `30s`.
        duration: requests are sent for so long; in place of `requests`. Those sent before are waited for.
        trace: requests in place of drawn ones. CSV with the columns `arrival_s`, `prompt_tokens`, `output_tokens`, or a
            published trace as it is: Azure LLM inference of 2023 and 2024, BurstGPT, Mooncake, and without times
            ShareGPT and the JSON Lines of `vllm bench serve`. Lengths are scaled by `length_scale` too.
        trace_speed: a trace's times are divided by it: 2 sends twice as fast.
        qps: requests per second. Not used with a `trace` that has times.
        sizes: application whose prompt and output lengths are drawn: `chat`, `code` or `summarisation`, synthetic.
            Not used with a `trace`.
        prompts: where the text of requests comes from.
        tokenizer: tokenizer of the model, a folder or the name of a cached one: prompts then have exactly the tokens
            that are asked for. Without it a prompt has that many words.
        length_scale: factor on all prompt and output lengths; above 0, up to 1; each length stays at least 1 token.
        requests: how many requests a window has; at most so many rows of a `trace` if it is given with one.
        search: a rate that is searched for before the first window: `{max_qps: {slo_attainment: 90%}}`.
        slo: latency targets that a request has to meet, both of them: `longbench` (TTFT 15 s, TPOT 0.15 s),
            `sharegpt-13b`, `sharegpt-66b`, `sharegpt-175b`, `humaneval-66b`, `longbench-66b`, or `{ttft: 2s, tpot:
            100ms}`.
        seed: of arrivals, lengths and prompts; the trial's own seed is added, so that the same trial of two
            compared points gets the same requests.
    """

    url: str = ""
    model: Annotated[str, Field(min_length=1)]
    api: Literal["completions", "chat"] = "completions"
    stream: bool = True
    usage_per_chunk: bool = False
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    ca: SuitePath | None = None
    server: ServerOptions = ServerOptions()
    connect_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    silence_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    request_timeout: Annotated[Duration, Field(gt=0)] = 300.0
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    retry_wait: Annotated[Duration, Field(ge=0, le=60)] = 0.5
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    extra: dict[str, Any] = Field(default_factory=dict)
    arrivals: Literal["poisson", "constant", "all_at_once"] = "poisson"
    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    ramp: Annotated[Duration, Field(ge=0)] = 0.0
    warm_up_cut: Annotated[Duration, Field(ge=0)] = 0.0
    duration: Annotated[Duration, Field(gt=0)] | None = None
    trace: SuitePath | None = None
    trace_speed: Positive = 1.0
    qps: Positive = 1.0
    sizes: str = "chat"
    prompts: PromptOptions = PromptOptions()
    tokenizer: SuiteSource | None = None
    length_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    search: SearchOptions | None = None
    slo: SloOption = "longbench"
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"{error}; accepted: http://HOST:PORT/v1 or https://HOST/v1") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("accepted: http://HOST:PORT/v1 or https://HOST/v1, without a query")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address goes into the record: give the key by `api_key_env`, not in it")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> EndpointOptions:
        if self.sizes not in APPLICATIONS:
            raise ValueError(f"no sizes {self.sizes!r}; accepted: {', '.join(APPLICATIONS)}")
        taken = sorted(set(self.extra) & set(_SENT_BY_THE_CLIENT))
        if taken:
            raise ValueError(f"`extra` names {', '.join(taken)}, which the client sends itself")
        command = self.server.command
        if not self.url and PORT not in " ".join([command] if isinstance(command, str) else command or ()):
            raise ValueError("there is no url; accepted: one, or `server: {command: ...}` with {port} in it")
        if self.concurrency is not None and self.search is not None:
            raise ValueError("a closed loop has no request rate to search for; accepted: one of concurrency and search")
        if self.duration is not None and self.requests is not None:
            raise ValueError("duration and requests both say when a window ends; accepted: one of them")
        if self.duration is not None and self.concurrency is None and self.arrivals == "all_at_once" and not self.trace:
            raise ValueError("all requests at once take no duration; accepted: requests")
        return self


def check(options: EndpointOptions) -> Iterator[OptionFault]:
    """Files that are not there."""
    if options.ca is not None:
        yield from missing("ca", options.ca)
    if options.trace is not None:
        yield from missing("trace", options.trace)
    if options.prompts.path:
        yield from missing("prompts", options.prompts.path, folder=options.prompts.source == "dataset")
    if options.tokenizer is not None and looks_like_a_path(options.tokenizer):
        yield from missing("tokenizer", options.tokenizer, folder=True)

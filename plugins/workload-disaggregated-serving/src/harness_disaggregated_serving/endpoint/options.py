"""Options of workload `serve-endpoint`, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, field_validator, model_validator

from harness.options import Duration, Options
from harness.suite_paths import SuitePath
from harness_disaggregated_serving.load.lengths import APPLICATIONS
from harness_disaggregated_serving.load.slo import SLOS, SloOptions

_SENT_BY_THE_CLIENT = ("model", "prompt", "messages", "max_tokens", "stream", "stream_options", "temperature")


class ServerOptions(Options):
    """What of the server's host is metered, when the suite runs there.

    Attributes:
        pid: process id of the server; meters of processes read its process tree as role `server`.
        gpus: GPUs that the server uses: product name by UUID, as `nvidia-smi -L` prints them; meters of devices
            read these.
    """

    pid: Annotated[int, Field(ge=1)] | None = None
    gpus: dict[str, str] = Field(default_factory=dict)


class EndpointOptions(Options):
    """Options of workload `serve-endpoint`.

    Attributes:
        url: base address of the API, its version included: `http://127.0.0.1:8000/v1`. Never with a user or
            password.
        model: name of the model, as the server has it.
        api: `completions` sends a prompt, `chat` a message of the user.
        api_key_env: environment variable that holds the key; none is sent where it is not set or empty. The key is
            never recorded.
        ca: file with the server's certificate authority, beside which none is trusted; the system's if not given.
        server: what of the server's host is metered, when the suite runs there.
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
            `all_at_once`, all at the start. Arrivals never wait for answers. Not used with a `trace`.
        trace: CSV file with the columns `arrival_s`, `prompt_tokens`, `output_tokens`: requests in place of drawn
            ones. They are scaled by `length_scale` too.
        qps: requests per second. Not used with a `trace`.
        sizes: application whose prompt and output lengths are drawn: `chat`, `code` or `summarisation`, synthetic.
            Not used with a `trace`.
        length_scale: factor on all prompt and output lengths; above 0, up to 1; each length stays at least 1 token.
        requests: how many requests a window has. Not used with a `trace`.
        slo: latency targets that a request has to meet, both of them: `longbench` (TTFT 15 s, TPOT 0.15 s),
            `sharegpt-13b`, `sharegpt-66b`, `sharegpt-175b`, `humaneval-66b`, `longbench-66b`, or `{ttft: 2s, tpot:
            100ms}`.
        seed: of arrivals, lengths and prompts; the trial's own seed is added, so that the same trial of two
            compared points gets the same requests.
    """

    url: str
    model: Annotated[str, Field(min_length=1)]
    api: Literal["completions", "chat"] = "completions"
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    ca: str | None = None
    server: ServerOptions = ServerOptions()
    connect_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    silence_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    request_timeout: Annotated[Duration, Field(gt=0)] = 300.0
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    retry_wait: Annotated[Duration, Field(ge=0, le=60)] = 0.5
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    extra: dict[str, Any] = Field(default_factory=dict)
    arrivals: Literal["poisson", "constant", "all_at_once"] = "poisson"
    trace: SuitePath | None = None
    qps: PositiveFloat = 1.0
    sizes: str = "chat"
    length_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    requests: Annotated[int, Field(ge=1, le=100_000)] = 40
    slo: str | SloOptions = "longbench"
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("accepted: http://HOST:PORT/v1 or https://HOST/v1, without a query")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address goes into the record: give the key by `api_key_env`, not in it")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> EndpointOptions:
        if self.sizes not in APPLICATIONS:
            raise ValueError(f"no sizes {self.sizes!r}; accepted: {', '.join(APPLICATIONS)}")
        if isinstance(self.slo, str) and self.slo not in SLOS:
            raise ValueError(f"no slo {self.slo!r}; accepted: {', '.join(SLOS)}")
        taken = sorted(set(self.extra) & set(_SENT_BY_THE_CLIENT))
        if taken:
            raise ValueError(f"`extra` names {', '.join(taken)}, which the client sends itself")
        return self

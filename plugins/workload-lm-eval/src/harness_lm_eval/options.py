"""Options of the workload, as a suite writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from harness.options import Duration, Options
from harness.suite_paths import SuitePath, SuiteSource

_OF_A_LOCAL_MODEL = ("batch", "dtype", "quantization", "trust_remote_code")


class ServerOptions(Options):
    """What serves, so that its energy is charged and not that of the process that asks.

    Attributes:
        pid: process id of the server on this machine; its process tree is read as role `server`.
        gpus: GPUs that the server uses: product name by UUID, as `nvidia-smi -L` prints them.
        meters: names of the meters that read a server on another machine, such as `prometheus`: what they read is
            charged.
    """

    pid: Annotated[int, Field(ge=1)] | None = None
    gpus: dict[str, str] = Field(default_factory=dict)
    meters: list[str] = Field(default_factory=list)


class EndpointOptions(Options):
    """A server of the OpenAI API that answers in place of a local model.

    Attributes:
        url: base address of the API, its version included: `http://127.0.0.1:8000/v1`.
        model: name of the model, as the server has it.
        api: `completions` sends a prompt, `chat` messages. Log-likelihoods need `completions`, with `echo` and
            `logprobs`.
        tokenizer: the model's tokenizer, a folder or the name of a cached one, which log-likelihoods need.
        max_length: longest context of the model, in tokens; what is longer is cut from the left.
        api_key_env: environment variable that holds the key; none is sent where it is not set or empty. The key is
            never recorded.
        ca: file with the server's certificate authority; the system's if not given.
        concurrency: documents that are asked at a time.
        request_timeout: longest time of one attempt; seconds, or `300s`.
        retries: attempts after the first one, for refusals (408, 429, 5xx) and lost connections.
        server: what serves; without it the energy is not available.
    """

    url: str
    model: Annotated[str, Field(min_length=1)]
    api: Literal["completions", "chat"] = "completions"
    tokenizer: SuiteSource = ""
    max_length: Annotated[int, Field(ge=2)] = 2048
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    ca: SuitePath = ""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 1
    request_timeout: Annotated[Duration, Field(gt=0)] = 300.0
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    server: ServerOptions = ServerOptions()

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("accepted: http://HOST:PORT/v1 or https://HOST/v1, without a query")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address goes into the record: give the key by `api_key_env`, not in it")
        return url.rstrip("/")


class LmEvalOptions(Options):
    """Options of workload `lm-eval`.

    Attributes:
        tasks: names of tasks, groups or tags of lm-evaluation-harness, or of those in `include_path`.
        include_path: folder with task files of your own, as `lm_eval --include_path` takes it; their data may lie
            beside them.
        model: the model that answers: `builtin:small` or `builtin:tiny`, a folder of `save_pretrained`, or a hub id.
        endpoint: a server that answers. In place of `model`.
        metric: what the column `correct` holds: `acc_norm`, or with one of the task's filters
            `exact_match,strict-match`. Without a value `acc`, else `exact_match`, else nothing.
        limit: documents of each task, the first ones; all if not given. Every window asks all of them.
        num_fewshot: solved examples before each question, where the task does not say 0; its own number if not given.
        batch: documents asked together, and requests of one pass: lm-eval's `batch_size`.
        dtype: number type of weights and passes.
        quantization: of the linear layers, through torchao: `int8-weight-only` computes in `dtype`, `int8-dynamic`
            also rounds activations to 8 bits.
        apply_chat_template: put questions into the model's chat template; `api: chat` always does.
        system_instruction: text before every question; empty for none.
        seed: of examples and of what else tasks draw, as lm-eval's `--seed`; its own seeds if not given. A server is
            sent it too; a local model samples with the trial's own.
        gen_kwargs: settings of generation over those of the task: `{max_gen_toks: 64}`.
        trust_remote_code: run the Python code that comes with a model; the record says that it was allowed.
    """

    tasks: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    include_path: SuitePath = ""
    model: SuiteSource = ""
    endpoint: EndpointOptions | None = None
    metric: str = ""
    limit: Annotated[int, Field(ge=1)] | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] = 1
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    quantization: Literal["none", "int8-weight-only", "int8-dynamic"] = "none"
    apply_chat_template: bool = False
    system_instruction: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_that_answers(self) -> LmEvalOptions:
        if bool(self.model) == (self.endpoint is not None):
            found = "both model and endpoint are given" if self.model else "nothing answers"
            raise ValueError(f"{found}; accepted: either `model` or `endpoint`")
        if self.endpoint is not None and (given := sorted(self.model_fields_set & set(_OF_A_LOCAL_MODEL))):
            raise ValueError(f"{', '.join(given)}: the server decides that, not this suite; accepted with `model`")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice")
        return self

    @property
    def chat(self) -> bool:
        """Whether questions become messages."""
        return self.apply_chat_template or (self.endpoint is not None and self.endpoint.api == "chat")

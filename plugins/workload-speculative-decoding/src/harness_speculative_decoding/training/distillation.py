"""Distils a small draft from a large model's own answers: same vocabulary, factorised embedding, full laws as the goal.

The target answers instructions, and at each of its tokens the most likely continuations are kept with their logits. The
draft learns those laws (forward Kullback-Leibler divergence) at the temperature at which it will propose, which is what
a proposal is accepted by: the mean over positions of sum(min(target, draft)) is the acceptance of plain speculative
sampling, for prefixes that the target itself wrote.

The draft is an OPT model, because its architecture has a factorised embedding (`word_embed_proj_dim`): the embedding
begins as the target's own, projected on its strongest directions, and is multiplied once more for the logits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from harness_speculative_decoding.data import instructions
from harness_speculative_decoding.data.chat import prompt_ids
from harness_speculative_decoding.methods.decoding import Request, generate
from harness_speculative_decoding.methods.sampling import Sampling
from harness_speculative_decoding.networks.cache_choice import cached_model
from harness_speculative_decoding.networks.cached import CausalModel
from harness_speculative_decoding.training.instruct_recipes import DistilledRecipe
from harness_speculative_decoding.training.pretraining import CHECKPOINT_EVERY, Progress, Trained, fixed_threads
from harness_speculative_decoding.training.recipes import PREFIX
from harness_speculative_decoding.training.settings import Schedule, learning_rate

KEPT: Final = 64
"""Most likely tokens whose logits are kept at each position; the rest is left out of the goal."""
AT_ONCE: Final = 64
"""Answers decoded together."""
EMBEDDING_STD: Final = 0.3
"""Of the projected embedding's numbers, before training."""
INTO_STD: Final = 0.17
"""Of the weights behind the embedding, so that a token outweighs its place (0.02) in what the first layer reads."""
OUT_OF_STD: Final = 0.02
"""Of the weights in front of the logits, which begin with a standard deviation near 1."""
JUDGED_SEED: Final = 2**40
"""Far from the seeds of the answers that are learnt."""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer of the target, and its law at each token.

    Attributes:
        prompt: token ids.
        answer: token ids, an end token included.
        tokens: most likely ids at each position of the answer, (tokens, KEPT).
        logits: of those, at temperature 1, (tokens, KEPT).
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    tokens: Tensor
    logits: Tensor


class _Heard:
    """A `CausalModel` that keeps the strongest logits of every pass."""

    def __init__(self, model: CausalModel) -> None:
        self.model = model
        self.device = model.device
        self.kept: list[Any] = []

    @property
    def lengths(self) -> list[int]:
        return self.model.lengths

    @lengths.setter
    def lengths(self, lengths: list[int]) -> None:
        self.model.lengths = lengths

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        self.kept = []
        self.model.prefill(prompts, capacity)

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        logits = self.model.extend(tokens, keep)
        self.kept.append(logits[:, -1].float().topk(min(KEPT, logits.shape[-1])))
        return logits

    def drop(self, counts: Sequence[int]) -> None:
        self.model.drop(counts)

    def select(self, rows: Sequence[int]) -> None:
        self.model.select(rows)


def written(
    target: PreTrainedModel,
    prompts: Sequence[tuple[int, ...]],
    recipe: DistilledRecipe,
    eos: frozenset[int],
    samples: int,
    seed: int,
    progress: Progress,
) -> list[Written]:
    """Answers of the target to each prompt, in the order of the prompts; each depends on its own seed alone."""
    heard = _Heard(cached_model(target))
    requests = [
        Request(prompt, seed + number * samples + sample)
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]
    found: list[Written] = []
    for first in range(0, len(requests), AT_ONCE):
        some = requests[first : first + AT_ONCE]
        progress(f"answers for {PREFIX}{recipe.name}", first / len(requests))
        answers = generate(
            heard, some, sampling=Sampling(recipe.temperature), max_new_tokens=recipe.answer_tokens, eos=eos
        )
        values = torch.stack([each.values for each in heard.kept], 1)
        indices = torch.stack([each.indices for each in heard.kept], 1)
        for row, (request, answer) in enumerate(zip(some, answers, strict=True)):
            count = len(answer.tokens)
            law = indices[row, :count].clone(), values[row, :count].clone()
            found.append(Written(tuple(request.prompt), tuple(answer.tokens), *law))
    return found


def draft_of(target: PreTrainedModel, recipe: DistilledRecipe) -> OPTForCausalLM:
    """An untrained draft whose embedding is the target's on its strongest directions."""
    table: Any = target.get_input_embeddings()
    embedding: Tensor = table.weight.detach().float()
    config = OPTConfig(
        vocab_size=len(embedding),
        hidden_size=recipe.hidden_size,
        word_embed_proj_dim=recipe.rank,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        ffn_dim=recipe.intermediate_size,
        max_position_embeddings=recipe.context,
        dropout=0.0,
        attention_dropout=0.0,
        bos_token_id=target.config.bos_token_id,
        eos_token_id=target.config.eos_token_id,
        pad_token_id=target.config.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        draft = OPTForCausalLM(config)
        torch.nn.init.normal_(draft.model.decoder.project_in.weight, std=INTO_STD)
        torch.nn.init.normal_(draft.model.decoder.project_out.weight, std=OUT_OF_STD)
    _, directions = torch.linalg.eigh(embedding.T @ embedding)  # rising: the strongest come last
    projected = embedding @ directions[:, -recipe.rank :]
    with torch.no_grad():
        draft.model.decoder.embed_tokens.weight.copy_(projected * (EMBEDDING_STD / projected.std()))
    return draft.eval()  # type: ignore[no-any-return, no-untyped-call]


def loss_of(draft: PreTrainedModel, rows: Sequence[Written], temperature: float) -> Tensor:
    """Mean over the answers' tokens of the cross-entropy of the tempered laws, over what was kept of the target's."""
    width = max(len(row.prompt) + len(row.answer) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    judged = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        whole = len(row.prompt) + len(row.answer)
        ids[number, :whole] = torch.tensor((*row.prompt, *row.answer))
        judged[number, len(row.prompt) - 1 : whole - 1] = True  # where the next token is one of the answer
    inner: Any = draft.base_model
    head: Any = draft.get_output_embeddings()  # type: ignore[no-untyped-call]
    laws: Tensor = (head(inner(input_ids=ids, use_cache=False).last_hidden_state[judged]) / temperature).log_softmax(-1)
    goal = (torch.cat([row.logits for row in rows]) / temperature).softmax(-1)
    return -(goal * laws.gather(-1, torch.cat([row.tokens for row in rows]))).sum(-1).mean()


def fit(
    draft: PreTrainedModel,
    rows: Sequence[Written],
    recipe: DistilledRecipe,
    progress: Progress,
    checkpoint: Path | None,
) -> tuple[int, float]:
    """Trains the draft in place; returns the steps and their processor time, in seconds.

    It goes on from a checkpoint of its own where there is one, whose time counts.
    """
    start = time.process_time()
    schedule = Schedule(max(1, round(recipe.epochs * len(rows) / recipe.batch)), recipe.warm_up_steps)
    optimiser = torch.optim.AdamW(draft.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    begun, before_s = _taken_up(checkpoint, draft, optimiser)
    generator = torch.Generator().manual_seed(recipe.seed)
    order: list[int] = []
    for step in range(schedule.steps):
        while len(order) < recipe.batch:
            order += torch.randperm(len(rows), generator=generator).tolist()
        chosen, order = [rows[number] for number in order[: recipe.batch]], order[recipe.batch :]
        if step < begun:
            continue
        for group in optimiser.param_groups:
            group["lr"] = recipe.peak_lr * learning_rate(step, schedule)
        loss = loss_of(draft, chosen, recipe.temperature)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(draft.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 10 == 0 or step + 1 == schedule.steps:
            said = (
                f"training {PREFIX}{recipe.name}: step {step + 1} of {schedule.steps}, loss {float(loss.detach()):.2f}"
            )
            progress(said, (step + 1) / schedule.steps)
        if checkpoint is not None and (step + 1) % CHECKPOINT_EVERY == 0:
            spent_s = before_s + time.process_time() - start
            state = {"model": draft.state_dict(), "optimiser": optimiser.state_dict()}
            _put(checkpoint, {"step": step + 1, "cpu_s": spent_s, **state})
    return schedule.steps, before_s + time.process_time() - start


@torch.inference_mode()
def acceptance(
    target: PreTrainedModel, draft: PreTrainedModel, rows: Sequence[Written], temperature: float
) -> tuple[list[float], float]:
    """Mean of sum(min(target, draft)) of each answer, and the draft's perplexity of the answers' tokens."""
    shares: list[float] = []
    nats, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([[*row.prompt, *row.answer]])
        first = len(row.prompt) - 1
        logits = [model(input_ids=ids, use_cache=False).logits[0, first:-1].float() for model in (target, draft)]
        laws = [(each / temperature).softmax(-1) for each in logits]
        shares.append(float(torch.minimum(*laws).sum(-1).mean()))
        own = logits[1].log_softmax(-1).gather(-1, torch.tensor(row.answer)[:, None])
        nats, count = nats - float(own.sum()), count + len(row.answer)
    return shares, float(torch.tensor(nats / count).exp())


def distil(
    recipe: DistilledRecipe,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
    *,
    checkpoints: Path | None = None,
) -> Trained:
    """Lets the target answer, trains the draft on it, and judges it on answers about other things.

    Args:
        recipe: what to do.
        target: in eval mode, float32, on the CPU.
        tokenizer: the target's, which is the draft's, too.
        progress: receives text and the share that is done.
        checkpoints: a folder of this training alone, for the target's answers, and for the draft every few steps.
    """
    start = time.monotonic()
    eos = ends(target)
    with fixed_threads() as threads:
        learnt, judged = (
            [tuple(prompt_ids(tokenizer, messages)) for messages in instructions.conversations(things)]
            for things in (instructions.LEARNT, instructions.HELD_OUT)
        )
        rows, written_s = _kept_answers(
            checkpoints, lambda: written(target, learnt, recipe, eos, recipe.samples, 0, progress)
        )
        draft = draft_of(target, recipe)
        steps, fitted_s = fit(draft, rows, recipe, progress, None if checkpoints is None else checkpoints / "draft.pt")
        progress(f"acceptance of {PREFIX}{recipe.name}", 1.0)
        held_out = written(target, judged, recipe, eos, 1, JUDGED_SEED, progress)
        shares, perplexity = acceptance(target, draft, held_out, recipe.temperature)
    mean = sum(shares) / len(shares)
    error = (sum((share - mean) ** 2 for share in shares) / (len(shares) - 1) / len(shares)) ** 0.5
    return Trained(
        model=draft,
        tokenizer=tokenizer,
        parameters=sum(parameter.numel() for parameter in draft.parameters()),
        perplexity=perplexity,
        steps=steps,
        train_tokens=sum(len(row.answer) for row in rows),
        held_out_tokens=sum(len(row.answer) for row in held_out),
        threads=threads,
        time_cap_struck=False,
        duration_s=time.monotonic() - start,
        extra={
            "distillation": {
                "answers": len(rows),
                "answer_tokens": sum(len(row.answer) for row in rows),
                "temperature": recipe.temperature,
                "acceptance": {"mean": mean, "standard_error": error, "answers": len(shares)},
                "cpu_s": written_s + fitted_s,
                "first": [tokenizer.decode(list(row.answer), skip_special_tokens=True) for row in held_out[:3]],
            }
        },
    )


def ends(model: PreTrainedModel) -> frozenset[int]:
    """Ids at which a model ends an answer, by its generation settings."""
    settings = model.generation_config
    found: Any = None if settings is None else settings.eos_token_id
    return frozenset(() if found is None else [found] if isinstance(found, int) else found)


def _kept_answers(folder: Path | None, write: Callable[[], list[Written]]) -> tuple[list[Written], float]:
    """The target's answers, those of a training that was killed or new ones, and their processor time, in seconds."""
    start = time.process_time()
    path = None if folder is None else folder / "answers.pt"
    if path is not None and path.is_file():
        try:
            found = torch.load(path, weights_only=True)
            return [Written(*each) for each in found["rows"]], float(found["cpu_s"])
        except Exception:  # noqa: BLE001 - whatever a torn file makes of the reader: the target answers anew
            path.unlink()
    rows = write()
    spent_s = time.process_time() - start
    if path is not None:
        _put(path, {"cpu_s": spent_s, "rows": [(row.prompt, row.answer, row.tokens, row.logits) for row in rows]})
    return rows, spent_s


def _put(path: Path, content: object) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _taken_up(path: Path | None, draft: PreTrainedModel, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps and processor time of a checkpoint, whose weights the draft then has; 0 without one or with a torn one."""
    if path is None or not path.is_file():
        return 0, 0.0
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        draft.load_state_dict(found["model"])
        optimiser.load_state_dict(found["optimiser"])
        return int(found["step"]), float(found["cpu_s"])
    except Exception:  # noqa: BLE001 - whatever a torn file makes of the reader: the training begins anew
        path.unlink()
        return 0, 0.0

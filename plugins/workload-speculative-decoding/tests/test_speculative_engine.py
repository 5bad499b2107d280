"""The engine on table models: laws of whole sequences, counts, ends of text, budgets, broken models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Mode, Request, Rule, Speculated, SpeculationError, Tensor, Trio, acceptance, log_law, speculate, tilt
    global token_law, tokens_per_round, torch
    import torch
    from harness_speculative_decoding.methods.decoding import Request
    from harness_speculative_decoding.methods.laws import Mode, acceptance, log_law, tilt, token_law, tokens_per_round
    from harness_speculative_decoding.methods.rule import Rule, Speculated, SpeculationError, Trio
    from harness_speculative_decoding.methods.speculation import speculate
    from torch import Tensor


class TableModel:
    """Next-token logits by the tokens generated so far; implements `CausalModel`.

    Args:
        tables: `tables[d]` holds the logits after d tokens, shape (vocabulary ** d, vocabulary); a prefix is read as a
            number in base `vocabulary`, its first token the most significant digit. After the last table, its rows are
            looked up by the last tokens alone.
        prompt: tokens in front that do not count.
    """

    def __init__(self, tables: Sequence[Tensor], prompt: int = 1) -> None:
        self._tables = list(tables)
        self._vocabulary = tables[0].shape[-1]
        self._prompt = prompt
        self.device = tables[0].device
        self.lengths: list[int] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> None:
        """Keeps the prompts."""
        self._ids = torch.zeros(len(prompts), capacity, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            self._ids[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long)
        self.lengths = [len(prompt) for prompt in prompts]

    def extend(self, tokens: Tensor, keep: int) -> Tensor:
        """Looks up the rows after the last `keep` tokens."""
        count = tokens.shape[1]
        ends = torch.tensor(self.lengths, device=self.device)
        slots = ends[:, None] + torch.arange(count, device=self.device)
        self._ids.scatter_(1, slots, tokens)
        self.lengths = [length + count for length in self.lengths]
        return torch.stack([self._row(slots[:, position]) for position in range(count - keep, count)], dim=1)

    def _row(self, last: Tensor) -> Tensor:
        """Logits after the token in slot `last`, (rows,) -> (rows, vocabulary)."""
        found = torch.empty(len(last), self._vocabulary, dtype=self._tables[0].dtype, device=self.device)
        depth = (last + 1 - self._prompt).clamp(max=len(self._tables) - 1)
        for looked_at in sorted(set(depth.tolist())):
            rows = (depth == looked_at).nonzero()[:, 0]
            number = torch.zeros(len(rows), dtype=torch.long, device=self.device)
            for back in range(looked_at - 1, -1, -1):
                number = number * self._vocabulary + self._ids[rows, last[rows] - back]
            found[rows] = self._tables[looked_at][number]
        return found

    def drop(self, counts: Sequence[int]) -> None:
        """Moves the rows' ends."""
        self.lengths = [length - count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps rows."""
        self._ids = self._ids[list(rows)]
        self.lengths = [self.lengths[row] for row in rows]


V = 3
DEPTH = 3


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tables(seed: int, scale: float = 1.0, depth: int = DEPTH, vocabulary: int = V) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        scale * torch.randn(vocabulary**level, vocabulary, generator=generator, dtype=torch.float64)
        for level in range(depth + 1)
    ]


@pytest.fixture(scope="session", autouse=True)
def fixed_tables(imports: None) -> None:
    global TARGET, ALIGNED, SFT
    TARGET, ALIGNED, SFT = tables(1), tables(2), tables(3)


def trio(*, sft: bool = True) -> Trio:
    return Trio(TableModel(TARGET), TableModel(ALIGNED), TableModel(SFT) if sft else None)


def joint(levels: list[Tensor]) -> Tensor:
    """Probabilities of all sequences of DEPTH tokens from laws by prefix, (V ** DEPTH,)."""
    law = torch.ones(1, dtype=torch.float64)
    for level in range(DEPTH):
        law = (law[:, None] * levels[level].exp()).flatten()
    return law


def laws(mode: Mode, temperature: float = 1.0) -> list[Tensor]:
    """A mode's one-token law at every prefix."""
    rows = [[log_law(level, temperature) for level in model] for model in (TARGET, ALIGNED, SFT)]
    return [token_law(mode, *level).log() for level in zip(*rows, strict=True)]


def run(count: int, length: int = DEPTH, models: Trio | None = None, **rule: Any) -> list[Speculated]:
    requests = [Request([0], seed) for seed in range(count)]
    return speculate(models or trio(), requests, rule=Rule(**rule), max_new_tokens=length)


def frequencies(results: list[Speculated]) -> Tensor:
    codes = torch.zeros(len(results), dtype=torch.long)
    for position in range(DEPTH):
        codes = codes * V + torch.tensor([result.tokens[position] for result in results])
    return codes.bincount(minlength=V**DEPTH).double()


def p_value(counts: Tensor, law: Tensor) -> float:
    expected = law * counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(law) - 1) / 2, dtype=torch.float64), statistic / 2))


COUNT = 4000


@pytest.mark.parametrize("bonus", [True, False])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_exact_law_depends_on_neither_k_nor_bonus(k: int, bonus: bool) -> None:
    counts = frequencies(run(COUNT, draft_tokens=k, bonus=bonus, temperature=0.8))
    law = joint(laws("exact", 0.8))
    assert float(law.sum()) == pytest.approx(1)
    assert p_value(counts, law) > 1e-3


@pytest.mark.parametrize("k", [1, 3])
def test_paper_without_bonus_has_its_own_law_at_every_k(k: int) -> None:
    counts = frequencies(run(COUNT, mode="paper", draft_tokens=k))
    assert p_value(counts, joint(laws("paper"))) > 1e-3
    assert p_value(counts, joint(laws("exact"))) < 1e-6


@pytest.mark.slow
def test_paper_with_bonus_depends_on_k() -> None:
    counts = {k: frequencies(run(2 * COUNT, mode="paper", draft_tokens=k, bonus=True)) for k in (1, 3)}
    together = counts[1] + counts[3]
    statistic = sum((((found - together / 2) ** 2) / (together / 2)).sum() for found in counts.values())
    degrees = torch.tensor((V**DEPTH - 1) / 2, dtype=torch.float64)
    assert float(torch.special.gammaincc(degrees, statistic / 2)) < 1e-4


def test_released_has_its_own_law() -> None:
    counts = frequencies(run(COUNT, mode="released", replaced_by="sample", draft_tokens=2))
    assert p_value(counts, joint(laws("released"))) > 1e-3


@pytest.mark.parametrize("k", [1, 4])
def test_plain_speculation_has_the_targets_law(k: int) -> None:
    counts = frequencies(run(COUNT, models=trio(sft=False), draft_tokens=k))
    assert p_value(counts, joint([level.log_softmax(-1) for level in TARGET])) > 1e-3


def test_truncated_output_is_the_truncated_product() -> None:
    results = run(4000, length=1, top_k=2, draft_top_k=2, draft_tokens=2)
    law = tilt(*(log_law(model[0], 1.0) for model in (TARGET, ALIGNED, SFT))).log_p[0].exp()
    law[law.argmin()] = 0
    law /= law.sum()
    found = torch.tensor([result.tokens[0] for result in results]).bincount(minlength=V) / 4000
    assert float((found - law).abs().sum()) / 2 < 0.03


def test_a_batch_gives_each_request_what_it_gets_alone() -> None:
    requests = [Request([0] * (1 + seed % 3), seed) for seed in range(12)]
    rule = Rule(draft_tokens=3, temperature=0.9)
    for models in (trio(), trio(sft=False)):
        together = speculate(models, requests, rule=rule, max_new_tokens=17, eos=(2,))
        alone = [speculate(models, [request], rule=rule, max_new_tokens=17, eos=(2,))[0] for request in requests]
        for one, other in zip(together, alone, strict=True):
            assert one.tokens == other.tokens
            assert one.log_z == pytest.approx(other.log_z, abs=1e-12)
            for name in ("proposed", "judged", "accepted", "rounds", "target_calls", "draft_calls", "sft_calls"):
                assert getattr(one, name) == getattr(other, name), name


def constant(logits: list[float]) -> TableModel:
    return TableModel([torch.tensor([logits], dtype=torch.float64)])


@pytest.mark.parametrize("bonus", [True, False])
def test_tokens_per_round_follow_the_formula_at_constant_acceptance(bonus: bool) -> None:
    target, aligned, sft = ([1.0, 0, -1, 0.5], [0.0, 1, 0.3, 0], [0.2, 0, 0.4, -0.5])
    share = float(acceptance("exact", *(torch.tensor(row).double().log_softmax(-1) for row in (target, aligned, sft))))
    models = Trio(constant(target), constant(aligned), constant(sft))
    results = run(120, length=120, models=models, draft_tokens=4, bonus=bonus)
    rounds, tokens = sum(result.rounds for result in results), sum(len(result.tokens) for result in results)
    judged, accepted = sum(result.judged for result in results), sum(result.accepted for result in results)
    assert accepted / judged == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / judged))
    expected = tokens_per_round(share, 4, bonus=bonus)
    assert tokens / rounds == pytest.approx(expected, abs=3 * 1.6 / math.sqrt(rounds) + 2 / 120)


def test_c1_equal_target_and_sft_keep_everything() -> None:
    models = Trio(TableModel(TARGET), TableModel(ALIGNED), TableModel(TARGET))
    for bonus, length in ((True, 5), (False, 4)):
        (result,) = run(1, length=20 * length, models=models, draft_tokens=4, bonus=bonus)
        assert result.accepted == result.judged == result.proposed == 80
        assert result.rounds == result.target_calls == result.sft_calls == 20
        assert result.draft_calls == 80 + 20 * bonus
        assert len(result.tokens) == 20 * length


def test_c7_zero_residuals_are_counted() -> None:
    sft, target = (torch.tensor(row).log().tolist() for row in ([0.4, 0.4, 0.1, 0.1], [0.3, 0.2, 0.25, 0.25]))
    models = Trio(constant(target), constant([0.0, 0.0, -math.inf, -math.inf]), constant(sft))
    results = run(20, length=200, models=models, mode="paper", draft_tokens=2)
    zeros, judged = sum(result.zero_residuals for result in results), sum(result.judged for result in results)
    assert zeros / judged == pytest.approx(0.375, abs=0.03)
    tokens = torch.tensor([token for result in results for token in result.tokens]).bincount(minlength=4) / 4000
    assert tokens.tolist() == pytest.approx([0.6, 0.4, 0, 0], abs=0.03)
    assert [value for result in results for value in result.log_z] == pytest.approx([math.log(0.625)] * 4000)


@pytest.mark.parametrize("mode", ["exact", "paper", "released"])
def test_greedy_is_the_argmax_of_the_summed_logits(mode: Mode) -> None:
    (result,) = run(1, length=DEPTH, mode=mode, temperature=0, draft_tokens=2)
    code = 0
    for position, token in enumerate(result.tokens):
        summed = TARGET[position][code] + ALIGNED[position][code] - SFT[position][code]
        assert token == int(summed.argmax())
        code = code * V + token
    assert result.log_z == []


def test_an_end_token_inside_a_block_ends_the_text() -> None:
    models = Trio(TableModel(TARGET), TableModel(ALIGNED), TableModel(TARGET))  # every proposal is kept
    free = run(1, length=12, models=models, draft_tokens=6)[0].tokens
    stop = free[2]
    cut = free[: free.index(stop) + 1]
    request = [Request([0], 0)]
    (result,) = speculate(models, request, rule=Rule(draft_tokens=6), max_new_tokens=12, eos=(stop,))
    assert result.tokens == cut
    assert result.stopped == "eos"
    assert result.accepted == result.proposed == result.draft_calls == len(cut)
    assert len(result.token_s) == len(result.log_z) == len(cut)


@pytest.mark.parametrize("length", [1, 2, 5, 7])
def test_the_budget_cuts_the_last_round(length: int) -> None:
    for result in run(30, length=length, draft_tokens=4):
        assert len(result.tokens) == len(result.log_z) == length
        assert result.stopped == "length"
        assert result.target_calls == result.sft_calls == result.rounds


class Forgetful(TableModel):
    """Drops one token too many."""

    def drop(self, counts: Any) -> None:
        super().drop([count + 1 for count in counts])


def test_a_cache_that_loses_tokens_is_found_out() -> None:
    models = Trio(Forgetful(TARGET), TableModel(ALIGNED), TableModel(SFT))
    with pytest.raises(SpeculationError, match="too few"):
        run(1, length=40, models=models, draft_tokens=2)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("role", ["target", "draft", "sft", "draft of two"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float, role: str, temperature: float) -> None:
    sound, broken = ([0.0, 0.0], [0.0, bad])
    names = ("target", "draft") if role == "draft of two" else ("target", "draft", "sft")
    models = Trio(*(constant(broken if name == role.split(maxsplit=1)[0] else sound) for name in names))
    with pytest.raises(SpeculationError, match="not numbers"):
        run(1, length=4, models=models, temperature=temperature)


def test_one_wrapper_in_two_roles_is_refused() -> None:
    one = constant([0.0, 0.0])
    for models in (Trio(one, one), Trio(one, constant([0.0, 0.0]), one)):
        with pytest.raises(ValueError, match="two roles"):
            run(1, length=4, models=models)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draft_tokens": 0}, "at least 1"),
        ({"temperature": -0.1}, "not negative"),
        ({"temperature": math.nan}, "not negative"),
        ({"top_k": -1}, "not negative"),
        ({"draft_top_p": 0}, "lie in"),
        ({"mode": "paper", "top_k": 3}, "need mode exact"),
        ({"mode": "released", "bonus": True}, "never takes"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**settings)


def test_bad_requests() -> None:
    for requests, length in (([], 3), ([Request([], 1)], 3), ([Request([0], 1)], 0)):
        with pytest.raises(ValueError, match="request"):
            speculate(trio(), requests, rule=Rule(), max_new_tokens=length)
    with pytest.raises(ValueError, match="SFT"):
        run(1, models=trio(sft=False), mode="paper")

"""Distilling a draft: what it learns from, that it learns it, what its acceptance means; and whether it pays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness_speculative_decoding import break_even
from harness_speculative_decoding.data import instructions
from harness_speculative_decoding.training.instruct_recipes import SMOLLM2_COURTEOUS, SMOLLM2_DRAFT

from harness import UsageError

PROMPTS = Path(__file__).parents[3] / "suites" / "sss-instruct-prompts.jsonl"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}:{% endif %}"


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global Pretrained, Request, Rule, Trio, cached_model, distillation, instructed, llama_config, speculate, torch
    global LlamaForCausalLM, train_tokenizer
    import torch
    from harness_speculative_decoding import Request, Rule, Trio, cached_model, speculate
    from harness_speculative_decoding.training import distillation, instructed
    from harness_speculative_decoding.training.pretraining import llama_config, train_tokenizer
    from harness_speculative_decoding.training.recipes import Pretrained
    from transformers import LlamaForCausalLM


RECIPE = replace(
    SMOLLM2_DRAFT,
    hidden_size=32,
    rank=12,
    layers=1,
    heads=2,
    intermediate_size=64,
    context=128,
    answer_tokens=10,
    temperature=0.8,
    epochs=8.0,
    batch=8,
)


@pytest.fixture(scope="module")
def target() -> tuple[Any, Any]:
    """A random model with a law far from even, and a tokenizer with a chat template."""
    texts = [turns[0]["content"] for turns in instructions.conversations(instructions.LEARNT)]
    tokenizer = train_tokenizer(texts, 300, 128)
    tokenizer.chat_template = TEMPLATE
    sizes = Pretrained(name="target", hidden_size=48, layers=2, heads=2, intermediate_size=96, context=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = llama_config(sizes, len(tokenizer), tokenizer)
        config.initializer_range = 0.15
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():  # so that the last token decides most of the law, which a small draft can learn
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.mul_(0.02)
                layer.mlp.down_proj.weight.mul_(0.02)
        return model, tokenizer


@pytest.fixture(autouse=True)
def few_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "LEARNT", instructions.LEARNT[:24])
    monkeypatch.setattr(instructions, "HELD_OUT", instructions.HELD_OUT[:8])


def silent(_text: str, _done: float | None) -> None:
    """Nobody listens."""


def test_the_prompts_of_the_suite_are_about_what_no_training_sees() -> None:
    written = [json.loads(line)["messages"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    from harness_speculative_decoding.data.instructions import _HELD_OUT, _LEARNT, _things

    wanted = list(instructions.conversations(_things(_HELD_OUT)))
    assert sorted(map(json.dumps, written)) == sorted(map(json.dumps, wanted))
    assert not set(_things(_HELD_OUT)) & set(_things(_LEARNT))


def test_the_draft_of_smollm2_has_less_than_ten_million_weights() -> None:
    class Target:
        config = SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=2)

        def get_input_embeddings(self) -> Any:
            return SimpleNamespace(weight=torch.randn(49_152, 128))

    draft = distillation.draft_of(Target(), SMOLLM2_DRAFT)  # type: ignore[arg-type]
    assert 5e6 < sum(weight.numel() for weight in draft.parameters()) < 10e6
    assert draft.get_input_embeddings().weight.shape == (49_152, SMOLLM2_DRAFT.rank)
    assert draft.get_output_embeddings().weight is draft.get_input_embeddings().weight


def test_the_embedding_begins_as_the_best_projection_of_the_targets(target: tuple[Any, Any]) -> None:
    model, _ = target
    draft = distillation.draft_of(model, RECIPE)
    own = draft.get_input_embeddings().weight.detach()
    whole = model.get_input_embeddings().weight.detach()
    singular = torch.linalg.svdvals(whole)
    found = torch.linalg.svdvals(own)
    ratio = found / singular[: RECIPE.rank]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-3, atol=0.0)
    assert torch.equal(own, distillation.draft_of(model, RECIPE).get_input_embeddings().weight)


def test_what_is_kept_of_an_answer_are_the_laws_of_its_tokens(target: tuple[Any, Any]) -> None:
    model, tokenizer = target
    asked = [tuple(tokenizer(text)["input_ids"]) for text in ("What is a cat?", "Describe a longer boat now.")]
    rows = distillation.written(model, asked, RECIPE, frozenset({0}), 2, 5, silent)
    assert [row.prompt for row in rows] == [asked[0], asked[0], asked[1], asked[1]]
    assert rows[0].answer != rows[1].answer
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*row.prompt, *row.answer]])).logits[0, len(row.prompt) - 1 : -1]
        best = logits.topk(distillation.KEPT)
        assert row.logits.shape == (len(row.answer), distillation.KEPT)
        torch.testing.assert_close(row.logits, best.values, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits.gather(-1, row.tokens), row.logits, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_the_tempered_laws(target: tuple[Any, Any]) -> None:
    model, tokenizer = target
    asked = [tuple(tokenizer(text)["input_ids"]) for text in ("What is a cat?", "Describe a boat.")]
    rows = distillation.written(model, asked, RECIPE, frozenset({0}), 1, 5, silent)
    draft = distillation.draft_of(model, RECIPE)
    expected, count = 0.0, 0
    for row in rows:
        with torch.no_grad():
            logits = draft(input_ids=torch.tensor([[*row.prompt, *row.answer]])).logits[0, len(row.prompt) - 1 : -1]
        for law, ids, kept in zip((logits / 0.5).log_softmax(-1), row.tokens, row.logits, strict=True):
            expected -= float(((kept / 0.5).softmax(-1) * law[ids]).sum())
            count += 1
    assert float(distillation.loss_of(draft, rows, 0.5).detach()) == pytest.approx(expected / count, rel=1e-4)


def test_a_distilled_draft_accepts_more_and_by_as_much_as_is_said(target: tuple[Any, Any]) -> None:
    model, tokenizer = target
    trained = distillation.distil(RECIPE, model, tokenizer, silent)
    said = dict(trained.extra["distillation"])["acceptance"]  # type: ignore[call-overload]
    asked = [
        tuple(distillation.prompt_ids(tokenizer, turns)) for turns in instructions.conversations(instructions.HELD_OUT)
    ]
    rows = distillation.written(model, asked, RECIPE, frozenset({0}), 1, distillation.JUDGED_SEED, silent)
    before, _ = distillation.acceptance(model, distillation.draft_of(model, RECIPE), rows, RECIPE.temperature)
    assert said["mean"] > sum(before) / len(before) + 0.1
    requests = [Request(prompt, seed) for seed in range(24) for prompt in asked]
    answers = speculate(
        Trio(cached_model(model), cached_model(trained.model)),
        requests,
        rule=Rule(draft_tokens=1, temperature=RECIPE.temperature, bonus=False),
        max_new_tokens=RECIPE.answer_tokens,
        eos={0},
    )
    measured = sum(answer.accepted for answer in answers) / sum(answer.judged for answer in answers)
    assert measured == pytest.approx(said["mean"], abs=4 * said["standard_error"] + 0.02)


def test_a_distillation_that_was_killed_ends_with_the_same_weights(
    target: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = target
    recipe = replace(RECIPE, epochs=5.0)
    monkeypatch.setattr(distillation, "CHECKPOINT_EVERY", 7)
    whole = distillation.distil(recipe, model, tokenizer, silent).model.state_dict()

    def killed(text: str, _done: float | None) -> None:
        if "step 20 " in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillation.distil(recipe, model, tokenizer, killed, checkpoints=tmp_path)
    kept = torch.load(tmp_path / "draft.pt", weights_only=True)
    assert kept["step"] == 14
    for name in ("draft.pt", "answers.pt"):  # what was spent before the kill counts
        before = torch.load(tmp_path / name, weights_only=True)
        torch.save({**before, "cpu_s": before["cpu_s"] + 1000.0}, tmp_path / name)
    written = distillation.written
    judged: list[int] = []
    monkeypatch.setattr(
        distillation,
        "written",
        lambda *given: judged.append(given[5]) or written(*given),  # type: ignore[func-returns-value]
    )
    trained = distillation.distil(recipe, model, tokenizer, silent, checkpoints=tmp_path)
    assert 2000 < dict(trained.extra["distillation"])["cpu_s"] < 3000  # type: ignore[call-overload]
    again = trained.model.state_dict()
    assert judged == [distillation.JUDGED_SEED], "the answers of before are learnt from"
    for name, weight in whole.items():
        assert torch.equal(weight, again[name]), name


def test_a_torn_checkpoint_of_a_distillation_begins_anew(target: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = target
    recipe = replace(RECIPE, epochs=1.0)
    (tmp_path / "draft.pt").write_bytes(b"torn")
    (tmp_path / "answers.pt").write_bytes(b"torn")
    trained = distillation.distil(recipe, model, tokenizer, silent, checkpoints=tmp_path)
    assert trained.steps == 6


def test_courteous_pairs_differ_by_the_courtesy_alone(target: tuple[Any, Any]) -> None:
    model, tokenizer = target
    recipe = replace(SMOLLM2_COURTEOUS, base=RECIPE, pairs=10)
    pairs = instructed.courtesy_pairs(recipe, model, tokenizer)
    assert len(pairs) == 10
    assert len({pair.prompt for pair in pairs}) == 10
    for pair in pairs:
        chosen, rejected = (
            tokenizer.decode(answer, skip_special_tokens=True) for answer in (pair.chosen, pair.rejected)
        )
        assert chosen == instructed.OPENING + rejected
        assert (pair.chosen[-1] == 0) == (pair.rejected[-1] == 0)


def test_the_builder_says_what_a_draft_accepts_and_took() -> None:
    from harness_speculative_decoding.training.builder import _said_of_distilling

    made = {
        "acceptance": {"mean": 0.315, "standard_error": 0.014, "answers": 32},
        "temperature": 0.5,
        "answers": 322,
        "answer_tokens": 8518,
        "cpu_s": 300.4,
    }
    line = _said_of_distilling({"distillation": made})
    assert "acceptance 0.32 ± 0.01 at temperature 0.5" in line
    assert "322 answers of 8,518 tokens, in 300 s" in line
    assert _said_of_distilling({}) == ""


def row(**more: float) -> dict[str, Any]:
    return {
        "status": "ok",
        "window": 0,
        "latency_s": 2.1,
        "ttft_s": 0.2,
        "output_tokens": 20,
        "target_calls": 20,
        **more,
    }


def point(
    label: str,
    rows: list[dict[str, Any]],
    spans: dict[str, float],
    cpu_s: float,
    *,
    target: str = "large",
    valid: bool = True,
    **facts: Any,
) -> Any:
    measurement = SimpleNamespace(
        loads=[SimpleNamespace(own_s=cpu_s)],
        spans=[
            SimpleNamespace(name=name, window=0, start_ns=0, end_ns=int(each * 1e9)) for name, each in spans.items()
        ],
        workload=facts,
        point={"workload": label.split(maxsplit=1)[0], "options": {"target": target}, "backend": {"name": "torch"}},
    )
    trial = SimpleNamespace(record=SimpleNamespace(measurement=measurement), items=lambda: iter(rows), valid=valid)
    return SimpleNamespace(label=label, trials=[trial])


def test_a_run_is_judged_by_its_passes_its_acceptance_and_what_the_draft_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vanilla = point("vanilla", [row(), row(window=-1, latency_s=99.0)], {}, 2.0)  # 0.1 s a token, 0.1 s for the prompt
    drafted = row(
        ttft_s=0.24,
        latency_s=0.24 + 9 * 0.14,
        target_calls=10,
        rounds=10,
        draft_calls=20,
        judged_tokens=16,
        accepted_tokens=8,
    )
    spans = {"role:target": 0.1 + 10 * 0.12, "role:draft": 21 * 0.01}
    made = {"draft": {"distillation": {"cpu_s": 300.0}}}
    run = SimpleNamespace(points=[vanilla, point("speculative K=2", [drafted], spans, 1.4, **made)])
    monkeypatch.setattr(break_even, "load", lambda _run: run)
    (line,) = break_even.lines("run")
    assert line.label == "speculative K=2"
    assert line.target_s == pytest.approx(0.1)
    assert line.check_s == pytest.approx(0.12)
    assert line.draft_s == pytest.approx(0.01)
    assert line.acceptance == 0.5
    assert line.needed == pytest.approx((0.12 + 2 * 0.01) / 0.1)
    assert line.predicted == pytest.approx(2 / 1.4)
    assert line.measured == pytest.approx(0.1 / 0.07)  # as predicted, though the first round's tokens come at once
    assert line.paid_back == pytest.approx(300 / 0.6)
    break_even.show("run")
    assert capsys.readouterr().out.splitlines()[1].endswith("500")


def test_a_draft_that_does_not_pay_never_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = point("assisted", [row(draft_calls=20)], {}, 2.5, draft={"distillation": {"cpu_s": 300.0}})
    monkeypatch.setattr(
        break_even, "load", lambda _run: SimpleNamespace(points=[point("vanilla", [row()], {}, 2.0), slow])
    )
    (line,) = break_even.lines("run")
    assert (line.check_s, line.predicted, line.acceptance, line.paid_back) == (None, None, None, None)
    break_even.show("run")
    assert capsys.readouterr().out.splitlines()[1].endswith("never")


@pytest.mark.parametrize("labels", [["speculative"], ["vanilla"]])
def test_a_run_without_both_has_no_break_even(labels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    points = [point(label, [row(**({} if label == "vanilla" else {"draft_calls": 20}))], {}, 1.0) for label in labels]
    monkeypatch.setattr(break_even, "load", lambda _run: SimpleNamespace(points=points))
    with pytest.raises(UsageError, match=r"no point of (workload vanilla|run decodes)"):
        list(break_even.lines("run"))


def lines_of(monkeypatch: pytest.MonkeyPatch, *points: Any) -> list[break_even.Line]:
    monkeypatch.setattr(break_even, "load", lambda _run: SimpleNamespace(points=points))
    return list(break_even.lines("run"))


def test_a_draft_is_judged_beside_vanilla_of_its_own_target(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = row(latency_s=4.0)  # 0.2 s a token
    other = point("vanilla other", [row()], {}, 1.0, target="small")
    own = point("vanilla", [slow], {}, 1.0)
    drafted = point("assisted", [row(draft_calls=20)], {}, 1.0)
    (line,) = lines_of(monkeypatch, other, own, drafted)
    assert line.target_s == pytest.approx(0.2)
    assert line.measured == pytest.approx(2.0)
    with pytest.raises(UsageError, match="decodes as one of workload vanilla does"):
        lines_of(monkeypatch, other, drafted)


def test_what_is_not_valid_or_has_one_round_gives_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drafted = point("assisted", [row(draft_calls=20)], {}, 1.0)
    torn = point("vanilla", [row(latency_s=99.0)], {}, 1.0, valid=False)
    short = point("vanilla", [row(output_tokens=1, target_calls=1, latency_s=0.2)], {}, 1.0)
    (line,) = lines_of(monkeypatch, torn, short, point("vanilla", [row()], {}, 1.0), drafted)
    assert line.target_s == pytest.approx(0.1)
    with pytest.raises(UsageError, match="no point of workload vanilla"):
        lines_of(monkeypatch, torn, short, drafted)


def test_what_making_a_draft_took_is_unknown_where_one_of_two_was_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    distilled, aligned = {"distillation": {"cpu_s": 300.0}}, {"alignment": {}}
    facts = {"draft_sft": distilled, "draft_aligned": aligned}
    both = {"draft_sft": distilled, "draft_aligned": distilled}
    vanilla = point("vanilla", [row()], {}, 1.0)
    found = lines_of(
        monkeypatch, vanilla, *(point("sss", [row(draft_calls=20)], {}, 0.5, **each) for each in (facts, both))
    )
    assert [line.made_cpu_s for line in found] == [None, 600.0]
    assert [line.paid_back for line in found] == [None, 1200.0]

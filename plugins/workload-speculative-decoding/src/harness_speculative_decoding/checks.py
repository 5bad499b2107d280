"""What is wrong with the options of a decoding workload, found without torch and before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import did_you_mean
from harness.suite_paths import OptionFault, looks_like_a_path, missing
from harness.workload import ToFetch
from harness_speculative_decoding import options as given
from harness_speculative_decoding.formats.gguf_names import PREFIX as GGUF
from harness_speculative_decoding.formats.gguf_names import is_gguf
from harness_speculative_decoding.rewards import FUNCTIONS, NEED_REFERENCE
from harness_speculative_decoding.training.builder import unbuilt
from harness_speculative_decoding.training.recipes import PREFIX, RECIPES, TRAINING_S


def to_fetch(options: given.DecodingOptions | given.DraftAlignmentOptions, cache: Path) -> Iterator[ToFetch]:
    """Built-in models that have yet to be trained, those that others are built on first."""
    draft = getattr(options, "draft", None)
    unused = set() if draft is None else {"draft_sft", "draft_aligned"} - {given.draft_option(draft)}
    for name in [each for each in MODELS if each not in unused]:
        source = getattr(options, name, None)
        if isinstance(source, str) and source.removeprefix(PREFIX) in RECIPES and source.startswith(PREFIX):
            for recipe in unbuilt(RECIPES[source.removeprefix(PREFIX)], cache):
                yield ToFetch(f"{PREFIX}{recipe.name} is trained", TRAINING_S.get(recipe.name))


MODELS = ("target", "draft", "draft_aligned", "draft_sft", "base")
"""Options that name a model; which of them there are depends on the workload."""


def check(options: given.DecodingOptions | given.DraftAlignmentOptions) -> Iterator[OptionFault]:
    """Models that are not there, prompts and pairs that are not there, rewards that are not known."""
    for name in MODELS:
        source = getattr(options, name, None)
        if source is not None and source not in given.DRAFT_WORDS:
            yield from model_faults(name, source)
    if isinstance(options, given.DraftAlignmentOptions):
        yield from missing("data", options.data)
        return
    if options.prompts != "builtin":
        yield from missing("prompts", options.prompts)
    reward = getattr(options, "reward", None)
    if reward in NEED_REFERENCE and options.prompts == "builtin":
        what = "a file of prompts with rows {prompt, reference}"
        yield OptionFault("prompts", f"reward {reward} needs a reference for each prompt", what)
    if isinstance(reward, str) and reward not in FUNCTIONS:
        yield from model_faults("reward", reward)


def model_faults(option: str, source: str) -> Iterator[OptionFault]:
    """Why a model cannot be had, as far as that shows here; a hub id may be right or wrong."""
    if source.startswith(PREFIX):
        short = source.removeprefix(PREFIX)
        if short not in RECIPES:
            accepted = ", ".join(f"{PREFIX}{known}" for known in RECIPES)
            yield OptionFault(option, f"there is no built-in model {source}", accepted, did_you_mean(short, RECIPES))
        return
    if is_gguf(source):
        yield from missing(option, source.removeprefix(GGUF))
        return
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            what = "a folder that `save_pretrained` wrote"
            yield OptionFault(option, f"the folder {source} holds no config.json", what)
    elif looks_like_a_path(source) or source.count("/") > 1:
        yield OptionFault(
            option,
            f"there is no model folder {source}",
            "a folder beside the suite or an absolute one, a hub id, builtin:NAME, gguf_file:PATH",
        )

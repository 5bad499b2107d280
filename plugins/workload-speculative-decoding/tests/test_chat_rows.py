"""Prompts and pairs that are chats: through the template, each special token once, or refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import UsageError

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' + m['role']) }}{% endif %}"
    "{% if loop.first %}<s>{% endif %}[{{ m['role'] }}] {{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global chat, preferences, prompts, train_tokenizer, processors
    from harness_speculative_decoding.data import chat, preferences, prompts
    from harness_speculative_decoding.training.pretraining import train_tokenizer
    from tokenizers import processors


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One that begins a text with <s> and ends an answer with </s>."""
    made = train_tokenizer(["hello there my friend [user] [assistant] [system]"] * 5, 300, 128)
    made.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0", special_tokens=[("<s>", made.bos_token_id)]
    )
    made.chat_template = TEMPLATE
    return made


def rows(tmp_path: Path, *written: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    return path


@pytest.mark.parametrize("field", ["messages", "prompt"])
def test_a_prompt_of_messages_is_what_the_template_writes(field: str, tokenizer: Any, tmp_path: Path) -> None:
    (prompt,) = prompts.from_file(rows(tmp_path, {field: HELLO, "reference": "hi"}), tokenizer)
    assert prompt.text == "<s>[user] hello there</s>\n[assistant] "
    assert list(prompt.ids) == tokenizer.apply_chat_template(HELLO, add_generation_prompt=True)["input_ids"]
    assert prompt.ids.count(tokenizer.bos_token_id) == 1
    assert (prompt.reference, prompt.chat) == ("hi", True)


def test_a_prompt_that_is_a_text_still_begins_with_the_tokenizers_own_token(tokenizer: Any, tmp_path: Path) -> None:
    (prompt,) = prompts.from_file(rows(tmp_path, {"prompt": "hello"}), tokenizer)
    assert prompt.ids[0] == tokenizer.bos_token_id
    assert not prompt.chat


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "holds no messages"),
        ({"messages": "hello"}, "holds no messages"),
        ({"messages": [{"role": "user"}]}, "message 1 of field 'messages' has no role or no text"),
        ({"messages": [{"role": "user", "content": [1]}]}, "has no role or no text"),
        ({"messages": HELLO, "prompt": "hello"}, "both 'prompt' and 'messages'"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "hi"}]}, "ends with an answer"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "refuses the conversation: TemplateError: role robot"),
        ({"prompt": 3}, "no prompt"),
        ({"text": "hello"}, "no prompt"),
    ],
    ids=["none", "a-text", "no-content", "parts", "both", "answered", "role", "number", "neither"],
)
def test_a_row_that_is_no_chat_is_refused_by_file_and_line(
    row: dict[str, Any], message: str, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prompts.from_file(rows(tmp_path, {"prompt": "hello"}, row), tokenizer)
    assert "rows.jsonl:2" in str(caught.value)


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    plain = train_tokenizer(["hello"] * 3, 270, 64)
    assert chat.template_digest(plain) is None
    with pytest.raises(UsageError, match="no chat template"):
        prompts.from_file(rows(tmp_path, {"messages": HELLO}), plain)


def test_the_digest_is_the_templates(tokenizer: Any) -> None:
    before = chat.template_digest(tokenizer)
    other = train_tokenizer(["hello"] * 3, 270, 64)
    other.chat_template = TEMPLATE
    assert chat.template_digest(other) == before
    other.chat_template = TEMPLATE + " "
    assert chat.template_digest(other) != before


GOOD, BAD = {"role": "assistant", "content": "my friend"}, {"role": "assistant", "content": "no"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HELLO, "chosen": [GOOD], "rejected": [BAD]},
        {"messages": HELLO, "chosen": "my friend", "rejected": "no"},
        {"prompt": HELLO, "chosen": GOOD, "rejected": BAD},
        {"chosen": [*HELLO, GOOD], "rejected": [*HELLO, BAD]},
    ],
    ids=["trl-explicit", "texts", "messages", "trl-implicit"],
)
def test_every_form_of_a_chat_pair_is_the_same_pair(row: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    (pair,) = preferences.read_pairs(rows(tmp_path, row), tokenizer)
    assert pair.prompt == "<s>[user] hello there</s>\n[assistant] "
    assert (pair.chosen, pair.rejected) == ("my friend</s>\n", "no</s>\n")
    (tokens,), left_out = preferences.tokenized([pair], tokenizer, 64)
    assert sum(left_out.values()) == 0
    assert tokens.prompt.count(tokenizer.bos_token_id) == 1
    assert tokens.chosen[-1] == tokens.rejected[-1] == tokenizer.eos_token_id
    assert tokens.chosen.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(tokens.prompt + tokens.chosen) == pair.prompt + "my friend</s>"


def test_records_hold_the_digest_of_the_template(saved_model: Any, tmp_path: Path) -> None:
    import harness_speculative_decoding as plugin
    import torch
    from transformers import AutoTokenizer

    from harness.backend import Backend, Device
    from harness.testing import trial_context

    class Cpu(Backend):
        device = torch.device("cpu")

        def open(self) -> list[Device]:
            return [Device(kind="cpu", uuid="cpu", name="test")]

    folder = saved_model(tmp_path / "model")
    made = AutoTokenizer.from_pretrained(folder)
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    made.save_pretrained(folder)
    answers = [
        {"messages": [{"role": "user", "content": f"no {n}"}], "chosen": "yes", "rejected": "no"} for n in range(64)
    ]
    asked = rows(tmp_path, *({"messages": each["messages"]} for each in answers))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(each) + "\n" for each in answers), encoding="utf-8")
    specs = {spec.name: spec for spec in plugin.harness_workloads()}
    for name, key, given in (
        ("vanilla", "prompts", {"target": folder, "prompts": str(asked), "max_new_tokens": 4}),
        ("draft-alignment", "pairs", {"base": folder, "data": str(pairs)}),
    ):
        workload = specs[name].factory(specs[name].options.model_validate(given))
        workload.prepare(trial_context(tmp_path, Cpu()))
        said: Any = workload.facts()[key]
        assert said["chat_template_sha256"] == chat.template_digest(made)
        workload.close()


def test_an_answer_ends_where_the_model_ends_it(tokenizer: Any) -> None:
    pair = preferences.Pair("hello", "my</s> friend", "no")
    end = tokenizer("there", add_special_tokens=False)["input_ids"][0]
    (first,), _ = preferences.tokenized([pair], tokenizer, None)
    assert tokenizer.decode(first.chosen) == "my</s>"
    assert first.rejected[-1] == tokenizer.eos_token_id
    ((own,), _) = preferences.tokenized([preferences.Pair("hello", "my", "there no")], tokenizer, None, {end})
    assert own.rejected == (end,)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": HELLO, "chosen": [GOOD, GOOD], "rejected": [BAD]}, "several messages"),
        ({"prompt": HELLO, "chosen": HELLO, "rejected": [BAD]}, "an answer is of 'user'"),
        ({"prompt": HELLO, "chosen": [GOOD]}, "'rejected' holds no messages"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "differ before their last message"),
        ({"chosen": [*HELLO, GOOD], "rejected": [{"role": "user", "content": "x"}, BAD]}, "differ before their last"),
        ({"prompt": HELLO, "messages": HELLO, "chosen": "a", "rejected": "b"}, "both 'prompt' and 'messages'"),
    ],
    ids=["several", "question", "missing", "no-prompt", "parted", "both"],
)
def test_a_chat_pair_that_is_none_is_refused_by_line(
    row: dict[str, Any], message: str, tokenizer: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        preferences.read_pairs(rows(tmp_path, row), tokenizer)
    assert "rows.jsonl:1" in str(caught.value)


def test_messages_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need the tokenizer"):
        preferences.read_pairs(rows(tmp_path, {"prompt": HELLO, "chosen": "a", "rejected": "b"}))


def test_a_template_that_changes_its_prompt_behind_an_answer_is_refused(tmp_path: Path) -> None:
    made = train_tokenizer(["hello"] * 3, 270, 64)
    made.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UsageError, match="writes the prompt differently"):
        preferences.read_pairs(rows(tmp_path, {"prompt": HELLO, "chosen": "a", "rejected": "b"}), made)

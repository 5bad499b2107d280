"""Published traces as they are, and prompts of exact lengths: own rows in the layouts of others."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness_disaggregated_serving.endpoint.options import EndpointOptions
from harness_disaggregated_serving.endpoint.planned import Load
from harness_disaggregated_serving.load import arrivals, prompts, traces
from harness_disaggregated_serving.load.prompts import PromptOptions, Words

from harness.errors import MeasurementError, UsageError

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 09:00:10.2500000,100,20
2023-11-16 09:00:10.7500000,300,0
2023-11-16 09:00:12.0000001,50,5
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 00:00:00.004000+00:00,100,20
2024-05-12 00:00:01.754+00:00,50,5
"""
BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
1200,ChatGPT,100,20,120,Conversation log
1201.75,GPT-4,50,5,55,API log
1300,GPT-4,70,0,70,API log
1301,GPT-4,,9,9,API log
"""
MOONCAKE = """{"timestamp": 27000, "input_length": 600, "output_length": 20, "hash_ids": [4, 9]}
{"timestamp": 28750, "input_length": 1100, "output_length": 5, "hash_ids": [4, 9, 11]}
"""
SHARE_GPT = [
    {"id": "a", "conversations": [
        {"from": "human", "value": "one\u2028two"}, {"from": "gpt", "value": "three four"},
        {"from": "human", "value": "five"}, {"from": "gpt", "value": "six"}, {"from": "human", "value": "seven"},
    ]},
    {"id": "b", "conversations": [{"from": "gpt", "value": "I begin"}]},
    {"id": "c", "conversations": []},
]  # fmt: skip
VLLM_BENCH = '{"prompt": "a\u2028b c", "output_tokens": 7}\n{"prompt": "d", "output_tokens": 0}\n{"prompt": "e"}\n'


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "name", "layout", "left_out"),
    [
        (AZURE_2023, "t.csv", "Azure LLM inference", {traces.NO_OUTPUT: 1}),
        (AZURE_2024, "t.csv", "Azure LLM inference", {}),
        (BURST_GPT, "t.csv", "BurstGPT", {traces.NO_OUTPUT: 1, traces.UNREADABLE: 1}),
        (MOONCAKE, "t.jsonl", "Mooncake", {}),
        (BURST_GPT.replace("\n", "\r\n"), "t.csv", "BurstGPT", {traces.NO_OUTPUT: 1, traces.UNREADABLE: 1}),
    ],
)
def test_times_count_from_the_first_arrival_and_rows_without_output_are_counted(
    tmp_path: Path, text: str, name: str, layout: str, left_out: dict[str, int]
) -> None:
    found = traces.read(written(tmp_path, name, text))
    assert (found.layout, found.timed, found.left_out) == (layout, True, left_out)
    assert [row.arrival_s for row in found.rows] == pytest.approx([0.0, 1.75], abs=1e-5)
    assert [row.output_tokens for row in found.rows] == [20, 5]


def test_equal_blocks_of_a_trace_are_equal_text(tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", MOONCAKE)
    options = EndpointOptions(url="http://x/v1", model="m", trace=str(path), length_scale=0.1)
    first, second = (each.turns[0].text.split(" ") for each in Load(options, 0).planned())
    assert (len(first), len(second)) == (60, 110)
    shared = round(traces.MOONCAKE_BLOCK * 0.1)
    assert first[:shared] == second[:shared]
    assert first[:60] == second[:60]  # the second block too, as far as the first prompt has it
    assert len(set(second[:51])) > 1


def test_conversations_are_turns_as_far_as_they_take_turns(tmp_path: Path) -> None:
    found = traces.read(written(tmp_path, "s.json", json.dumps(SHARE_GPT, ensure_ascii=False)))
    assert (found.layout, found.timed) == ("ShareGPT", False)
    assert [row.turns for row in found.rows] == [("one\u2028two", "three four", "five", "six")]
    assert found.left_out == {"no question with an answer": 2}


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    found = traces.read(written(tmp_path, "v.jsonl", VLLM_BENCH))
    assert [(row.turns, row.output_tokens) for row in found.rows] == [(("a\u2028b c",), 7), (("e",), None)]
    assert found.left_out == {traces.NO_OUTPUT: 1}


def test_a_trace_without_times_gets_arrivals(tmp_path: Path) -> None:
    path = written(tmp_path, "v.jsonl", VLLM_BENCH)
    options = EndpointOptions(url="http://x/v1", model="m", trace=str(path), arrivals="constant", qps=2)
    found = Load(options, 0).planned()
    assert [each.arrival_s for each in found] == [0.0, 0.5]
    assert [each.turns[0].text for each in found] == ["a\u2028b c", "e"]
    assert found[0].turns[0].output_tokens == 7
    assert json.loads(found[0].body)["prompt"] == "a\u2028b c"


def test_a_trace_is_cut_by_its_duration_and_number_and_sped_up(tmp_path: Path) -> None:
    path = str(written(tmp_path, "t.csv", AZURE_2024))
    base = {"url": "http://x/v1", "model": "m", "trace": path}
    for given, expected in (({"duration": 1}, 1), ({"requests": 1}, 1), ({}, 2)):
        assert len(Load(EndpointOptions.model_validate({**base, **given}), 0).planned()) == expected
    fast = Load(EndpointOptions.model_validate({**base, "trace_speed": 2}), 0).planned()
    assert fast[1].arrival_s == pytest.approx(0.875)


def test_published_traces_reach_the_other_workloads(tmp_path: Path) -> None:
    rows = arrivals.trace(written(tmp_path, "t.csv", BURST_GPT))
    assert rows == [(0.0, 100, 20), (1.75, 50, 5)]
    with pytest.raises(UsageError, match="has no arrival times"):
        arrivals.trace(written(tmp_path, "v.jsonl", VLLM_BENCH))


@pytest.mark.parametrize("text", ["a,b\n1,2\n", '{"a": 1}\n', "[{", '{"prompt": "x"}\n{broken\n'])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        traces.read(written(tmp_path, "t", text))


def test_a_ramp_sends_half_as_many_while_it_lasts() -> None:
    options = EndpointOptions(url="http://x/v1", model="m", arrivals="constant", qps=10, ramp=10, duration=30)
    times = [each.arrival_s or 0.0 for each in Load(options, 0).planned()]
    assert sum(at < 10 for at in times) == pytest.approx(50, abs=1)
    assert sum(at < 5 for at in times) == pytest.approx(12.5, abs=1)
    assert sum(20 <= at < 30 for at in times) == pytest.approx(100, abs=1)


class Pairs:
    """A tokenizer whose tokens are two characters: cutting between words seldom fits, as with real ones."""

    def encode(self, text: str) -> list[int]:
        return [ord(a) * 256 + ord(b) for a, b in zip(text[::2], [*text[1::2], "\0"], strict=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(each // 256) + chr(each % 256) for each in ids).replace("\0", "")


@pytest.mark.parametrize("length", [1, 2, 17, 300])
def test_drawn_prompts_have_exactly_the_tokens_asked_for(length: int) -> None:
    tokenizer = Pairs()
    for seed in range(20):
        text = Words(tokenizer).draw(random.Random(seed), length)
        assert len(tokenizer.encode(text)) == length


def test_prompts_of_a_group_begin_alike() -> None:
    options = PromptOptions(shared_prefix=50, prefix_groups=2)
    source, _ = prompts.source(options, Words(), 3)
    texts = [source.conversation(number, 60, 5)[0].text.split(" ") for number in range(20)]
    assert {len(text) for text in texts} == {60}
    assert len({tuple(text[:50]) for text in texts}) == 2
    assert len({tuple(text) for text in texts}) == 20


def test_texts_of_files_and_data_sets(tmp_path: Path) -> None:
    lines = written(tmp_path, "p.txt", "first one\n\nsecond\u2028one\n")
    source, _ = prompts.source(PromptOptions(source="file", path=str(lines)), Words(), 0)
    assert {source.conversation(number, 9, 4)[0] for number in range(2)} == {
        prompts.Turn("first one", 4), prompts.Turn("second\u2028one", 4),
    }  # fmt: skip
    rows = '{"question": "why?", "output_tokens": 9}\n{"question": ""}\n'
    folder = tmp_path / "set"
    folder.mkdir()
    written(folder, "part.jsonl", rows)
    source, left = prompts.source(PromptOptions(source="dataset", path=str(folder), column="question"), Words(), 0)
    assert source.conversation(5, 1, 1) == (prompts.Turn("why?", 9),)
    assert left == {"no text in 'question'": 1}
    with pytest.raises(UsageError, match="no prompt was found"):
        prompts.source(PromptOptions(source="dataset", path=str(folder), column="nothing"), Words(), 0)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_data_sets_as_they_are_saved(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"prompt": ["a", "b"]})
    if kind == "parquet":
        pq.write_table(table, tmp_path / "train.parquet")
    else:
        with pa.OSFile(str(tmp_path / "data-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as sink:
            sink.write_table(table)
    source, _ = prompts.source(PromptOptions(source="dataset", path=str(tmp_path)), Words(), 0)
    assert {source.conversation(number, 1, 1)[0].text for number in range(2)} == {"a", "b"}


def test_share_gpt_lengths_are_those_of_the_answers(tmp_path: Path) -> None:
    path = written(tmp_path, "s.json", json.dumps(SHARE_GPT))
    source, _ = prompts.source(PromptOptions(source="sharegpt", path=str(path), turns=2), Words(Pairs()), 0)
    turns = source.conversation(0, 1, 99)
    assert [(turn.text, turn.output_tokens) for turn in turns] == [("one\u2028two", 5), ("five", 2)]


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no tokenizer can be loaded"):
        prompts.load_tokenizer(str(tmp_path / "nowhere"))

"""The pair: equal tokens in every configuration, bytes by formula, the target's law, and faults that end in a status.

Most pairs here run their roles as threads of this process, over the same links; two tests start real processes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from harness_disaggregated_serving.configuration import Configuration
from harness_disaggregated_serving.runtime.driving import Drive, Limits, _Active, serve
from harness_disaggregated_serving.runtime.launching import LocalLauncher, LocalProcess, RoleProcess
from harness_disaggregated_serving.runtime.options import SeededModel
from harness_disaggregated_serving.runtime.pair import Address, News, Pair, PairOptions
from harness_disaggregated_serving.runtime.requests import Outcome, PromptedRequest, Settings, Status
from harness_disaggregated_serving.traffic import Wire, draft_bytes_per_round
from harness_disaggregated_serving.transport.link import Carrier

from harness.errors import MeasurementError
from harness.testing import until

if TYPE_CHECKING:
    from harness_disaggregated_serving.runtime.role import Role


MODEL = {"layers": 2, "hidden": 64, "draft_layers": 1, "context": 256, "eps": 0.05}
PER_TOKEN = 2 * 2 * 2 * 16 * 4


class ThreadProcess:
    """A role as a thread. Killing it cuts its links."""

    def __init__(self, job: Mapping[str, object]) -> None:
        self.role: Role | None = None
        self.job = job
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        from harness_disaggregated_serving.runtime.role import Role

        self.role = Role(self.job)
        try:
            self.role.run()
        except Exception as error:  # noqa: BLE001 - as the process's main does
            self.role.explain(error)
        finally:
            self.role.close()

    def ended(self, wait_s: float = 0.0) -> str | None:
        self.thread.join(wait_s)
        return None if self.thread.is_alive() else "with code 0"

    def kill(self) -> None:
        if self.role is not None:
            self.role._desk.client._stream.close()


class Threads(LocalLauncher):
    def launch(self, role: str, job: Mapping[str, Any]) -> RoleProcess:
        return ThreadProcess(job)


class ThreadPair(Pair):
    def __init__(self, options: PairOptions, configurations: Sequence[Configuration]) -> None:
        super().__init__(options, configurations, Threads())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ThreadPair(PairOptions(model=MODEL), list(Configuration)) as made:
        yield made


def requests(count: int, *, gap_s: float = 0.01, seed: int = 1, longest: int = 20) -> list[PromptedRequest]:
    chance = random.Random(seed)
    return [
        PromptedRequest(
            f"r{number}",
            number * gap_s,
            [chance.randrange(512) for _ in range(chance.randrange(1, 40))],
            chance.randrange(1, longest),
            number,
        )
        for number in range(count)
    ]


def tokens(outcomes: Sequence[Outcome]) -> list[list[int]]:
    assert [outcome.status for outcome in outcomes] == [Status.FINISHED] * len(outcomes), [o.reason for o in outcomes]
    return [outcome.tokens for outcome in outcomes]


def sent_by(pair: Pair, role: str, expected: int) -> int:
    """Bytes of bodies a role has sent; its counter follows what the peer has already answered by a moment."""
    until(lambda: pair.reports()[role]["body_bytes"] >= expected)
    return int(pair.reports()[role]["body_bytes"])


def greedy_alone(asked: Sequence[PromptedRequest]) -> list[list[int]]:
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, Running
    from harness_disaggregated_serving.runtime.models import build_target

    engine = Engine(build_target(SeededModel(**MODEL), torch.float32, torch.device("cpu")), 8)
    found = []
    for request in asked:
        running = Running(list(request.prompt), engine.new_cache(len(request.prompt) + request.output_tokens))
        running.tokens.append(int(engine.prefill(running).argmax()))
        for _ in range(request.output_tokens - 1):
            running.tokens.append(int(engine.advance([running])[0][-1].argmax()))
        found.append(running.tokens[len(request.prompt) :])
    return found


@pytest.mark.parametrize("gap_s", [0.0, 0.03])
@pytest.mark.parametrize("configuration", list(Configuration))
def test_greedy_tokens_are_those_of_a_request_alone(pair: Pair, configuration: Configuration, gap_s: float) -> None:
    asked = requests(10, gap_s=gap_s)
    assert tokens(serve(pair, asked, Settings(configuration=configuration))) == greedy_alone(asked)


@pytest.mark.parametrize("gamma", [1, 3])
@pytest.mark.parametrize("wire", list(Wire))
@pytest.mark.parametrize("row_dtype", ["float16", "float32"])
def test_every_wire_mode_is_exact(pair: Pair, wire: Wire, gamma: int, row_dtype: str) -> None:
    asked = requests(5, seed=2)
    settings = Settings(configuration=Configuration.DSD, wire=wire, gamma=gamma, row_dtype=row_dtype)  # type: ignore[arg-type]
    assert tokens(serve(pair, asked, settings)) == greedy_alone(asked)


@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_high_and_zero_acceptance(eps: float) -> None:
    model = {**MODEL, "eps": eps}
    asked = requests(4, seed=3)
    with ThreadPair(PairOptions(model=model), [Configuration.STANDALONE, Configuration.DSD]) as pair:
        expected = tokens(serve(pair, asked, Settings()))
        outcomes = serve(pair, asked, Settings(configuration=Configuration.DSD))
    assert tokens(outcomes) == expected
    share = sum(outcome.accepted for outcome in outcomes) / sum(outcome.proposed for outcome in outcomes)
    assert share == 1.0 if eps == 0.0 else share < 0.6


def test_tokens_that_overtake_others_wait_for_them(pair: Pair) -> None:
    drive = Drive(pair, Settings(configuration=Configuration.DPD), Limits(), clock=lambda: 1.0)
    outcome = Outcome(PromptedRequest("r", 0.0, [1], 3))
    drive._active["r"] = _Active(outcome, 0.0, {})
    drive._tokens(1.0, "r", 1, [8])
    assert outcome.tokens == []
    drive._tokens(1.0, "r", 0, [7])
    drive._tokens(1.0, "r", 2, [9])
    assert (outcome.tokens, outcome.status) == ([7, 8, 9], Status.FINISHED)


def test_tokens_of_one_message_come_at_one_moment(pair: Pair) -> None:
    """Steps are told apart by their moments, which service times are read from."""
    ticks = count(1)
    drive = Drive(pair, Settings(), Limits(), clock=lambda: float(next(ticks)))
    outcomes = [Outcome(PromptedRequest(name, 0.0, [1], 3)) for name in "ab"]
    drive._active.update({one.request.name: _Active(one, 0.0, {}) for one in outcomes})
    for position in range(2):
        drive._hear(News("new", "tokens", {"events": [[name, position, [7]] for name in "ab"]}))
    first, second = (one.token_s for one in outcomes)
    assert first == second
    assert first[0] < first[1]


def test_sampled_tokens_do_not_depend_on_the_company(pair: Pair) -> None:
    from harness_speculative_decoding.methods.sampling import Sampling

    settings = Settings(sampling=Sampling(1.0))
    crowd = requests(8, gap_s=0.0, seed=4)
    together = dict(zip([r.name for r in crowd], tokens(serve(pair, crowd, settings)), strict=True))
    for request in crowd[:3]:
        alone = PromptedRequest(request.name, 0.0, request.prompt, request.output_tokens, request.seed)
        assert tokens(serve(pair, [alone], settings)) == [together[request.name]]


def test_sampled_dpd_gives_standalones_tokens(pair: Pair) -> None:
    from harness_speculative_decoding.methods.sampling import Sampling

    asked = requests(6, seed=5)
    law = Sampling(0.8, top_k=50)
    alone = tokens(serve(pair, asked, Settings(sampling=law)))
    assert tokens(serve(pair, asked, Settings(configuration=Configuration.DPD, sampling=law))) == alone


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_dpd_sends_each_prompts_cache_once(pair: Pair, first_token: str) -> None:
    asked = requests(6, seed=6)
    before = pair.reports()["new"]["body_bytes"]
    settings = Settings(configuration=Configuration.DPD, first_token=first_token)  # type: ignore[arg-type]
    outcomes = serve(pair, asked, settings)
    moved = [outcome for outcome in outcomes if outcome.request.output_tokens > 1 or first_token == "decode"]
    assert [outcome.bytes_sent for outcome in moved] == [len(outcome.request.prompt) * PER_TOKEN for outcome in moved]
    assert all(outcome.transfer_s is not None and outcome.transfer_s > 0 for outcome in moved)
    sent = sum(outcome.bytes_sent for outcome in outcomes)
    assert sent_by(pair, "new", before + sent) == before + sent


def test_spec_cache_of_300_tokens_crosses_in_2457600_bytes() -> None:
    model = {"layers": 8, "hidden": 128, "heads": 4, "kv_heads": 4, "draft_layers": 1}
    with ThreadPair(PairOptions(model=model, carrier=Carrier.TCP), [Configuration.DPD]) as pair:
        outcome = serve(pair, [PromptedRequest("r", 0.0, [3] * 300, 2)], Settings(configuration=Configuration.DPD))[0]
        pair_token_bytes = pair.engine("new", "target")["bytes_per_token"]
    assert outcome.bytes_sent == 2_457_600 == 300 * pair_token_bytes


@pytest.mark.parametrize(("row_dtype", "width"), [("float16", 2), ("float32", 4)])
def test_dsd_full_rounds_by_formula(pair: Pair, row_dtype: str, width: int) -> None:
    before = pair.reports()
    settings = Settings(configuration=Configuration.DSD, row_dtype=row_dtype)  # type: ignore[arg-type]
    outcomes = serve(pair, requests(6, seed=7), settings)
    rounds = sum(outcome.rounds for outcome in outcomes)
    round_bytes = draft_bytes_per_round(gamma=4, vocabulary=512, probability_bytes=width)
    assert round_bytes == {2: 4_112, 4: 8_208}[width]
    for outcome in outcomes:
        assert outcome.bytes_sent == outcome.rounds * round_bytes
        assert outcome.bytes_returned == 8 * outcome.rounds
    forth = before["old"]["body_bytes"] + rounds * round_bytes
    back = before["new"]["body_bytes"] + 8 * rounds
    assert (sent_by(pair, "old", forth), sent_by(pair, "new", back)) == (forth, back)


@pytest.mark.parametrize("wire", [Wire.IDS, Wire.LAZY])
def test_dsd_lean_rounds_by_formula(pair: Pair, wire: Wire) -> None:
    before = pair.reports()["old"]["body_bytes"]
    outcomes = serve(pair, requests(6, seed=7), Settings(configuration=Configuration.DSD, wire=wire))
    for outcome in outcomes:
        questions = (outcome.bytes_returned - 8 * outcome.rounds) // 8
        expected = 4 * 8 * outcome.rounds + questions * 512 * 2 if wire is Wire.LAZY else 16 * outcome.rounds
        assert outcome.bytes_sent == expected
        assert questions <= outcome.rounds if wire is Wire.LAZY else questions == 0
    expected = before + sum(outcome.bytes_sent for outcome in outcomes)
    assert sent_by(pair, "old", expected) == expected


def test_ids_are_for_greedy_decoding_only() -> None:
    from harness_speculative_decoding.methods.sampling import Sampling

    with pytest.raises(ValueError, match="greedy"):
        Settings(configuration=Configuration.DSD, wire=Wire.IDS, sampling=Sampling(1.0))


@pytest.mark.parametrize(
    ("configuration", "wire"),
    [(Configuration.DSD, Wire.FULL), pytest.param(Configuration.DSD, Wire.LAZY, marks=pytest.mark.slow)],
)
def test_sampled_speculation_keeps_the_targets_law(configuration: Configuration, wire: Wire) -> None:
    """The second and third token over many requests, against the target's exact two-step law."""
    import torch
    from harness_disaggregated_serving.runtime.engine import Engine, Running
    from harness_disaggregated_serving.runtime.models import build_target
    from harness_speculative_decoding.methods.sampling import Sampling, warp
    from scipy import stats

    model = {"layers": 2, "hidden": 16, "heads": 2, "kv_heads": 1, "vocabulary": 4, "draft_layers": 1, "eps": 1.0}
    law = Sampling(1.0)
    engine = Engine(build_target(SeededModel(**model), torch.float32, torch.device("cpu")), 1)
    expected: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        grown = {}
        for prefix, chance in expected.items():
            running = Running([1, 2, *prefix], engine.new_cache(8))
            for token, share in enumerate(warp(engine.prefill(running), law).double().tolist()):
                grown[(*prefix, token)] = chance * share
        expected = grown
    asked = [PromptedRequest(f"r{number}", 0.0, [1, 2], 3, number * 7919) for number in range(300)]
    settings = Settings(configuration=configuration, wire=wire, gamma=2, sampling=law)
    with ThreadPair(PairOptions(model=model), [configuration]) as pair:
        outcomes = serve(pair, asked, settings)
    assert 0.05 < sum(outcome.accepted for outcome in outcomes) / sum(outcome.proposed for outcome in outcomes) < 0.95
    counted = Counter(map(tuple, tokens(outcomes)))
    likely = [sequence for sequence, chance in expected.items() if chance * len(asked) >= 5]
    seen = [counted[sequence] for sequence in likely]
    wanted = [expected[sequence] * len(asked) for sequence in likely]
    seen.append(len(asked) - sum(seen))
    wanted.append(len(asked) - sum(wanted))
    assert stats.chisquare(seen, wanted).pvalue > 1e-3


def test_the_first_token_rule_moves_the_transfer() -> None:
    options = PairOptions(model=MODEL, latency_s=0.25)
    asked = [PromptedRequest("r", 0.0, [5] * 20, 4)]
    with ThreadPair(options, [Configuration.DPD]) as pair:
        early = serve(pair, asked, Settings(configuration=Configuration.DPD))[0]
        late = serve(pair, asked, Settings(configuration=Configuration.DPD, first_token="decode"))[0]
    assert early.tokens == late.tokens
    assert early.ttft_s is not None
    assert late.ttft_s is not None
    assert late.ttft_s >= 0.25  # the cache has crossed before the first token counts
    assert early.token_s[1] - early.token_s[0] >= 0.25  # and here after it


def test_where_clocks_differ_a_transfer_is_timed_by_the_sender_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness_disaggregated_serving.runtime import role as role_module

    machines = count()
    monkeypatch.setattr(role_module, "clock_id", lambda: f"machine {next(machines)}")
    asked = [PromptedRequest(f"r{number}", 0.1 * number, [5] * 20, 8) for number in range(8)]
    options = PairOptions(model=MODEL, latency_s=0.05, timeout_s=10.0)
    with ThreadPair(options, [Configuration.DPD]) as pair:
        assert not pair.one_clock
        outcomes = serve(pair, asked, Settings(configuration=Configuration.DPD))
    assert tokens(outcomes) == greedy_alone(asked)
    taken_s = [outcome.transfer_s for outcome in outcomes if outcome.transfer_s is not None]
    assert taken_s
    assert 0.05 <= min(taken_s) < 0.1  # one emulated way, not two, for one that nothing held up


def test_arrivals_do_not_wait_for_answers(pair: Pair) -> None:
    outcomes = serve(pair, requests(6, gap_s=0.05), Settings())
    for outcome in outcomes:
        assert outcome.begun_s is not None
        assert outcome.begun_s >= outcome.request.arrival_s
        assert outcome.token_s == sorted(outcome.token_s)
        assert len(outcome.token_s) == outcome.request.output_tokens


def test_single_tokens_have_no_time_per_output_token(pair: Pair) -> None:
    for configuration in Configuration:
        outcome = serve(pair, [PromptedRequest("r", 0.0, [1], 1)], Settings(configuration=configuration))[0]
        assert (outcome.status, outcome.tpot_s) == (Status.FINISHED, None)


def test_what_never_fits_is_rejected_with_its_reason(pair: Pair) -> None:
    asked = [
        PromptedRequest("small", 0.0, [1] * 8, 8),
        PromptedRequest("large", 0.0, [1] * 100, 100),
        PromptedRequest("long", 0.0, [1] * 250, 9),
    ]
    weights = pair.engine("new", "target")["weight_bytes"]
    limits = Limits(memory_bytes={"new": weights + 100 * PER_TOKEN})
    small, large, long = serve(pair, asked, Settings(), limits)
    assert small.status is Status.FINISHED
    assert (large.status, long.status) == (Status.REJECTED, Status.REJECTED)
    assert "a cache of 200 tokens" in large.reason
    assert "context of 256" in long.reason


def test_what_does_not_fit_now_waits_its_turn(pair: Pair) -> None:
    weights = pair.engine("new", "target")["weight_bytes"]
    limits = Limits(memory_bytes={"new": weights + 64 * PER_TOKEN})
    asked = requests(6, gap_s=0.0, seed=8)
    outcomes = serve(pair, asked, Settings(), limits)
    assert tokens(outcomes) == greedy_alone(asked)


def test_emulated_heterogeneity_stretches_the_old_role() -> None:
    asked = [PromptedRequest("r", 0.0, [5] * 20, 30)]
    with ThreadPair(PairOptions(model=MODEL, slow_down={"old": 5.0}), [Configuration.DPD]) as pair:
        outcome = serve(pair, asked, Settings(configuration=Configuration.DPD))[0]
        reports = pair.reports()
    assert tokens([outcome]) == greedy_alone(asked)
    assert reports["old"]["busy_s"] > 3 * reports["new"]["busy_s"]


def test_a_role_that_never_answers_costs_one_request_its_time_limit(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pair, "submit", lambda self, role, request: None)
    outcome = serve(pair, [PromptedRequest("r", 0.0, [1], 3)], Settings(), Limits(request_timeout_s=0.3))[0]
    assert outcome.status is Status.FAILED
    assert "no token for 0.3 s" in outcome.reason


class FaultyWire:
    """A wire between the roles that a test can cut, corrupt or hold."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.ends: list[socket.socket] = []
        self.spoil: Callable[[bytes], bytes | None] = lambda data: data

    def between(self, target: Address) -> Address:
        def run() -> None:
            with suppress(OSError):
                near, _ = self.server.accept()
                far = socket.create_connection(target)
                self.ends += [near, far]
                threading.Thread(target=self.pump, args=(far, near), daemon=True).start()
                self.pump(near, far)

        threading.Thread(target=run, daemon=True).start()
        host, port = self.server.getsockname()[:2]
        return host, port

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                spoiled = self.spoil(data)
                if spoiled is None:
                    break
                sink.sendall(spoiled)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in [self.server, *self.ends]:
            end.close()


def drop(data: bytes) -> None:
    return None


def swallow(data: bytes) -> bytes:
    return b""


def corrupt(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 4])


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("configuration", [Configuration.DPD, Configuration.DSD])
@pytest.mark.parametrize("fault", [drop, swallow, corrupt, truncate])
def test_a_bad_wire_costs_the_pair_and_no_request(
    configuration: Configuration, fault: Callable[[bytes], bytes | None]
) -> None:
    asked = requests(8, gap_s=0.05, seed=9)
    with closing(FaultyWire()) as wire:
        options = PairOptions(model=MODEL, carrier=Carrier.TCP, timeout_s=0.8, reroute=wire.between)
        with ThreadPair(options, [configuration]) as pair:
            drive = Drive(pair, Settings(configuration=configuration), Limits(), clock=time.monotonic)
            began = time.monotonic()
            shifted = [PromptedRequest(r.name, r.arrival_s + began, r.prompt, r.output_tokens, r.seed) for r in asked]
            threading.Timer(0.15, lambda: setattr(wire, "spoil", fault)).start()
            outcomes = drive.run(shifted)
    assert tokens(outcomes) == greedy_alone(asked)
    assert [role for role, _ in drive.losses] == ["old"]
    assert max(outcome.attempts for outcome in outcomes) <= 2


@pytest.mark.parametrize(("configuration", "survives"), [(Configuration.DPD, True), (Configuration.DSD, False)])
def test_the_new_role_is_lost(configuration: Configuration, survives: bool) -> None:
    asked = requests(6, gap_s=0.1, seed=10)
    with ThreadPair(PairOptions(model=MODEL, timeout_s=1.0), [configuration]) as pair:
        threading.Timer(0.15, pair._members["new"].process.kill).start()
        outcomes = serve(pair, asked, Settings(configuration=configuration))
    if survives:
        assert tokens(outcomes) == greedy_alone(asked)
    else:
        ended = {outcome.status for outcome in outcomes}
        assert Status.FAILED in ended
        assert ended <= {Status.FINISHED, Status.FAILED}
        assert {o.reason[:17] for o in outcomes if o.status is Status.FAILED} == {"role new was lost"}


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_real_processes_and_the_old_one_is_killed() -> None:
    asked = requests(8, gap_s=0.05, seed=11)
    with Pair(PairOptions(model=MODEL), [Configuration.DPD, Configuration.DSD]) as pair:
        pids = [pair.pid("new"), pair.pid("old")]
        assert os.getpid() not in pids
        for configuration in (Configuration.DPD, Configuration.DSD):
            assert tokens(serve(pair, asked, Settings(configuration=configuration))) == greedy_alone(asked)
        killer = threading.Timer(0.2, os.kill, (pids[1], signal.SIGKILL))
        killer.start()
        outcomes = serve(pair, asked, Settings(configuration=Configuration.DPD))
        killer.join()
        assert tokens(outcomes) == greedy_alone(asked)
        assert pair.roles == ("new",)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_stopped_process_is_noticed_and_no_process_outlives_its_client() -> None:
    asked = requests(8, gap_s=0.05, seed=12)
    with Pair(PairOptions(model=MODEL, timeout_s=1.5), [Configuration.DSD]) as pair:
        pids = [pair.pid("new"), pair.pid("old")]
        threading.Timer(0.2, os.kill, (pids[1], signal.SIGSTOP)).start()
        assert tokens(serve(pair, asked, Settings(configuration=Configuration.DSD))) == greedy_alone(asked)
        process = pair._members["new"].process
        assert isinstance(process, LocalProcess)
        assert process.popen.stdin is not None
        process.popen.stdin.close()  # what happens when the client is killed
        process.popen.wait(10)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_says_so() -> None:
    with pytest.raises(MeasurementError, match="ended with code"):
        Pair(PairOptions(model={"target": "/nowhere"}), [Configuration.STANDALONE])


@pytest.mark.parametrize("values", [{"prompt": [], "output_tokens": 1}, {"prompt": [1], "output_tokens": 0}])
def test_empty_requests_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        PromptedRequest("r", 0.0, **values)  # type: ignore[arg-type]

"""Following jobs: what the queue says, what nodes write, how silent jobs ended; with answers of Slurm 22.05."""

from __future__ import annotations

import json
import time

import pytest
from harness_executor_slurm import cluster, journal, watch
from harness_executor_slurm.cluster import Row, SlurmError, parse_queue
from harness_executor_slurm.watch import Element, Watch, conclusion, why

from harness import Job, Outcome

SQUEUE = """\
13_2|PENDING|JobArrayTaskLimit|
13_3|PENDING|JobArrayTaskLimit|
13_0|RUNNING|None|n1
17_2|FAILED|NonZeroExitCode|n1
10|PENDING|PartitionConfig|
"""
UNWRITABLE = """\
JobId=59 ArrayJobId=59 ArrayTaskId=5 ArrayTaskThrottle=6 JobName=harness-20261123T163515-six-115fed5a UserId=root(0) \
JobState=FAILED Reason=JobLaunchFailure Dependency=(null) Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:53 \
RunTime=00:00:00 TimeLimit=00:10:00 Partition=main AllocNode:Sid=localhost:2605 NodeList=n2 BatchHost=n2 NumNodes=1 \
StdOut=/shared/run/slurm/59_5.log Power=
"""


class Queue:
    """Stands in for squeue and the other commands."""

    def __init__(self, monkeypatch):
        self.rows: dict[str, Row] | Exception = {}
        self.asked = 0
        self.cancelled: list[tuple[str, ...]] = []
        self.known: dict[str, str] = {}
        monkeypatch.setattr(cluster, "queue", self.queue)
        monkeypatch.setattr(cluster, "cancel", lambda *ids: self.cancelled.append(ids))
        monkeypatch.setattr(cluster, "described", lambda _job: self.known)
        monkeypatch.setattr(watch, "SETTLE_S", 0.0)

    def queue(self, _name, *, ended):
        assert ended
        self.asked += 1
        if isinstance(self.rows, Exception):
            raise self.rows
        return self.rows


@pytest.fixture
def queue(monkeypatch):
    return Queue(monkeypatch)


def element(tmp_path, id_="7_0", offered="", **changes):
    folder = tmp_path / "run" / f"t{id_}"
    folder.mkdir(parents=True)
    journal.start(folder, "token")
    facts = {"trial_id": "t", "folder": folder, "devices": (), "timeout_s": 1, "silence_s": 1, **changes}
    return Element(id_, Job(**facts), offered)


def followed(*elements, poll_s=0.0, queue_s=None):
    """A watch whose thread never starts: `look` is called by hand."""
    made = Watch(poll_s, queue_s)
    made._thread = made  # type: ignore[assignment]
    made.add("run", elements)
    made._asked = -1e9
    return made


def look(made):
    made._asked = -1e9
    made.look()


def heard(each):
    found = []
    each.end(Outcome(ok=True))
    each.wait(found.append)
    return found


def test_the_queue_is_read():
    rows = parse_queue(SQUEUE)
    assert rows["13_0"] == Row("RUNNING", "None", "n1")
    assert rows["13_2"] == Row("PENDING", "JobArrayTaskLimit", "")
    assert len(rows) == 5
    assert parse_queue("slurm_load_jobs: something else\n\n") == {}


def test_a_thousand_elements_cost_one_question_and_no_file(queue, tmp_path, monkeypatch):
    many = [element(tmp_path, f"7_{index}") for index in range(1000)]
    made = followed(*many)
    queue.rows = {each.id: Row("PENDING", "Resources", "") for each in many}
    monkeypatch.setattr(journal.Follower, "read", lambda _self: pytest.fail("nothing runs, nothing is to be read"))
    look(made)
    assert queue.asked == 1
    assert all(each.outcome is None for each in many)


def test_journals_are_read_in_turns(queue, tmp_path, monkeypatch):
    many = [element(tmp_path, f"7_{index}") for index in range(5)]
    made = followed(*many)
    queue.rows = {each.id: Row("RUNNING", "None", "n1") for each in many}
    monkeypatch.setattr(watch, "READ_AT_ONCE", 2)
    read: list[str] = []
    monkeypatch.setattr(made, "_read", lambda each: read.append(each.id))
    for _ in range(3):
        look(made)
    assert read[:5] == [each.id for each in many]
    queue.rows["7_4"] = Row("COMPLETED", "None", "n1")
    look(made)
    assert "7_4" in read[6:], "what is over does not wait for its turn"


def test_the_queue_is_asked_less_often_while_nothing_happens(queue, tmp_path):
    one = element(tmp_path)
    made = followed(one, poll_s=10.0)
    queue.rows = {one.id: Row("PENDING", "Resources", "")}
    look(made)
    now = time.monotonic()
    made._event, made._asked = now - 100, now - 9
    made.look()
    assert queue.asked == 1
    made._asked = now - 11
    made.look()
    assert queue.asked == 2
    made._event, made._asked = now - 8, now - 3
    made.look()
    assert queue.asked == 3, "soon after something happened"


def test_messages_and_the_end_come_from_the_journal(queue, tmp_path):
    one = element(tmp_path)
    made = followed(one)
    queue.rows = {one.id: Row("RUNNING", "None", "n1")}
    lines = journal.Journal(one.job.folder)
    lines.write(event="started", node="n1")
    lines.write(message={"type": "progress", "phase": "window"})
    look(made)
    assert one.outcome is None
    lines.write(event="ended", ok=False, reason="out of memory", log_tail=["a", "b"])
    look(made)
    assert one.outcome == Outcome(ok=False, reason="out of memory", log_tail=("a", "b"))
    assert [message["phase"] for message in heard(one)] == ["slurm", "window"]
    assert made.under_way() == {}


def test_an_interrupted_attempt_is_no_end(queue, tmp_path):
    one = element(tmp_path)
    made = followed(one)
    queue.rows = {one.id: Row("RUNNING", "None", "n1")}
    lines = journal.Journal(one.job.folder)
    lines.write(event="interrupted", signal="SIGTERM")
    look(made)
    queue.rows = {one.id: Row("PENDING", "BeginTime", "")}
    look(made)
    queue.rows = {one.id: Row("RUNNING", "None", "n2")}
    lines.write(event="ended", ok=True)
    look(made)
    assert one.outcome == Outcome(ok=True)


def test_a_requeue_is_no_end(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SETTLE_S", 60.0)
    one = element(tmp_path)
    made = followed(one)
    for state in ("RUNNING", "NODE_FAIL", "PENDING", "RUNNING"):
        queue.rows = {one.id: Row(state, "None", "n1")}
        look(made)
    assert one.outcome is None
    assert one.over is None


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("CANCELLED", "the Slurm job was cancelled"),
        ("TIMEOUT", "the Slurm job reached its time limit"),
        ("NODE_FAIL", "node n1 failed while the trial ran"),
        ("OUT_OF_MEMORY", "the Slurm job needed more memory than it had asked for"),
        ("PREEMPTED", "the Slurm job gave way to a more important one and was not requeued"),
        ("", "the Slurm job left the queue without a word about the trial"),
    ],
)
def test_silent_ends_have_their_reason(queue, tmp_path, state, said):
    one = element(tmp_path)
    made = followed(one)
    queue.rows = {one.id: Row("RUNNING", "None", "n1")}
    look(made)
    queue.rows = {one.id: Row(state, "None", "n1")} if state else {}
    look(made)
    assert one.outcome == Outcome(ok=False, reason=said)


def test_a_measurement_that_was_written_counts_however_the_job_ended(queue, tmp_path):
    one = element(tmp_path)
    (one.job.folder / "measurement.json").write_text("{}")
    one.row = Row("NODE_FAIL", "None", "n1")
    assert conclusion(one) == Outcome(ok=True)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("0:53", "node n2 does not see the store"),
        ("78:0", "node n2 does not see the store"),
        ("79:0", "the trial was handed to another job"),
        ("127:0", "node n2 has no such Python"),
        ("1:0", "ended in state FAILED with exit code 1:0 without a word about the trial"),
    ],
)
def test_exit_codes_have_their_reason(tmp_path, code, said):
    assert said in why(Row("FAILED", "NonZeroExitCode", "n2"), {"ExitCode": code}, tmp_path)


def test_what_scontrol_says_of_a_store_that_is_not_shared(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "ask", lambda *_command: UNWRITABLE)
    said = cluster.described("59_5")
    assert (said["JobState"], said["ExitCode"], said["NodeList"]) == ("FAILED", "0:53", "n2")
    assert str(tmp_path) in why(Row("", "", ""), said, tmp_path)


def test_the_log_of_a_silent_job_is_shown(queue, tmp_path):
    one = element(tmp_path)
    logs = tmp_path / "run" / "slurm"
    logs.mkdir()
    (logs / "7_0.log").write_text("bash: line 12: python: not found\n")
    one.row = Row("FAILED", "NonZeroExitCode", "n1")
    queue.known = {"ExitCode": "127:0"}
    assert conclusion(one).log_tail == ("bash: line 12: python: not found",)


@pytest.mark.parametrize(
    ("reason", "requires", "skipped"),
    [
        ("PartitionConfig", {"cpu": 64}, True),
        ("PartitionConfig", {}, False),
        ("PartitionTimeLimit", {"cpu": 64}, False),
    ],
)
def test_what_slurm_takes_and_cannot_start_is_taken_off_the_queue(queue, tmp_path, reason, requires, skipped):
    one, other = element(tmp_path, "7_0", "n", requires=requires), element(tmp_path, "7_1", "n", requires=requires)
    made = followed(one, other)
    queue.rows = {each.id: Row("PENDING", reason, "") for each in (one, other)}
    look(made)
    assert one.outcome is None, "once is not enough: the scheduler may not have looked yet"
    look(made)
    assert queue.cancelled == [("--state=PENDING", "7_0", "7_1")], "one command for all"
    assert one.outcome is not None
    assert (one.outcome.skipped, one.outcome.ok) == (skipped, False)
    assert f"({reason}); the cluster offers n" in one.outcome.reason


def test_waiting_too_long(queue, tmp_path):
    one = element(tmp_path, offered="two nodes")
    made = followed(one, queue_s=5.0)
    queue.rows = {one.id: Row("PENDING", "Priority", "")}
    look(made)
    assert one.outcome is None
    one.submitted -= 6
    look(made)
    assert one.outcome is not None
    assert one.outcome.reason == "the job waited longer than 5 s in the queue (Priority); the cluster offers two nodes"


def test_a_controller_that_is_away_ends_nothing_for_an_hour(queue, tmp_path):
    one = element(tmp_path)
    made = followed(one)
    queue.rows = SlurmError("Unable to contact slurm controller (connect failure)")
    for _ in range(3):
        look(made)
    assert one.outcome is None
    made._answered -= 3601
    look(made)
    assert one.outcome is not None
    assert one.outcome.reason.startswith("Slurm did not answer for 60 min: Unable to contact")
    assert [message["type"] for message in heard(one)] == ["note"], "said once"


def test_a_fault_of_the_thread_leaves_no_trial_waiting(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "FOLLOW_S", 0.01)
    queue.rows = RuntimeError("a bug")
    one = element(tmp_path)
    made = Watch(0.0, None)
    made._asked = -1e9
    made.add("run", [one])
    assert one.wait(lambda _message: None).reason == "following the jobs failed: RuntimeError('a bug')"
    made.close("closed")


def test_closing_ends_what_waits(queue, tmp_path):
    one = element(tmp_path)
    made = Watch(1.0, None)
    made.add("run", [one])
    made.close("the executor was closed")
    assert one.wait(lambda _message: None) == Outcome(ok=False, reason="the executor was closed")


def test_nobody_listens_and_memory_stays_bounded(tmp_path):
    one = element(tmp_path)
    for number in range(10_000):
        one.tell({"number": number})
    assert [message["number"] for message in heard(one)] == list(range(9800, 10_000))


def test_half_a_line_is_kept_until_the_rest_comes(tmp_path):
    journal.start(tmp_path, "token")
    follower = journal.Follower(tmp_path)
    assert follower.read() == [{"token": "token"}]
    with (tmp_path / journal.NAME).open("a") as stream:
        stream.write('{"message": {"a"')
        stream.flush()
        assert follower.read() == []
        stream.write(": 1}}\n")
    assert follower.read() == [{"message": {"a": 1}}]
    assert follower.read() == []


def test_a_line_that_a_dying_node_left_is_passed_over(tmp_path):
    journal.start(tmp_path, "token")
    with (tmp_path / journal.NAME).open("a") as stream:
        stream.write('{"message": {"phase": "win')
    lines = journal.Journal(tmp_path)
    lines.write(event="started", restarts=1)
    lines.close()
    assert [each.get("event") for each in journal.entries(tmp_path)] == [None, "started"]


def test_a_flood_of_messages_ends_and_the_end_is_still_told(tmp_path):
    journal.start(tmp_path, "token")
    lines = journal.Journal(tmp_path)
    for _ in range(5000):
        lines.write(message={"type": "progress", "text": "x" * 1000})
    lines.write(event="ended", ok=True)
    lines.close()
    assert (tmp_path / journal.NAME).stat().st_size < journal.LIMIT_BYTES + 4096
    *_, last = journal.entries(tmp_path)
    assert last == {"event": "ended", "ok": True}


def test_a_journal_is_read_in_bounded_pieces(tmp_path):
    journal.start(tmp_path, "token")
    with (tmp_path / journal.NAME).open("a") as stream:
        for number in range(20_000):
            stream.write(json.dumps({"message": {"number": number, "text": "x" * 50}}) + "\n")
    follower = journal.Follower(tmp_path)
    first = follower.read()
    assert 0 < len(first) < 5000
    assert sum(1 for _ in journal.entries(tmp_path)) == 20_001


def test_a_journal_that_cannot_be_read_is_no_fault(tmp_path):
    assert journal.Follower(tmp_path / "gone").read() == []

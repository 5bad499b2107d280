"""What a case requires and what the options say, in Slurm's words."""

from __future__ import annotations

import pytest
from harness_executor_slurm import submission
from harness_executor_slurm.cluster import parse_gres, parse_offer, plain, shown
from harness_executor_slurm.requirements import RefusalError, Request, request
from harness_executor_slurm.settings import SlurmOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness import Job
from harness.testing import check_offers

# sinfo --noheader --exact --format='%R|%D|%c|%m|%G|%f', of Slurm 22.05 with two nodes
SINFO = """\
main|1|2|1000|gpu:a100:2|fast
main|1|2|1000|(null)|slow,zen=4
one|1|2|1000|gpu:a100:2|fast
"""
BIG = parse_offer(
    "gpu|8|128|1031000|gpu:nvidia_h100_80gb_hbm3:8(S:0-1),nvme:2K|ib,zen4\n"
    "old|4|32|128000|gpu:a100_40:4(S:0),gpu:a100_80:4(S:1)|ib\n"
    "plain|2|16|64000|gpu:2|v100,p100\n"
)


def test_the_offer_is_inert():
    assert check_offers("harness_executor_slurm") == ["executors:slurm"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(null)", {}),
        ("gpu:2", {"gpu": 2}),
        ("gpu", {"gpu": 1}),
        ("gpu:a100:2(S:0-1)", {"gpu": 2, "gpu:a100": 2}),
        ("gpu:a100_40:4(S:0),gpu:a100_80:4(S:1),nvme:2K", {"gpu": 8, "gpu:a100_40": 4, "gpu:a100_80": 4, "nvme": 2048}),
        ("gpu:tesla", {"gpu": 1, "gpu:tesla": 1}),
        ("", {}),
    ],
)
def test_gres(text, found):
    assert parse_gres(text) == found


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=5), st.integers(1, 99), min_size=1, max_size=4))
def test_gres_of_types_add_up(types):
    found = parse_gres(",".join(f"gpu:x{name}:{count}(S:0-1)" for name, count in types.items()))
    assert found == {"gpu": sum(types.values())} | {f"gpu:x{name}": count for name, count in types.items()}


def test_what_the_cluster_offers_is_read_and_shown():
    offer = parse_offer(SINFO)
    assert [(each.partition, each.cpus, each.memory_mb) for each in offer] == [
        ("main", 2, 1000),
        ("main", 2, 1000),
        ("one", 2, 1000),
    ]
    assert offer[1].features == {"slow", "zen=4"}
    assert "main: 1 of 2 processors and 1000 MiB, gpu:a100 x 2, features fast" in shown(offer)
    assert shown([]) == "no node at all"
    assert "and 14 kinds more" in shown(parse_offer("".join(f"p{n}|1|2|3|(null)|(null)\n" for n in range(20))))


@pytest.mark.parametrize(
    ("requires", "flags"),
    [
        ({}, {}),
        ({"gpu": 2}, {"gres": "gpu:2"}),
        ({"gpu": 4, "accelerator": "H100"}, {"gres": "gpu:nvidia_h100_80gb_hbm3:4"}),
        ({"accelerator": "A100_80"}, {"gres": "gpu:a100_80:1"}),
        ({"accelerator": "V100"}, {"gres": "gpu:1", "constraint": "v100"}),
        ({"cpu": 8, "memory": 40 * 10**9}, {"cpus-per-task": "8", "mem": "38147M"}),
        ({"memory": 1}, {"mem": "1M"}),
        ({"labels": {"arch": "zen4"}}, {"constraint": "zen4"}),
        ({"resources": {"nvme": 2.0}}, {"gres": "nvme:2"}),
        ({"gpu": 1, "resources": {"nvme": 1.5}}, {"gres": "gpu:1,nvme:2"}),
        ({"resources": {"matlab": 1.0}}, {"licenses": "matlab:1"}),
    ],
)
def test_requirements(requires, flags):
    assert request(requires, BIG, ["matlab"]).flags() == flags


def test_a_label_is_first_looked_for_with_its_name():
    assert request({"labels": {"zen": "4"}}, parse_offer(SINFO)).flags() == {"constraint": "zen=4"}


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        ({"accelerator": "B200"}, "no node has the accelerator B200"),
        ({"gpu": 16}, "no node has --gres=gpu:16"),
        ({"cpu": 500}, "no node has --cpus-per-task=500"),
        ({"memory": 10**13}, "no node has --mem=9536744M"),
        ({"labels": {"rack": "7"}}, "no node has --constraint=rack=7"),
        ({"resources": {"fpga": 1.0}}, "no node has --gres=fpga:1"),
        ({"gpu": 8, "labels": {"kind": "v100"}}, "no node has --gres=gpu:8 --constraint=v100"),
    ],
)
def test_what_no_node_has_is_skipped_and_says_what_there_is(requires, said):
    with pytest.raises(RefusalError, match=r"the cluster offers gpu: 8 of 128 processors") as caught:
        request(requires, BIG)
    assert caught.value.reason.startswith(said)
    assert caught.value.skipped


def test_an_accelerator_that_is_several_types_is_no_reason_to_skip():
    with pytest.raises(RefusalError, match="may be any of gpu:a100_40, gpu:a100_80") as caught:
        request({"accelerator": "A100"}, BIG)
    assert not caught.value.skipped


def test_a_users_constraint_is_joined_to_what_is_required():
    wanted = Request(features=[("v100", "p100"), ("ib",)])
    assert wanted.flags("fast")["constraint"] == "fast&(v100|p100)&ib"
    assert wanted.flags("a|b")["constraint"] == "(a|b)&(v100|p100)&ib"
    assert Request().flags("a|b")["constraint"] == "a|b"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "a\nrm -rf /"}, "partition"),
        ({"partition": "a b"}, "partition"),
        ({"extra": {"mail-user": "a\nb"}}, "extra"),
        ({"extra": {"Begin": "x"}}, "extra"),
        ({"extra": {"array": "0-3"}}, "array is set by the executor"),
        ({"time": "1min", "grace": "1min"}, "leaves nothing"),
        ({"poll": 0.1}, "poll"),
        ({"at_most": 0}, "at_most"),
    ],
)
def test_options_that_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        SlurmOptions(**options)


def script(options: SlurmOptions, folder, *, count=6, alone=False, asked: Request | None = None) -> list[str]:
    """Lines of the batch script that submitit writes, without running it."""
    (folder / "slurm").mkdir()
    made = submission._Script(folder / "slurm")
    made.update_parameters(**submission.parameters(folder, asked or Request(), options, count=count, alone=alone))
    made.parameters["map_count"] = count
    text = made._make_submission_file_text("exec true", "uid")
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def test_options_reach_the_batch_script(fake_slurm, tmp_path):
    options = SlurmOptions(
        partition="gpu",
        account="lab",
        qos="high",
        time="2h",
        grace="2min",
        at_most=4,
        requeue=False,
        extra={"mail-user": "a@b", "nice": 10, "contiguous": True, "reboot": False},
    )
    found = script(options, tmp_path, alone=True, asked=Request(gres={"gpu:a100": 2}))
    assert set(found) == {
        "--account=lab",
        "--array=0-5%4",
        "--contiguous",
        "--exclusive",
        "--gres=gpu:a100:2",
        f"--job-name=harness-{tmp_path.name}",
        "--mail-user=a@b",
        "--nice=10",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        "--open-mode=append",
        f"--output={tmp_path}/slurm/%A_%a.log",
        "--partition=gpu",
        "--qos=high",
        "--signal=B:USR2@120",
        "--time=120",
    }


def test_without_options_the_partitions_defaults_hold(fake_slurm, tmp_path):
    names = {line.partition("=")[0] for line in script(SlurmOptions(), tmp_path)}
    assert names == {"--array", "--job-name", "--nodes", "--ntasks", "--open-mode", "--output", "--requeue", "--signal"}


@pytest.mark.parametrize(
    ("measured", "option", "alone"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
def test_measured_trials_have_a_node_of_their_own(tmp_path, measured, option, alone):
    job = Job(trial_id="t", folder=tmp_path, devices=(), timeout_s=1, silence_s=1, measured=measured)
    assert submission._alone(job, option) is alone


def test_what_sbatch_complains_of_is_said_without_its_own_name():
    said = "sbatch: error: invalid partition: nope\nsbatch: error: Batch job submission failed: Invalid name\n"
    assert plain(said) == "invalid partition: nope; Invalid name"

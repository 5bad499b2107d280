from __future__ import annotations

import subprocess
import sys

from harness_semantic_segmentation.workloads.checks import NETWORKS, check
from harness_semantic_segmentation.workloads.options import SegmentationInferenceOptions, TrainingOptions


def test_the_names_that_planning_knows_are_those_of_the_catalogue() -> None:
    from harness_semantic_segmentation.networks.catalogue import CATALOGUE

    assert set(NETWORKS) == set(CATALOGUE)


def test_what_is_not_there_is_found_without_torch(tmp_path) -> None:
    here = str(tmp_path)
    wrong = SegmentationInferenceOptions(model="bialignnet", data="camvid", root=f"{here}/gone", weights=f"{here}/w.pt")
    assert [fault.option for fault in check(wrong)] == ["model", "root", "weights"]
    assert [fault.option for fault in check(TrainingOptions(resume=here))] == ["resume"]
    assert not list(
        check(
            SegmentationInferenceOptions(data="camvid", root=here, model="segformer-b0", weights="nvidia/segformer-b0")
        )
    )
    code = "import sys, harness_semantic_segmentation.workloads.checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

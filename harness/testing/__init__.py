"""Fakes and conformance checks for plugin authors.

A check that fails raises AssertionError with a sentence that says what is wrong; given `Checks`, it collects outcomes.
Nothing here needs pytest; `harness.pytest_plugin` makes fixtures of the fakes.
"""

from harness.testing.amdsmi import FakeAmdCard as FakeAmdCard
from harness.testing.amdsmi import FakeAmdSmi as FakeAmdSmi
from harness.testing.checks import Check as Check
from harness.testing.checks import Checks as Checks
from harness.testing.checks import NotTriedError as NotTriedError
from harness.testing.exports import check_export as check_export
from harness.testing.exports import made_up_run as made_up_run
from harness.testing.fakes import FakeClock as FakeClock
from harness.testing.fakes import PowercapTree as PowercapTree
from harness.testing.in_process import InProcessExecutor as InProcessExecutor
from harness.testing.in_process import cost_in_process as cost_in_process
from harness.testing.machines import check_backend as check_backend
from harness.testing.machines import check_executor as check_executor
from harness.testing.meters import check_impact_meter as check_impact_meter
from harness.testing.meters import check_meter as check_meter
from harness.testing.meters import made_up as made_up
from harness.testing.nvml import FakeCard as FakeCard
from harness.testing.nvml import FakeNvml as FakeNvml
from harness.testing.offers import HEAVY_MODULES as HEAVY_MODULES
from harness.testing.offers import check_offers as check_offers
from harness.testing.waiting import until as until
from harness.testing.web import Request as Request
from harness.testing.web import WebServer as WebServer
from harness.testing.workloads import RecordingWindow as RecordingWindow
from harness.testing.workloads import check_determinism as check_determinism
from harness.testing.workloads import check_scorer as check_scorer
from harness.testing.workloads import check_workload as check_workload
from harness.testing.workloads import trial_context as trial_context

"""Energy of trainings that pytorch-lightning and transformers drive: logged by their loggers, kept as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness import Amount, UsageError

TREE = "cpu_time: {watts_per_core: 5}"


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global TrainingEnergy, torch
    import torch
    from harness_backend_torch.training_energy import TrainingEnergy


class Data:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.full((4,), float(index)), "labels": torch.tensor(1.0)}


def test_stretches_of_steps(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    energy = TrainingEnergy(every=2, meters=[TREE], store=tmp_path)
    assert energy.step_ended() == {}, "nothing was begun"
    energy.begin("cpu")
    logged = []
    for _ in range(5):
        energy.step_begins()
        sum(range(3_000_000))  # so long that the clock of CPU time moves
        logged.append(energy.step_ended())
    logged.append(energy.end())
    energy.end()
    assert [bool(each) for each in logged] == [False, True, False, True, False, True]
    assert logged[1].keys() == {"harness/joules_per_step", "harness/seconds_per_step", "harness/watts"}
    assert torch.get_num_threads() == threads
    assert energy.run is not None
    trials = harness.load(energy.run).trials
    assert [trial.units["step"].count.achieved for trial in trials] == [2.0, 2.0, 1.0]
    assert isinstance(trials[0].units["step"].costs["energy_j"], Amount)
    with pytest.raises(UsageError, match="0 steps"):
        TrainingEnergy(every=0)


def test_without_a_meter_one_warning_and_the_time() -> None:
    energy = TrainingEnergy(every=1, meters=["rapl: {root: /nowhere}"], store=None)
    energy.begin("cpu")
    energy.step_begins()
    with pytest.warns(UserWarning, match="no energy is logged: rapl"):
        assert energy.step_ended().keys() == {"harness/seconds_per_step"}
    energy.step_begins()
    assert energy.step_ended().keys() == {"harness/seconds_per_step"}
    energy.end()


@pytest.mark.filterwarnings("ignore")
def test_lightning_logs_what_steps_cost(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    from harness_backend_torch.lightning import EnergyCallback

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _index: int) -> Any:
            return self.layer(batch["x"]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class Log(lightning.loggers.logger.DummyLogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int | None, dict[str, float]]] = []

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            self.seen.append((step, dict(metrics)))

    log, callback = Log(), EnergyCallback(every=5, meters=[TREE], grid="500", store=tmp_path)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=log,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(Data()))
    told = [(step, metrics) for step, metrics in log.seen if "harness/seconds_per_step" in metrics]
    assert [step for step, _ in told] == [5, 10, 12]
    assert callback.energy.run is not None
    assert len(harness.load(callback.energy.run).trials) == 3


@pytest.mark.filterwarnings("ignore")
def test_transformers_trainer_logs_what_steps_cost(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from harness_backend_torch.huggingface import EnergyCallback

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
            return {"loss": (self.layer(x).squeeze(-1) - labels).square().mean()}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        logging_steps=4,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=Model(), args=arguments, train_dataset=Data())
    callback = EnergyCallback(every=100, meters=[TREE], store=tmp_path / "store").add_to(trainer)
    trainer.train()
    told = [entry for entry in trainer.state.log_history if "harness/seconds_per_step" in entry]
    assert [entry["step"] for entry in told] == [4, 8, 12]
    assert callback.energy.run is not None
    assert len(harness.load(callback.energy.run).trials) == 3

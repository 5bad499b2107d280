"""Columns and functional units of the two workloads."""

from __future__ import annotations

from harness import Column, FunctionalUnit

TRAINING_COLUMNS = (
    Column("optimizer_steps", "1", "optimizer steps; 1 in every row"),
    Column("images", "1", "images trained on in the step"),
    Column("megapixels", "1", "input pixels of the step, in millions"),
    Column("epochs", "1", "epochs done in the step: its images over those of the data set"),
    Column("loss", "1", "total training loss of the step, all heads together", higher_is_better=False),
    Column("learning_rate", "1", "learning rate of the step"),
    Column("step_s", "s", "from the end of the step before to the end of this one", higher_is_better=False),
    Column(
        "miou",
        "1",
        "mean IoU (intersection over union) of the validation images after the window",
        higher_is_better=True,
    ),
    Column("target_reached", "1", "1 at the last step of the first window that reached `target_miou`, else 0"),
)
TRAINING_UNITS = {
    "optimizer_step": FunctionalUnit.of("optimizer_steps"),
    "target": FunctionalUnit.of("target_reached"),
    "image": FunctionalUnit.of("images"),
    "epoch": FunctionalUnit.of("epochs"),
}
INFERENCE_COLUMNS = (
    Column("images", "1", "frames; 1 in every row"),
    Column("megapixels", "1", "pixels of the frame, in millions"),
    Column("forward_passes", "1", "passes through the network for the frame"),
    Column("macs", "1", "multiply-accumulates of convolutions and matrix products for the frame; 2 x MAC are FLOPs"),
    Column(
        "peak_memory_bytes",
        "B",
        "weights, and tensors alive at once in a pass; what libraries take for themselves is left out",
        higher_is_better=False,
    ),
    Column(
        "latency_s",
        "s",
        "from the frame in host memory to its class map there; single_stream only",
        higher_is_better=False,
    ),
    Column(
        "miou",
        "1",
        "mean IoU (intersection over union) of the classes over all frames of the window",
        higher_is_better=True,
        bars=(0.3, 0.5, 0.6, 0.7, 0.75, 0.8),
    ),
    Column("image_miou", "1", "mean IoU (intersection over union) of the frame's classes", higher_is_better=True),
    Column("boundary_f", "1", "F-score of the frame's class boundaries", higher_is_better=True),
)
INFERENCE_UNITS = {
    "image": FunctionalUnit.of("images"),
    "megapixel": FunctionalUnit.of("megapixels"),
}

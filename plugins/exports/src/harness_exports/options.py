"""Options of the exports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness import Options

DataType = Literal["tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"]
"""What BoAmps calls the kinds of data."""


class BoAmpsOptions(Options):
    """What a BoAmps report must say and no record knows.

    Attributes:
        stage: `inference`, `training`, `finetuning`, `preprocessing` or another stage; several are joined by `+`.
        family: family of the task, such as `chatbot` or `imageClassification`.
        infra: kind of infrastructure.
        data_type: kind of the input data.
        model: common name of the model or algorithm; the name of the workload where none is given.
        parameters: parameters of the model, in billions.
        framework: software that implements the model.
        country: where the work was done; without it the report has no `environment`.
        publisher: name of the publishing organisation; without it the report has none.
        confidentiality: of the report, where there is a publisher.
        licence: of the report.
        accuracy: measured accuracy of the model, from 0 to 1.
    """

    stage: str = Field(min_length=1)
    family: str = Field(min_length=1)
    infra: Literal["publicCloud", "privateCloud", "onPremise", "other"] = "other"
    data_type: DataType = "other"
    model: str = ""
    parameters: float | None = Field(default=None, gt=0)
    framework: str = ""
    country: str = ""
    publisher: str = ""
    confidentiality: Literal["public", "internal", "confidential", "secret"] = "internal"
    licence: str = ""
    accuracy: float | None = Field(default=None, ge=0, le=1)


class MlflowOptions(Options):
    """Where in the tracking server.

    Attributes:
        experiment: name of the experiment; made where there is none.
    """

    experiment: str = Field(default="joule-harness", min_length=1, max_length=500)


class WandbOptions(Options):
    """How the runs are kept.

    Attributes:
        folder: where offline runs and the service's own files lie; `wandb` is made in it.
    """

    folder: str = "."


class PushgatewayOptions(Options):
    """The group that is replaced.

    Attributes:
        job: label `job` of the group; `run` is its other label.
        timeout_s: how long to wait for the gateway, in s.
    """

    job: str = Field(default="joule-harness", min_length=1)
    timeout_s: float = Field(default=10.0, gt=0)

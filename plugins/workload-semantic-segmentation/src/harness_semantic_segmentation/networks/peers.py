"""Peers from transformers behind the same interface: images in, logits at the image's size out.

From a configuration the weights are random and nothing is downloaded: good for time and energy, not for quality. A
folder or a hub id gives trained weights, through transformers' own loading.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from harness_semantic_segmentation.networks.ddsm import resized
from harness_semantic_segmentation.networks.errors import NetworkError, WeightsError, closest
from harness_semantic_segmentation.networks.layers import Outputs, size_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ResNetDepth = Literal["18", "50", "101"]
RESNETS: dict[ResNetDepth, dict[str, Any]] = {
    "18": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    "50": {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"},
    "101": {"depths": [3, 4, 23, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"},
}
SEGFORMERS: dict[str, dict[str, Any]] = {
    "b0": {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256},
    "b1": {"hidden_sizes": [64, 128, 320, 512], "depths": [2, 2, 2, 2], "decoder_hidden_size": 256},
}


class Peer(nn.Module):
    """A segmentation model of transformers, its logits resized to the image.

    Args:
        model: returns an object with `logits`, B x classes x h x w.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def classes(self) -> int:
        """Channels of the logits."""
        config: Any = self.model.config
        return int(config.num_labels)

    def forward(self, image: Tensor) -> Tensor | Outputs:
        """B x 3 x H x W to logits B x classes x H x W; in training mode to `Outputs`."""
        logits: Tensor = self.model(pixel_values=image).logits
        if size_of(logits) != size_of(image):
            logits = resized(logits, size_of(image))
        return Outputs(logits) if self.training else logits


def resnet_config(depth: ResNetDepth) -> Any:
    """ResNet with taps at strides 4, 8, 16 and 32."""
    from transformers import ResNetConfig

    return ResNetConfig(**RESNETS[depth], out_features=["stage1", "stage2", "stage3", "stage4"])  # type: ignore[call-arg]  # of its parent


def _segformer(size: str) -> Callable[[int], PretrainedConfig]:
    def config(classes: int) -> PretrainedConfig:
        from transformers import SegformerConfig

        return SegformerConfig(num_labels=classes, **SEGFORMERS[size])  # type: ignore[call-arg]  # of its parent

    return config


def _upernet(classes: int) -> PretrainedConfig:
    from transformers import UperNetConfig

    return UperNetConfig(  # type: ignore[call-arg]  # of its parent
        backbone_config=resnet_config("18"), hidden_size=128, use_auxiliary_head=False, num_labels=classes
    )


def _mobilenet(classes: int) -> PretrainedConfig:
    from transformers import MobileNetV2Config

    return MobileNetV2Config(num_labels=classes, output_stride=16)  # type: ignore[call-arg]  # of its parent


CONFIGURATIONS: dict[str, Callable[[int], PretrainedConfig]] = {
    "segformer-b0": _segformer("b0"),
    "segformer-b1": _segformer("b1"),
    "upernet-resnet18": _upernet,
    "mobilenetv2-deeplab": _mobilenet,
}
"""transformers' configuration of a peer, by name, for a number of classes."""


def peer(name: str, classes: int = 19) -> Peer:
    """A peer with random weights; no network is used.

    Raises:
        NetworkError: no such peer.
    """
    if name not in CONFIGURATIONS:
        accepted = ", ".join(CONFIGURATIONS)
        raise NetworkError(f"no peer is called {name!r}; accepted: {accepted}{closest(name, CONFIGURATIONS)}")
    return Peer(_auto_class().from_config(CONFIGURATIONS[name](classes)))


def pretrained(source: str) -> Peer:
    """A peer with the weights of a folder or a hub id.

    Raises:
        WeightsError: it cannot be had; says what was asked for.
    """
    if source.startswith((".", "/", "~")) and not Path(source).expanduser().is_dir():
        raise WeightsError(f"there is no model folder {source}; accepted: a folder of save_pretrained, or a hub id")
    try:
        return Peer(
            _auto_class().from_pretrained(
                str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source,
                trust_remote_code=False,
            )
        )
    except NetworkError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"no segmentation model can be loaded from {source!r}: {str(error).splitlines()[0]}; "
            "accepted: a folder of save_pretrained, or a hub id"
        ) from error


def _auto_class() -> Any:
    """AutoModelForSemanticSegmentation; NetworkError with the cause where a foreign torchvision breaks transformers."""
    try:
        from transformers import AutoModelForSemanticSegmentation
    except (ImportError, RuntimeError) as error:
        if "torchvision" not in str(error):
            raise
        raise NetworkError(
            "transformers does not import beside the installed torchvision, which is built for another torch "
            "(uninstall torchvision; nothing here needs it)"
        ) from error
    return AutoModelForSemanticSegmentation

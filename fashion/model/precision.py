"""How a model computes in a given precision, memory layout and compilation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from fashion.model.classifier import MultiHeadClassifier


@dataclass(frozen=True)
class Setting:
    """How a trial's training steps are computed. `compile` is the mode of torch.compile, "none" for eager steps."""

    bf16: bool
    channels_last: bool
    compile: str = "none"

    def __str__(self) -> str:
        compiled = "" if self.compile == "none" else f" compiled ({self.compile})"
        return f"{'bf16' if self.bf16 else 'fp32'} {'channels_last' if self.channels_last else 'nchw'}{compiled}"

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def arrange(self, model: MultiHeadClassifier, device: torch.device) -> MultiHeadClassifier:
        """The model, moved to the device and to the setting's layout.

        With bf16 on a CPU its depthwise convolutions stay in fp32, since oneDNN's bf16 backward pass of them takes two
        to six times as long (docs/performance.md).
        """
        model = model.to(device)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if self.bf16 and device.type == "cpu":
            for module in model.modules():
                if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
                    module.__class__ = _in_float32(type(module))  # type: ignore[arg-type]  # a class is hashable
        return model

    def compiled(self, net: nn.Module) -> nn.Module:
        """`net` compiled in the setting's mode, or as it is."""
        if self.compile == "none":
            return net
        return torch.compile(net, mode=self.compile)  # type: ignore[return-value]


def computes_bf16(device: torch.device) -> bool:
    """Whether the device itself computes in bf16. On a CPU without AVX-512 (or Arm's bf16) oneDNN emulates it at a
    tenth of fp32's speed; torch's own compiler asks oneDNN the same question."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def imitated(precision: str, device: torch.device) -> str:
    """A warning for a precision that the spec fixes and the device only emulates; otherwise empty."""
    if precision != "bf16" or computes_bf16(device):
        return ""
    rule = "train.precision: bf16 is only imitated on this machine, many times slower than fp32"
    return f"{rule}; auto takes what is fastest"


@cache
def _in_float32(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """A subclass of the convolution `kind` that computes in fp32 under autocast, too.

    It is a class, not a wrapped method, because a deep copy (the weight average) must compute with its own weights.
    """

    class InFloat32(kind):  # type: ignore[valid-type, misc]
        def forward(self, images: Tensor) -> Tensor:
            with torch.autocast(images.device.type, enabled=False):
                return super().forward(images.float()).to(images.dtype)  # type: ignore[no-any-return]

    InFloat32.__name__ = f"{kind.__name__}InFloat32"
    return InFloat32

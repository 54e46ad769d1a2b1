"""U²-Netp: what stands out in a photo, for the role `subject`."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import u2net
from graphs import Exportable, input_spec

from . import Adapter

NAME = "u2netp"
SIZE = 288  # the long side in pixels; measured, see MODEL_CARD.md
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def u2netp(weights: Optional[Path] = None, adapter: Optional[Adapter] = None) -> Exportable:
    """The subject, on half the input's grid. Weights: the committed ones, or a u2netp.onnx."""
    return Exportable(
        NAME,
        u2net.load(Path(weights or u2net.WEIGHTS)),
        {"subject": {"name": "subject", "meaning": "probability"}},
        input_spec(SIZE, 32, *IMAGENET),
        "Apache-2.0",
        "https://github.com/xuebinqin/U-2-Net, without the finest stage of its decoder",
    )

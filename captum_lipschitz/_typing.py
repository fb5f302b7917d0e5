"""Type aliases shared by the whole package."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

Model: TypeAlias = Callable[[Tensor], Tensor]
"""Maps inputs (N, ...) to logits (N, C). Usually an ``nn.Module``; any function of one tensor will do."""

NormName: TypeAlias = str
"""``"rmse"``, ``"l2"`` or ``"linf"``."""

"""What some declared versions do not have."""

from __future__ import annotations

import pytest
import torch._dynamo.config

TRACES_GRADIENTS = hasattr(torch._dynamo.config, "trace_autograd_ops")
"""Whether this torch compiles a penalty; where it does not, ``RegularizedModule.compile`` says so."""

compiles = pytest.mark.skipif(
    not TRACES_GRADIENTS, reason=f"torch {torch.__version__} cannot trace gradients: compile() needs 2.11"
)

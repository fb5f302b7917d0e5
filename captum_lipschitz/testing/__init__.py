"""Contract checks that an author of a plugin runs on a component, in any test: what is broken raises ``ContractError``.

Each check makes small seeded networks and images of its own and needs no test framework. ``docs/plugins.md`` shows one
from ``pyproject.toml`` to the passing check.
"""

from captum_lipschitz.errors import ContractError as ContractError
from captum_lipschitz.testing.attack import check_attack as check_attack
from captum_lipschitz.testing.attribution import check_attribution as check_attribution
from captum_lipschitz.testing.plugin import check_plugin as check_plugin
from captum_lipschitz.testing.training_hook import check_training_hook as check_training_hook

__all__ = ["ContractError", "check_attack", "check_attribution", "check_plugin", "check_training_hook"]

"""Everything this library raises, in one tree; each exception is also the builtin that a caller would expect."""


class CaptumLipschitzError(Exception):
    """Base of every exception raised by captum_lipschitz."""


class InvalidInputError(CaptumLipschitzError, ValueError):
    """An argument has the right type and a value that cannot be used (empty, NaN, out of range, wrong length)."""


class InvalidTypeError(CaptumLipschitzError, TypeError):
    """An argument has the wrong type or dtype (integer images, a string where an object is expected)."""


class ModelOutputError(CaptumLipschitzError, TypeError):
    """The model returned something other than a float tensor of finite logits, shape (N, C) with C >= 2."""


class DisconnectedModelError(CaptumLipschitzError, ValueError):
    """The model's output does not depend differentiably on its input, so there is no gradient to follow."""


class UnreachableActivationError(CaptumLipschitzError, ValueError):
    """A model applies ReLU inside its own ``forward``, where replacing submodules cannot reach it."""


class UnsupportedLossError(CaptumLipschitzError, RuntimeError):
    """The loss seen by an attached regularizer is not the cross entropy whose labels and scale it can read."""


class UnsupportedTrainingError(CaptumLipschitzError, RuntimeError):
    """A way of training in which the penalty's gradient would be wrong; the message names the way that works."""


class UnknownNameError(CaptumLipschitzError, LookupError):
    """No component of that name is registered; the message lists those that are."""


class PluginError(CaptumLipschitzError, RuntimeError):
    """A plugin could not be loaded, and strict mode asks for an error instead of a warning."""


class MissingDependencyError(CaptumLipschitzError, ImportError):
    """An optional package is absent; the message gives the command that installs it."""


class ContractError(CaptumLipschitzError, AssertionError):
    """A component does not keep a contract; the message names the contract, what was expected and what came."""


class CaptumLipschitzWarning(UserWarning):
    """Base of every warning issued by captum_lipschitz."""


class CaptumLipschitzDeprecationWarning(CaptumLipschitzWarning, DeprecationWarning):
    """A public name or parameter that a coming major version removes; the message names what to use instead."""

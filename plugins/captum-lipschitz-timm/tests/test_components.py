"""The plugin is found by its entry point, and its training hook attaches to a task."""

import subprocess
import sys

import pytest
import torch
from networks import ROUNDING, create, data, explicit_gradient, flat_gradient, relative_error
from timm.task import ClassificationTask
from torch import nn
from torch.nn import functional as F

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.plugin import Removable, TrainingHookLike, plugins
from captum_lipschitz.plugin import create as create_component


def test_loaded_through_the_entry_point():
    (record,) = [record for record in plugins() if record.distribution == "captum-lipschitz-timm"]
    assert (record.name, record.status, record.error) == ("timm", "loaded", None)
    assert [component.name for component in record.components] == ["timm:lipschitz"]


def test_the_training_hook_regularises_a_task_until_it_is_removed():
    hook = create_component(
        "training_hook", "timm:lipschitz", strength=30.0, generator=torch.Generator().manual_seed(5)
    )
    assert isinstance(hook, TrainingHookLike)
    model, (images, labels) = create("test_resnet"), data()
    expected = explicit_gradient(model, images, labels, F.cross_entropy, strength=30.0)
    task = ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)
    before = dict(vars(task))
    handle = hook(task)
    assert isinstance(handle, Removable)
    task(images, labels)["loss"].backward()
    assert relative_error(flat_gradient(model), expected) < ROUNDING
    handle.remove()
    handle.remove()
    assert type(task) is ClassificationTask
    assert vars(task).keys() == before.keys()
    assert set(task(images, labels)) == {"loss", "output"}


def test_what_is_no_task_is_refused():
    hook = create_component("training_hook", "timm:lipschitz", strength=30.0)
    with pytest.raises(InvalidTypeError, match=r"task: expected a timm\.task.TrainingTask, got Linear"):
        hook(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="no_such_setting"):
        create_component("training_hook", "timm:lipschitz", strength=30.0, no_such_setting=1)


def test_importing_the_package_imports_neither_torch_nor_timm():
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}; import captum_lipschitz_timm; "
        "sys.exit(', '.join({'torch', 'timm', 'captum_lipschitz', 'captum'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Figures beside RobustBench's own, on models loaded and images read by RobustBench."""

import copy
import json

import pytest
import robustbench.data
import torch
from models import exact_distances, linear, mid_grey, wide_resnet
from PIL import Image
from robustbench.eval import AutoAttack, benchmark
from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from robustbench.utils import clean_accuracy, load_model
from torch import nn
from torchvision import transforms

from captum_lipschitz import MinimumNormAttack, PaperAttack, accuracy_robustness_area
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, MissingDependencyError, UnknownNameError
from captum_lipschitz_robustbench import benchmark_ara

THREATS = {"Linf": "linf", "L2": "l2"}


def labelled(model, images, wrong=0):
    """The model's decisions as labels, of which the first are wrong."""
    labels = model(images).argmax(1)
    labels[:wrong] = (labels[:wrong] + 1) % 10
    return labels


def between(distances, count):
    """A size that breaks ``count`` images, as far from any distance as can be."""
    ordered = distances.sort().values
    return float(ordered[count - 1 : count + 1].mean())


@pytest.mark.parametrize("threat_model", THREATS)
def test_of_a_linear_model_area_and_robust_accuracy_are_exact(threat_model):
    model, images = linear(), mid_grey()
    labels = labelled(model, images, wrong=2)
    exact = exact_distances(model, images, labels, threat_model)
    eps = between(exact, 6)
    result = benchmark_ara(model, data=(images, labels), threat_model=threat_model, eps=eps, doubts="off")
    # The search's own tolerance, and the rounding of a float32 pixel.
    assert torch.allclose(result.ara.distances, exact, rtol=1e-4, atol=2**-24)
    assert result.ara.norm == THREATS[threat_model]
    assert result.robust_accuracy == 0.5
    assert result.clean_accuracy == pytest.approx(10 / 12)
    assert result.ara.interval[0] < result.ara.area < result.ara.interval[1]


@pytest.mark.parametrize("threat_model", THREATS)
def test_of_a_linear_model_autoattack_breaks_the_same_images(threat_model):
    model, images = linear(), mid_grey()
    labels = labelled(model, images, wrong=2)
    eps = between(exact_distances(model, images, labels, threat_model), 6)
    result = benchmark_ara(model, data=(images, labels), threat_model=threat_model, eps=eps, doubts="off")
    gradients = ["apgd-ce", "apgd-t"]  # Square's 5000 queries would find nothing more, and take a minute
    attack = AutoAttack(model, norm=threat_model, eps=eps, seed=0, version="custom", attacks_to_run=gradients)
    adversarial = attack.run_standard_evaluation(images, labels, bs=12)
    broken = model(adversarial).argmax(1) != labels
    assert torch.equal(broken, result.ara.distances <= eps)
    assert clean_accuracy(model, adversarial, labels) == pytest.approx(result.robust_accuracy)


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    """A tiny WideResNet in RobustBench's zoo, with its weights where ``load_model`` looks before it downloads."""
    entries = model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    monkeypatch.setitem(entries, "Tiny2026", {"model": lambda: wide_resnet(seed=5), "gdrive_id": "none"})
    folder = tmp_path / "cifar10" / "Linf"
    folder.mkdir(parents=True)
    torch.save(wide_resnet(seed=0).state_dict(), folder / "Tiny2026.pt")
    return load_model("Tiny2026", model_dir=tmp_path, dataset="cifar10", threat_model="Linf")


def test_a_loaded_models_broken_images_are_broken(zoo):
    assert torch.equal(zoo.fc.weight, wide_resnet(seed=0).fc.weight)  # loaded, not made anew
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = labelled(zoo, images)
    labels[0] = (labels[0] + 1) % 10
    attack = MinimumNormAttack(norm="linf", bounds=(0, 1), effort="fast")
    found = attack(zoo, images, labels)
    eps = float(found.distances[1:].mean())
    result = benchmark_ara(zoo, data=(images, labels), attack=attack, eps=eps, batch_size=2, doubts="off")
    assert torch.allclose(result.ara.distances, found.distances.double(), rtol=1e-3)
    assert result.robust_accuracy == pytest.approx(1 / 3)
    # RobustBench's own count over the adversarial images within the size; beyond it the clean images stand.
    within = (found.distances <= eps)[:, None, None, None]
    adversarial = torch.where(within, found.adversarial_inputs, images)
    assert float((adversarial - images).abs().max()) <= eps
    assert 0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1
    assert clean_accuracy(zoo, adversarial, labels) == pytest.approx(result.robust_accuracy)


def test_it_is_the_core_with_the_threat_models_norm_and_box():
    model, images = linear(), mid_grey(6) - 0.3  # the box matters
    labels = labelled(model, images)
    result = benchmark_ara(
        model, data=(images, labels), threat_model=ThreatModel.L2, batch_size=5, eps=0.2, doubts="off"
    )
    batches = list(zip(images.split(5), labels.split(5), strict=True))
    expected = accuracy_robustness_area(model, batches, bounds=(0, 1), norm="l2", doubts="off")
    assert result.ara.to_dict() == expected.to_dict()
    assert result.robust_accuracy == float(expected.curve(0.2))
    first = benchmark_ara(model, data=(images, labels), threat_model="L2", n_examples=4, eps=0.2, doubts="off")
    assert len(first.ara) == 4


def test_the_usual_sizes_and_words():
    model, images = linear(), mid_grey(4)
    data = (images, labelled(model, images))
    quick = MinimumNormAttack(norm="linf", bounds=(0, 1), steps=2)
    sizes = {"cifar10": 8 / 255, "cifar100": 8 / 255, BenchmarkDataset.imagenet: 4 / 255}
    for dataset, eps in sizes.items():
        assert benchmark_ara(model, data=data, dataset=dataset, attack=quick, doubts="off").eps == eps
    result = benchmark_ara(model, data=data, threat_model="L2", doubts="off")
    assert result.eps == 0.5
    assert "robust accuracy at most 0.000 at L2 0.5" in str(result)
    assert result.dataset is None
    assert json.loads(json.dumps(result.to_dict()))["robust_accuracy"] == 0.0


@pytest.fixture
def imagenet(tmp_path):
    """The first six images of RobustBench's list as local JPEGs, and a folder for each of the thousand classes."""
    ids = (robustbench.data.__file__).replace("data.py", "helper_files/imagenet_test_image_ids.txt")
    with open(ids, encoding="utf-8") as file:  # noqa: PTH123 (their file)
        names = file.read().split()
    for folder in {name.split("/")[0] for name in names}:
        (tmp_path / "val" / folder).mkdir(parents=True)
    for seed, name in enumerate(names[:6]):
        small = (mid_grey(1, seed=seed)[0] * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(small).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "val" / name, "JPEG")
    return tmp_path


class Few(nn.Module):
    """A thousand classes behind a linear model; the images' labels are its decisions but for the last two."""

    def __init__(self, labels):
        super().__init__()
        self.body = linear()
        self.register_buffer("order", labels)

    def forward(self, images):
        ten = self.body(images)
        others = ten.new_full((len(images), 1000), -50.0)
        return others.index_copy(1, self.order, ten[:, : len(self.order)])


@pytest.mark.filterwarnings("ignore")  # RobustBench's and torch's own
def test_beside_robustbenchs_benchmark_on_images_that_it_loads(imagenet, capsys):
    preprocessing = transforms.Compose([transforms.Resize(8), transforms.ToTensor()])
    _, labels = robustbench.data.load_imagenet(6, str(imagenet), preprocessing)
    assert len(set(labels.tolist())) == 6
    model = Few(labels).eval()
    settings = {"n_examples": 6, "dataset": "imagenet", "threat_model": "Linf", "data_dir": str(imagenet), "eps": 0.2}
    result = benchmark_ara(model, **settings, preprocessing=preprocessing, doubts="off")
    assert torch.equal(result.ara.labels, labels)
    assert result.dataset == "imagenet"
    clean, robust = benchmark(model, **settings, preprocessing=preprocessing)
    assert (result.clean_accuracy, result.robust_accuracy) == pytest.approx((clean, robust))
    assert robust == 0 < float(result.ara.curve(1e-5))
    small = benchmark_ara(model, **{**settings, "eps": 1e-5}, preprocessing=preprocessing, doubts="off")
    assert small.robust_accuracy == pytest.approx(clean)


def test_real_images(cifar10):
    images, labels = cifar10
    model = linear(side=32)
    result = benchmark_ara(model, data=cifar10, threat_model="L2", doubts="off")
    exact = exact_distances(model, images, labels, "L2")
    assert result.clean_accuracy == clean_accuracy(model, images, labels)
    assert (result.ara.distances >= exact * (1 - 1e-4)).all()  # the box can only make them larger
    assert (result.ara.distances[exact == 0] == 0).all()


def test_no_trace_is_left():
    model, images = wide_resnet().train(), torch.rand(2, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())
    data = (images, torch.tensor([1, 2]))
    attack = MinimumNormAttack(norm="linf", bounds=(0, 1), steps=3)
    result = benchmark_ara(model, data=data, attack=attack, doubts="off")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    again = benchmark_ara(model.eval(), data=data, attack=attack, doubts="off")
    assert torch.equal(result.ara.distances, again.ara.distances)


MODEL, IMAGES = linear(), mid_grey(4)
PAIR = (IMAGES, labelled(MODEL, IMAGES))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dataset": "mnist"}, InvalidInputError, "dataset: expected one of .*'cifar10'.* got 'mnist'"),
        ({"threat_model": "linf"}, InvalidInputError, r"threat_model: expected one of \['Linf', 'L2'\], got 'linf'"),
        ({"threat_model": "corruptions"}, InvalidInputError, "threat_model: .*corruptions have no size"),
        ({"threat_model": ThreatModel.corruptions_3d}, InvalidInputError, "corruptions have no size"),
        ({"threat_model": "L2", "dataset": "cifar100"}, InvalidInputError, "eps: expected a size.* cifar100 and L2"),
        ({"eps": -1}, InvalidInputError, "eps: expected a positive number, got -1"),
        ({"batch_size": 0}, InvalidInputError, "batch_size: expected at least 1, got 0"),
        ({"attack": "minimum_nrom"}, UnknownNameError, "did you mean 'minimum_norm'"),
        ({"attack": PaperAttack(norm="l2", bounds=(0, 1))}, InvalidInputError, "attack: .*'linf', got one in 'l2'"),
        ({"attack": MinimumNormAttack(norm="linf")}, InvalidInputError, "bounds"),
        ({"data": IMAGES}, InvalidTypeError, r"data: expected \(images, labels\)"),
        ({"data": ((IMAGES * 255).byte(), PAIR[1])}, InvalidTypeError, "data: .*uint8; divide by 255"),
        ({"data": (IMAGES[:, :1], PAIR[1])}, InvalidInputError, r"data: expected images of shape \(N, 3, H, W\)"),
        ({"data": (IMAGES * 4 - 2, PAIR[1])}, InvalidInputError, r"data: expected images in \[0, 1\].*normalise by"),
        ({"data": (IMAGES * float("nan"), PAIR[1])}, InvalidInputError, r"data: expected images in \[0, 1\]"),
        ({"data": (IMAGES.double(), PAIR[1])}, InvalidTypeError, "data: .*torch.float32, got torch.float64; convert"),
        (
            {"data": (IMAGES.half(), PAIR[1])},
            InvalidTypeError,
            "data: .*torch.float32, got torch.float16; convert",
        ),
        ({"n_examples": 0}, InvalidInputError, "n_examples: expected at least 1, or None for all, got 0"),
        ({"n_examples": -1}, InvalidInputError, "n_examples: expected at least 1.* got -1"),
        ({"n_examples": 2.5}, InvalidInputError, "n_examples: expected at least 1.* got 2.5"),
        ({"data": None, "n_examples": 0}, InvalidInputError, r"n_examples: expected 1..10000 images of cifar10, got 0"),
        ({"data": None, "dataset": "imagenet", "n_examples": 5001}, InvalidInputError, "n_examples: expected 1..5000"),
        ({"data": None, "dataset": "imagenet"}, InvalidInputError, "preprocessing: expected one for imagenet"),
    ],
)
def test_messages(settings, error, message):
    with pytest.raises(error, match=message):
        benchmark_ara(MODEL, **{"data": PAIR, **settings})


def test_a_double_model_takes_double_images():
    model, images = linear().double(), IMAGES.double()
    result = benchmark_ara(model, data=(images, PAIR[1]), threat_model="L2", doubts="off")
    assert torch.allclose(result.ara.distances, exact_distances(model, images, PAIR[1], "L2"), rtol=1e-4)
    with pytest.raises(InvalidTypeError, match=r"data: .*torch.float64, got torch.float32; convert"):
        benchmark_ara(model, data=PAIR, threat_model="L2")


class Casting(nn.Module):
    """Single precision behind whatever comes, as half precision is often wrapped."""

    def __init__(self, answer):
        super().__init__()
        self.body, self.answer = linear(), answer

    def forward(self, images):
        return self.body(images.float()).to(self.answer)


def test_a_model_that_converts_images_and_logits_is_taken_as_it_is():
    data = (IMAGES.double(), PAIR[1])
    result = benchmark_ara(Casting(torch.float64), data=data, threat_model="L2", doubts="off")
    assert torch.allclose(result.ara.distances, exact_distances(MODEL, *PAIR, "L2"), rtol=1e-3)
    with pytest.raises(InvalidTypeError, match=r"data: .*torch.float32, got torch.float64; convert"):
        benchmark_ara(Casting(torch.float32), data=data, threat_model="L2", doubts="off")


def test_other_messages(monkeypatch):
    with pytest.raises(InvalidTypeError, match=r"model: expected a torch.nn.Module, got function"):
        benchmark_ara(lambda images: images, data=PAIR)
    monkeypatch.setitem(__import__("sys").modules, "robustbench.data", None)
    with pytest.raises(MissingDependencyError, match=r"setuptools<81.*provide_autoattack\(\)"):
        benchmark_ara(MODEL)

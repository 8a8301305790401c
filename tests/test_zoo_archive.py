"""A .pt2 of torch.export: what loads, what is refused as damaged, and that none runs code of its own."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolchain.errors import OptionError
from toolchain.zoo.archive import is_shape_expression
from toolchain.zoo.resolve import load_model


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("offset", torch.ones(3))

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values) + self.offset + torch.tensor([1.0, 2.0, 3.0])


def refused(call: Callable[[], Any]) -> OptionError:
    with pytest.raises(OptionError) as caught:
        call()
    assert caught.value.exit_code == 2
    assert caught.value.hint, "a message says what to do"
    return caught.value


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A file of torch.export with a weight, a buffer, a constant and a symbolic batch dimension."""
    path = tmp_path / "small.pt2"
    shapes = ({0: torch.export.Dim("n", min=2, max=64)},)
    torch.export.save(torch.export.export(Small().eval(), (torch.ones(4, 4),), dynamic_shapes=shapes), path)
    return path


def test_a_pt2_is_loaded(exported: Path) -> None:
    model = load_model(str(exported))
    assert model.name == "small" and isinstance(model.module, torch.export.ExportedProgram)
    (example,) = model.example_inputs or ()
    assert torch.equal(example, torch.ones(4, 4))
    assert model.module.module()(torch.zeros(7, 4)).shape == (7, 3)
    assert torch.equal(load_model(exported).module.state_dict["offset"], torch.ones(3))


def test_a_pt2_that_is_none(tmp_path: Path, exported: Path) -> None:
    missing = tmp_path / "no.pt2"
    assert refused(lambda: load_model(str(missing))).what == f"the model {missing} does not exist"
    (tmp_path / "folder.pt2").mkdir()
    assert refused(lambda: load_model(str(tmp_path / "folder.pt2"))).what.endswith("is a folder")
    content = exported.read_bytes()
    others = {"empty": b"", "text": b"no archive", "cut": content[: len(content) // 2]}
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    others["torch.save"] = buffer.getvalue()
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("x/readme", "some other zip")
    others["zip"] = buffer.getvalue()
    for name, other in others.items():
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(other)
        error = refused(lambda path=path: load_model(path))  # type: ignore[misc]
        assert error.what.startswith(f"the model {path} is damaged, or no .pt2 of this torch"), name
        assert error.where


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def altered(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], add: dict[str, bytes] | None = None
) -> Path:
    """Copy an archive, changing and adding files in it, as someone who means ill would."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(files)).partition("/")[0]
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, content in {**files, **{f"{root}/{key}": value for key, value in (add or {}).items()}}.items():
        inside = name.partition("/")[2]
        if inside not in (".data/version", ".data/serialization_id", "byteorder"):
            changed = change(inside, content)
            writer.write_record(inside, changed, len(changed))
    writer.write_end_of_file()
    return target


def test_an_altered_archive_still_loads_when_nothing_was_changed(exported: Path, tmp_path: Path) -> None:
    path = altered(exported, tmp_path / "copy.pt2", lambda name, content: content)
    assert load_model(path).example_inputs is not None


@pytest.mark.parametrize(
    "way", ["sample inputs", "weight", "constant", "opaque", "compiled", "legacy", "shape", "spec", "name"]
)
def test_no_pt2_runs_code_of_its_own(exported: Path, tmp_path: Path, way: str) -> None:
    marker = tmp_path / "ran"
    payload = pickle.dumps(Marker(marker))
    buffer = io.BytesIO()
    torch.save((Marker(marker),), buffer)
    add: dict[str, bytes] = {}

    def change(name: str, content: bytes) -> bytes:
        table = json.loads(content) if name.endswith(".json") else {}
        if way == "sample inputs" and name.startswith("data/sample_inputs"):
            return buffer.getvalue()
        if way == "weight" and name == "data/weights/model_weights_config.json":
            table["config"]["linear.weight"]["use_pickle"] = True
        if way == "weight" and name == "data/weights/weight_0":
            return buffer.getvalue()
        if way in ("constant", "opaque") and name == "data/constants/model_constants_config.json":
            entry = next(iter(table["config"].values()))
            entry["use_pickle"] = way == "constant"
            entry["path_name"] = "tensor_0" if way == "constant" else "opaque_obj_0"
        if name == "models/model.json":
            return _with_evil(content, way, marker)
        return json.dumps(table).encode() if table else content

    if way == "constant":
        add["data/constants/tensor_9"] = buffer.getvalue()
    if way == "opaque":
        add["data/constants/opaque_obj_0"] = payload
    if way == "compiled":
        add["data/aotinductor/model/x.so"] = b"ELF"
    if way == "legacy":
        add["data/weights/model.pt"] = buffer.getvalue()
    path = altered(exported, tmp_path / "evil.pt2", change, add)
    error = refused(lambda: load_model(path))
    assert "which could run code that the file brings along" in error.what
    assert "save it anew" in str(error.hint)
    assert not marker.exists()


def _with_evil(content: bytes, way: str, marker: Path) -> bytes:
    text = content.decode()
    if way == "shape":
        evil = f"__import__('pathlib').Path('{marker}').touch()"
        table = text.replace('"expr_str": "Symbol', f'"expr_str": {json.dumps(evil)}, "was": "Symbol', 1)
        assert table != text
        return table.encode()
    if way == "spec":
        table = text.replace("builtins.tuple", "default_factory", 1)
        assert table != text
        return table.encode()
    if way == "name":
        table = text.replace('"name": "add"', '"name": "add=1;import os#"')
        assert table != text
        return table.encode()
    return content


def test_guards_are_dropped_since_torch_would_run_them(exported: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    def change(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        table = json.loads(content)
        table["guards_code"] = [f"__import__('pathlib').Path('{marker}').touch() is None"]
        return json.dumps(table).encode()

    model = load_model(altered(exported, tmp_path / "guards.pt2", change))
    assert isinstance(model.module, torch.export.ExportedProgram)
    model.module.module()(torch.zeros(4, 4))
    assert not marker.exists()


def test_shape_expressions() -> None:
    for text in (
        "s0",
        "2*s77 + 1",
        "Max(1, u3)",
        "((s0 - 1)//2)",
        "Mod(s0, 4) != 0",
        "FloorDiv(s1, 2)",
        "-s0",
        "4",
    ):
        assert is_shape_expression(text), text
    for text in (
        "__import__('os')",
        "exec(s0)",
        "s0.__class__",
        "(lambda: 1)()",
        "[s0 for s0 in u1]",
        "'x'",
        "Max(1, key=s0)",
        "getattr(s0, 3)",
        "Max",
        "s0 :=",
        "Max(1)(2)",
        "Max('s0')",
        "Symbol('os.system(1)')",
        "Symbol('s0', cls=exec)",
        "open",
    ):
        assert not is_shape_expression(text), text

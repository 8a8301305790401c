"""Packed models come back to the byte, are smaller, and are refused where damaged."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.compress.clustering.codebook import fit_codebook
from toolchain.errors import OptionError, ToolchainError
from toolchain.formats.artifact import SparseWeights
from toolchain.formats.onnx import write_onnx
from toolchain.formats.tflite import write_tflite
from toolchain.graph import Graph, Structure, parse_graph
from toolchain.packing import container, elements
from toolchain.packing.elements import BITS, Form, join_elements, read_elements, split_elements, write_elements
from toolchain.packing.loader import load_packed, unpack, unpack_file, unpack_stream
from toolchain.packing.packer import pack, pack_file
from toolchain.packing.segments import find_segments
from toolchain.quantization import Scheme, assign_params

TEXT = """
input x: float32[1,1,12,12]
constant k: float32[16,1,3,3]
constant kb: float32[16]
constant w: float32[40,1600]
constant b: float32[40]
c = conv2d(x, k, kb) activation=relu
f = reshape(c) shape=(1,1600)
y = linear(f, w, b)
output y
"""
KEPT, CLUSTERS = 0.05, 8


def network(kept: float = KEPT, clusters: int = CLUSTERS) -> Graph:
    """A sparse, clustered layer behind a dense one."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((40, 1600)).astype(np.float32)
    mask = np.abs(weight) >= np.quantile(np.abs(weight), 1 - kept)
    dense = {n: random.standard_normal(s).astype(np.float32) for n, s in (("k", (16, 1, 3, 3)), ("kb", 16), ("b", 40))}
    return parse_graph(TEXT, {"w": fit_codebook(weight * mask, clusters, mask).decode(), **dense})


def written() -> dict[str, bytes]:
    graph = network()
    ranges = dict.fromkeys(graph.activations, (-4.0, 4.0))
    book = fit_codebook(graph.constants["w"], CLUSTERS)
    quantized = assign_params(graph, ranges, Scheme(), Structure(codebooks={"w": book}))
    return {
        "float.onnx": write_onnx(graph),
        "float.tflite": write_tflite(graph),
        "int8.onnx": write_onnx(quantized),
        "int8.tflite": write_tflite(quantized),
    }


FILES = written()


@pytest.mark.parametrize("name", FILES)
def test_the_file_comes_back_to_the_byte(name: str) -> None:
    packed, made = pack(FILES[name])
    assert unpack(packed) == FILES[name]
    assert made.packed_bytes == len(packed)
    assert made.bytes == len(FILES[name])
    assert made.plain_bytes + sum(tensor.bytes for tensor in made.tensors) == made.bytes


@pytest.mark.parametrize("name", FILES)
def test_a_sparse_palette_costs_about_its_entropy(name: str) -> None:
    """Positions of a share p at H(p) bits a weight, and log2(k - 1) bits a weight that is kept; what coding whole gaps
    and bytes loses to that is a few percent, here at most an eighth."""
    (tensor,) = [tensor for tensor in pack(FILES[name])[1].tensors if tensor.name == "w"]
    assert tensor.values <= CLUSTERS
    assert tensor.form == "positions and palette"
    assert tensor.most_frequent == pytest.approx(1 - KEPT, abs=1e-3)
    entropy = -(KEPT * np.log2(KEPT) + (1 - KEPT) * np.log2(1 - KEPT)) + KEPT * np.log2(CLUSTERS - 1)
    assert tensor.packed_bytes < 1.125 * 64_000 * entropy / 8


def test_the_same_file_gives_the_same_bytes() -> None:
    assert pack(FILES["float.onnx"])[0] == pack(FILES["float.onnx"])[0]


def test_constants_are_found_where_they_are() -> None:
    for name, content in FILES.items():
        found = {segment.name: segment for segment in find_segments(content)}
        assert "w" in found, name
        held = found["w"]
        values = np.frombuffer(content[held.offset : held.offset + held.length], f"<i{held.bits // 8}")
        assert (held.rows, values.size) == (40, 64_000)
        assert len(np.unique(values)) <= CLUSTERS


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(BITS), st.integers(1, 6), st.integers(0, 60), st.integers(1, 300), st.floats(0, 1), st.data())
def test_elements_of_any_kind_come_back(bits: int, rows: int, columns: int, values: int, kept: float, data) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    palette = random.integers(0, 2**bits, values, dtype=np.uint64)
    count = rows * 2 * (columns + 1)
    found = np.where(random.random(count) < kept, random.choice(palette, count), palette[0])
    content = join_elements(found.astype(elements._TYPES[bits]), bits)
    made = write_elements(split_elements(content, bits), bits, rows)
    fields = container.Fields(made.body)
    assert join_elements(*read_elements(fields)) == content
    fields.finish()


def test_gaps_longer_than_a_byte() -> None:
    for gaps in ([254], [255], [256], [510, 0, 765], [100_000]):
        found = np.zeros(200_000, np.uint8)
        places = np.cumsum(np.array(gaps) + 1) - 1
        found[places] = 7
        made = write_elements(found, 8, 1)
        assert Form.SPARSE in made.form
        np.testing.assert_array_equal(read_elements(container.Fields(made.body))[0], found)


@pytest.mark.parametrize("bits", [8, 32])
def test_rows_that_repeat_are_written_once(bits: int) -> None:
    random = np.random.default_rng(0)
    once = random.integers(0, 200, (5, 400)).astype(elements._TYPES[bits])
    table = once[random.integers(0, 5, 300)]
    made = write_elements(table.reshape(-1), bits, 300)
    assert Form.REPEATED in made.form
    assert len(made.body) < 2 * len(write_elements(once.reshape(-1), bits, 5).body)
    np.testing.assert_array_equal(read_elements(container.Fields(made.body))[0], table.reshape(-1))


def test_long_tensors_are_cut_and_plain_parts_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.packing.packer.MOST_ELEMENTS", 20_000)
    monkeypatch.setattr("toolchain.packing.packer.MOST_PLAIN_BYTES", 400)
    for content in FILES.values():
        packed, made = pack(content)
        assert unpack(packed) == content
        assert len(made.tensors) > 6


def test_unpacking_holds_one_record_at_a_time() -> None:
    packed, _ = pack(FILES["float.onnx"])
    longest = 0

    class Source(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            nonlocal longest
            assert count is not None and count >= 0
            longest = max(longest, count)
            return super().read(count)

    sink = io.BytesIO()
    assert unpack_stream(Source(packed), sink) == len(FILES["float.onnx"])
    assert longest < len(packed)


@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_one_error(name: str) -> None:
    packed, _ = pack(FILES[name])
    random = np.random.default_rng(0)
    damages = [packed[: random.integers(len(packed))] for _ in range(60)] + [packed + b"\0", b"", b"TPK1"]
    for place in random.integers(0, len(packed), 200):
        damages.append(packed[:place] + bytes([packed[place] ^ 1 << random.integers(8)]) + packed[place + 1 :])
    for damaged in damages:
        with pytest.raises(OptionError):
            unpack(damaged)


def test_records_with_right_checksums_and_wrong_bodies_are_one_error() -> None:
    """What a checksum cannot tell: every field is checked before it is used."""
    header = io.BytesIO()
    container.write_header(header, container.Header(64, bytes(32)))
    random = np.random.default_rng(0)
    alike = write_elements(np.tile(random.integers(0, 9, 16).astype(np.uint8), 4), 8, 4).body
    sparse = write_elements((np.arange(64) % 9 == 0).astype(np.uint8) * np.arange(64, dtype=np.uint8), 8, 4).body
    for round_ in range(2000):
        body = (alike, sparse)[round_ % 2]
        place = random.integers(len(body))
        wrong = container.varint(0) + body[:place] + bytes([random.integers(256)]) + body[place + 1 :]
        sink = io.BytesIO(header.getvalue())
        sink.seek(0, io.SEEK_END)
        container.write_record(sink, container.RecordKind.TENSOR, wrong)
        container.write_record(sink, container.RecordKind.END, b"")
        with pytest.raises(OptionError):
            unpack(sink.getvalue())


def test_nothing_is_half_written(tmp_path) -> None:
    (tmp_path / "model.onnx").write_bytes(FILES["float.onnx"])
    pack_file(tmp_path / "model.onnx", tmp_path / "model.packed")
    held = (tmp_path / "model.packed").read_bytes()
    (tmp_path / "model.packed").write_bytes(held[:-40])
    with pytest.raises(OptionError, match=r"damaged.*\n.*model.packed"):
        unpack_file(tmp_path / "model.packed", tmp_path / "out.onnx")
    with pytest.raises(OptionError, match="damaged"):
        load_packed(tmp_path / "model.packed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.packed"]


def test_files_there_and_back(tmp_path) -> None:
    source, packed, out = (tmp_path / name for name in ("model.tflite", "model.packed", "out.tflite"))
    source.write_bytes(FILES["int8.tflite"])
    made = pack_file(source, packed)
    assert made.packed_bytes == packed.stat().st_size
    assert unpack_file(packed, out) == len(FILES["int8.tflite"])
    assert out.read_bytes() == load_packed(packed) == FILES["int8.tflite"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 100, b"\x1c\0\0\0TFL3" + b"\xff" * 60])
def test_what_is_no_model_is_not_packed(content: bytes, tmp_path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ToolchainError):
        pack_file(tmp_path / "file", tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        pack_file(tmp_path / "none", tmp_path / "packed")
    with pytest.raises(OptionError, match="cannot be read"):
        unpack_file(tmp_path / "none", tmp_path / "out")
    with pytest.raises(OptionError, match="cannot be written"):
        (tmp_path / "model.onnx").write_bytes(FILES["float.onnx"])
        pack_file(tmp_path / "model.onnx", tmp_path / "nowhere" / "packed")


def test_the_loader_needs_neither_torch_nor_a_runtime(tmp_path) -> None:
    packed, _ = pack(FILES["int8.tflite"])
    (tmp_path / "packed").write_bytes(packed)
    code = (
        "import sys; from toolchain.packing.loader import load_packed; load_packed(sys.argv[1]);"
        "print(*{'torch', 'onnx', 'onnxruntime', 'ai_edge_litert'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "packed"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_masks_and_codebooks_are_read_from_what_came_back() -> None:
    graph = network()
    structure = Structure({"w": graph.constants["w"] != 0})
    segments = {segment.name: segment for segment in find_segments(FILES["float.onnx"])}
    content = unpack(pack(FILES["float.onnx"])[0])
    held = segments["w"]
    weight = np.frombuffer(content[held.offset : held.offset + held.length], np.float32).reshape(40, -1)
    assert structure.violations({"w": weight}) == []


def test_weights_stored_without_their_zeros_come_back() -> None:
    content = write_tflite(network(), sparse=SparseWeights.SMALLER)
    assert len(content) < len(FILES["float.tflite"]) / 2
    packed, made = pack(content)
    assert unpack(packed) == content
    assert len(packed) < 2 * len(pack(FILES["float.tflite"])[0])
    assert {tensor.name for tensor in made.tensors} >= {"k"}

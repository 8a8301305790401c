"""Sparse constants of TFLite files: which are written, how they are read back, and that kernels compute the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.formats.test_tflite_runtime import CHILD, PYTHON
from tests.ops.harness import quantized
from toolchain import lint
from toolchain.errors import OptionError
from toolchain.formats.artifact import Format, SparseWeights
from toolchain.formats.tflite import TfliteRunner, check_tflite, layouts, plan_sparse, read_tflite, write_tflite
from toolchain.formats.tflite.parse import parse
from toolchain.formats.tflite.sparsity import SparseRows, encode_rows, stored_bytes
from toolchain.graph import DType, Graph, Node, Op, TensorType, Value
from toolchain.job import stage_options
from toolchain.quantization import QuantizedGraph, Reals, quantize_inputs
from toolchain.stages.export import Export
from toolchain.stages.states import TracedModel
from toolchain.targets import load_target

AUTO, SMALLER, NEVER = SparseWeights.AUTO, SparseWeights.SMALLER, SparseWeights.NEVER
POINTWISE = ("expand.weight", "project.weight")
WIDTH = 48
Change = Callable[[Node], Node]


def network(*, zeros: float = 0.8, change: Change = lambda node: node, extra: tuple[str, ...] = ()) -> Graph:
    """A stem, a separable convolution with a residual, a mean and a linear layer; `change` alters its nodes."""
    rng = np.random.default_rng(0)

    def weights(*shape: int, share: float = 0.0) -> np.ndarray:
        values = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        values[rng.random(shape) < share] = 0
        return values

    constants = {
        "stem.weight": weights(WIDTH, 3, 3, 3),
        "expand.weight": weights(WIDTH, WIDTH, 1, 1, share=zeros),
        "depthwise.weight": weights(WIDTH, 1, 3, 3),
        "project.weight": weights(WIDTH, WIDTH, 1, 1, share=zeros),
        "head.weight": weights(10, WIDTH),
    }
    biases = {name.replace("weight", "bias"): weights(len(values)) for name, values in constants.items()}
    padded = {"padding": (1, 1, 1, 1), "activation": "relu"}
    nodes = (
        Node(Op.CONV2D, "stem", ("x", "stem.weight", "stem.bias"), ("stem",), {"stride": (2, 2), **padded}),
        Node(Op.CONV2D, "expand", ("stem", "expand.weight", "expand.bias"), ("expand",), {"activation": "relu"}),
        Node(
            Op.DEPTHWISE_CONV2D, "depthwise", ("expand", "depthwise.weight", "depthwise.bias"), ("depthwise",), padded
        ),
        Node(Op.CONV2D, "project", ("depthwise", "project.weight", "project.bias"), ("project",)),
        Node(Op.ADD, "add", ("project", "stem"), ("add",)),
        Node(Op.MEAN, "mean", ("add",), ("mean",), {"axes": (2, 3)}),
        Node(Op.LINEAR, "head", ("mean", "head.weight", "head.bias"), ("head",)),
    )
    image = Value("x", TensorType(DType.FLOAT32, (1, 3, 16, 16)))
    return Graph((image,), ("head", *extra), tuple(map(change, nodes)), constants | biases)


def image(batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, 3, 16, 16)).astype(np.float32)


def as_float(graph: Graph) -> QuantizedGraph:
    return QuantizedGraph(graph, {})


# the form of a sparse tensor


@pytest.mark.parametrize(
    ("shape", "share"),
    [((5,), 0.5), ((4, 3, 3, 7), 0.9), ((3, 300), 0.5), ((2, 70_000), 0.2), ((6, 4), 1.0), ((2, 3), 0)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_rows_are_encoded_and_decoded(shape, share, dtype):
    rng = np.random.default_rng(2)
    values = np.where(rng.random(shape) < share, 0, rng.integers(1, 100, shape)).astype(dtype)
    rows = encode_rows(values)
    np.testing.assert_array_equal(rows.decode(), values)
    kept = np.count_nonzero(values)
    assert len(rows.values) == kept
    # the last columns may all be zero, so that fewer bytes would hold the indices than are counted on
    assert rows.bytes <= stored_bytes(values.size // shape[-1], shape[-1], kept, values.itemsize)


@pytest.mark.parametrize(
    ("segments", "columns", "wrong"),
    [
        ([0, 2, 3], [0, 1, 4], "columns"),
        ([0, 2, 3], [0, 1, -1], "columns"),
        ([0, 2, 4], [0, 1, 2], "segments"),
        ([0, 3, 2], [0, 1, 2], "segments"),
        ([0, 3], [0, 1, 2], "segments"),
        ([1, 2, 3], [0, 1, 2], "segments"),
    ],
)
def test_indices_that_do_not_fit_are_refused(segments, columns, wrong):
    rows = SparseRows((2, 4), np.ones(3, np.float32), np.asarray(segments), np.asarray(columns))
    with pytest.raises(ValueError, match=wrong):
        rows.decode()


# what is written sparse


def test_weights_full_of_zeros_between_a_stem_and_a_mean_are_written_sparse():
    graph = network()
    dense, sparse = write_tflite(graph), write_tflite(graph, sparse=AUTO)
    assert check_tflite(sparse, graph, sparse=AUTO) == []
    facts = read_tflite(sparse)
    assert {name for name, tensor in facts.tensors.items() if tensor.is_sparse} == set(POINTWISE)
    assert facts.ops["DENSIFY"] == len(POINTWISE)
    kept = {name: np.count_nonzero(graph.constants[name]) for name in POINTWISE}
    assert {name: facts.tensors[name].stored_values for name in POINTWISE} == kept
    # four bytes a value that is kept, one a column (48 of them), two a row's end; and the two operators
    saved = sum(graph.constants[n].nbytes - (5 * kept[n] + 2 * (WIDTH + 1)) for n in POINTWISE)
    assert len(dense) - len(sparse) > saved - 2000
    assert write_tflite(graph, sparse=AUTO) == sparse


def test_values_are_read_back_with_their_zeros():
    graph = network()
    model = parse(write_tflite(graph, sparse=AUTO))
    names = [facts.name for facts in model.tensors]
    for name in POINTWISE:
        found = model.values[names.index(name)]
        np.testing.assert_array_equal(found, graph.constants[name].transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin", "reference"])
@pytest.mark.parametrize("reals", [Reals.FLOAT32, Reals.FLOAT16_WEIGHTS])
def test_every_kernel_computes_the_same(kernels, reals):
    model = QuantizedGraph(network(), {}, reals=reals)
    content = write_tflite(model, sparse=AUTO)
    assert check_tflite(content, model, sparse=AUTO) == []
    runner = TfliteRunner(content, kernels=kernels)
    (found,) = runner.run([image()])
    (wanted,) = TfliteRunner(write_tflite(model), kernels=kernels).run([image()])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    if kernels == "xnnpack":
        assert runner.undelegated_ops() == {}


def test_a_dynamic_batch_goes_with_sparse_weights():
    graph = network()
    content = write_tflite(graph, sparse=AUTO, dynamic_batch=True)
    (found,) = TfliteRunner(content).run([image(3)])
    singles = [TfliteRunner(write_tflite(graph)).run([one[None]])[0] for one in image(3)]
    np.testing.assert_allclose(found, np.concatenate(singles), rtol=0, atol=1e-5 * np.abs(found).max())


def test_padding_of_strides_is_written_whole_and_the_mean_keeps_its_axes():
    operators = parse(write_tflite(network(), sparse=AUTO)).operators
    names = [operator.name for operator in operators]
    model = parse(write_tflite(network(), sparse=AUTO))
    pad = model.operators[names.index("PAD")]
    np.testing.assert_array_equal(model.values[pad.inputs[1]], [[0, 0], [1, 1], [1, 1], [0, 0]])
    mean = model.operators[names.index("MEAN")]
    assert model.tensors[mean.outputs[0]].shape == (1, 1, 1, WIDTH)


# what is not, and why


def changed(name: str, **attributes) -> Change:
    return lambda node: node.with_attributes(**attributes) if node.name == name else node


def exchanged(name: str, op: Op, **attributes) -> Change:
    def change(node: Node) -> Node:
        return replace(node, op=op, inputs=node.inputs[:1], attributes=attributes) if node.name == name else node

    return change


BROKEN = {
    "stem stride": (changed("stem", stride=(1, 1)), "its stride is (1, 1), XNNPACK's kernel wants (2, 2)"),
    "stem padding": (changed("stem", padding=(0, 0, 1, 1)), "conv2d stem: its padding is (0, 0, 1, 1)"),
    "dilation": (
        changed("depthwise", dilation=(2, 2), padding=(2, 2, 2, 2)),
        "depthwise_conv2d depthwise: its padding",
    ),
    "pool inside": (
        exchanged("depthwise", Op.MAX_POOL2D, kernel_size=(1, 1)),
        "max_pool2d has no kernel channels first",
    ),
    "no mean": (exchanged("mean", Op.REDUCE_MAX, axes=(2, 3)), "reduce_max has no kernel channels first"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_a_cluster_is_named(case):
    change, why = BROKEN[case]
    graph = network(change=change)
    plan = plan_sparse(as_float(graph))
    assert not plan.weights and not plan.members
    assert any(why in finding.why for finding in plan.refused) and not any(f.blocks for f in plan.refused)
    assert write_tflite(graph, sparse=AUTO) == write_tflite(graph)


def test_a_tensor_that_is_also_an_output_keeps_its_layout():
    (finding,) = plan_sparse(as_float(network(extra=("expand",)))).refused
    assert "its cluster ends in conv2d expand, which is not a mean over the image" in finding.why
    assert finding.op == "conv2d expand" and "and those of 1 more layers" in finding.why


@pytest.mark.parametrize(("zeros", "is_sparse"), [(0.6, False), (0.75, True)])
def test_more_than_two_thirds_of_a_cluster_must_be_zero(zeros, is_sparse):
    plan = plan_sparse(as_float(network(zeros=zeros)))
    assert bool(plan.weights) == is_sparse and plan.refused == ()


def test_the_share_is_that_of_the_whole_cluster():
    graph = network(zeros=0.8)
    full = np.ones_like(graph.constants["expand.weight"])
    (finding,) = plan_sparse(as_float(graph.with_constants({"expand.weight": full}))).refused
    assert finding.op == "conv2d project"
    assert "of the 1x1 weights in its cluster are zero; XNNPACK wants more than two thirds" in finding.why


def test_integers_and_float16_activations_are_written_sparse_only_where_it_is_asked_for():
    graph = network()
    model = quantized(graph, image())
    half = QuantizedGraph(graph, {}, reals=Reals.FLOAT16)
    for given in (model, half):
        (finding,) = plan_sparse(given).refused
        assert "only kernels over float32 activations skip zeros" in finding.why
        assert write_tflite(given, sparse=AUTO) == write_tflite(given)
    content = write_tflite(model, sparse=SMALLER)
    assert check_tflite(content, model, sparse=SMALLER) == [] and len(content) < len(write_tflite(model))
    given = quantize_inputs(model, [image()])
    for kernels in ("xnnpack", "builtin", "reference"):
        runners = [TfliteRunner(found, kernels=kernels) for found in (content, write_tflite(model))]
        found, wanted = (runner.run(given)[0] for runner in runners)
        np.testing.assert_array_equal(found, wanted)


def test_all_that_shrinks_is_written_sparse_where_it_is_asked_for():
    change = BROKEN["no mean"][0]
    graph = network(change=change)
    head = np.where(np.arange(WIDTH) < 40, 0, graph.constants["head.weight"])
    graph = graph.with_constants({"head.weight": head})
    content = write_tflite(graph, sparse=SMALLER)
    assert check_tflite(content, graph, sparse=SMALLER) == []
    assert plan_sparse(as_float(graph), SMALLER).weights == {*POINTWISE, "head.weight"}
    (found,), (wanted,) = (TfliteRunner(c).run([image()]) for c in (content, write_tflite(graph)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


# checks


def test_the_check_tells_what_is_not_as_it_was_asked_for():
    graph = network()
    dense, sparse = write_tflite(graph), write_tflite(graph, sparse=AUTO)
    assert check_tflite(dense, graph, sparse=AUTO) == [f"{name}: is stored with its zeros" for name in POINTWISE]
    assert check_tflite(sparse, graph) == [f"{name}: is stored without its zeros" for name in POINTWISE]
    other = graph.constants["project.weight"].copy()
    other.flat[np.flatnonzero(other)[:3]] *= 2
    findings = check_tflite(sparse, graph.with_constants({"project.weight": other}), sparse=AUTO)
    assert findings == [f"project.weight: 3 of {other.size} values differ"]


def test_a_stored_zero_is_told():
    graph = network()
    zeroed = graph.constants["project.weight"].copy()
    zeroed.flat[np.flatnonzero(zeroed)[0]] = 0
    model = schema.ModelT.InitFromPackedBuf(write_tflite(graph, sparse=AUTO), 0)
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name == b"project.weight"]
    buffer = model.buffers[tensor.buffer]
    buffer.data = np.concatenate([np.zeros(4, np.uint8), buffer.data[4:]])
    findings = check_tflite(packed(model), graph.with_constants({"project.weight": zeroed}), sparse=AUTO)
    assert findings == [f"project.weight: 1 of the {np.count_nonzero(zeroed) + 1} values stored are zero"]


def packed(model) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def damaged(change: Callable) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(write_tflite(network(), sparse=AUTO), 0)
    (tensor,) = [t for t in model.subgraphs[0].tensors if t.name == b"project.weight"]
    change(tensor.sparsity)
    return packed(model)


def _beyond(sparsity) -> None:
    sparsity.dimMetadata[-1].arrayIndices.values = np.full_like(sparsity.dimMetadata[-1].arrayIndices.values, 200)


def _reversed(sparsity) -> None:
    sparsity.traversalOrder = np.asarray([3, 2, 1, 0], np.int32)


def _shorter(sparsity) -> None:
    sparsity.dimMetadata = sparsity.dimMetadata[1:]


def _dense(sparsity) -> None:
    sparsity.dimMetadata[-1].format = schema.DimensionType.DENSE


def _without_indices(sparsity) -> None:
    sparsity.dimMetadata[-1].arrayIndicesType = 0
    sparsity.dimMetadata[-1].arrayIndices = None


@pytest.mark.parametrize("change", [_beyond, _reversed, _shorter, _dense, _without_indices])
def test_a_damaged_sparse_tensor_is_refused(change):
    with pytest.raises(OptionError, match="damaged"):
        parse(damaged(change))


@pytest.mark.parametrize("kind", ["float32", "float16_weights", "int8"])
def test_tflite_runtime_reads_sparse_tensors(kind, tmp_path):
    if not PYTHON.is_file():
        pytest.skip("no .venv-tflite-runtime: `make test` sets it up")
    model, given = as_float(network()), [image()]
    if kind == "float16_weights":
        model = replace(model, reals=Reals.FLOAT16_WEIGHTS)
    elif kind == "int8":
        model = quantized(network(), image())
        given = quantize_inputs(model, given)
    content = write_tflite(model, sparse=SMALLER)
    assert read_tflite(content).ops["DENSIFY"] == len(POINTWISE)
    (tmp_path / "0.tflite").write_bytes(content)
    placed = layouts(content)
    np.savez(tmp_path / "0.npz", x=placed["x"].to_physical(given[0]))
    subprocess.run([PYTHON, CHILD, tmp_path], check=True, capture_output=True)
    assert not (tmp_path / "0.error").exists()
    found = placed["head"].to_logical(np.load(tmp_path / "0.out.npz")["head"])
    (wanted,) = TfliteRunner(content).run(given)
    atol = 1 if kind == "int8" else 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=0, atol=atol)


# the way to it


def test_export_writes_what_pays_and_records_what_does_not():
    graph = network()
    model = TracedModel(graph=graph, reference=graph)
    exported = Export(formats=(Format.TFLITE,))(model)
    assert read_tflite(exported.files["model.tflite"]).ops["DENSIFY"] == len(POINTWISE)
    assert exported.history[-1].facts["sparse"] == {"written": sorted(POINTWISE), "refused": []}
    dense = Export(formats=(Format.TFLITE,), sparse=NEVER)(model)
    assert "sparse" not in dense.history[-1].facts and "DENSIFY" not in read_tflite(dense.files["model.tflite"]).ops
    broken = network(change=BROKEN["stem padding"][0])
    (line,) = Export()(TracedModel(graph=broken, reference=broken)).history[-1].facts["sparse"]["refused"]
    assert line.startswith("conv2d expand: ") and "its padding is (0, 0, 1, 1)" in line


@pytest.mark.parametrize(("target", "wanted"), [("arm64", AUTO), ("ethos-u55", NEVER)])
def test_targets_write_sparse_where_their_devices_have_kernels(target, wanted):
    assert stage_options(*load_target(target))["sparse"] is wanted


def test_lint_tells_which_node_keeps_zeros_from_being_skipped():
    import torch
    from torch import nn

    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    net = Net(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 16, 1))
    with torch.no_grad():
        net[2].weight.mul_(torch.rand_like(net[2].weight) > 0.9)
    (finding,) = lint(net, target="arm64", example_inputs=(np.zeros((1, 3, 33, 33), np.float32),)).findings
    assert finding.op == "conv2d 2" and "conv2d 0: its padding is (0, 0, 0, 0)" in finding.why and not finding.blocks


# what XNNPACK computes channels first, it computes rightly only in some forms


def padded_stem(graph: Graph) -> Graph:
    """The same function, its first padding a node of its own."""
    pad = Node(Op.PAD, "pad", ("x",), ("pad",), {"amounts": (0, 0, 1, 1, 0, 0, 1, 1)})
    stem = replace(graph.nodes[0].with_attributes(padding=(0, 0, 0, 0)), inputs=("pad", *graph.nodes[0].inputs[1:]))
    return graph.with_nodes((pad, stem, *graph.nodes[1:]))


def test_nothing_is_sparse_where_a_cluster_could_begin_that_is_not_taken():
    plan = plan_sparse(as_float(padded_stem(network())), SMALLER)
    assert not plan.weights and not plan.members


def test_a_mean_that_goes_on_ends_its_cluster():
    """Squeeze and excitation: the means of all channels weigh the image they are of."""
    graph = network()
    gate = Node(Op.SIGMOID, "gate", ("squeezed",), ("gate",))
    squeeze = Node(Op.MEAN, "squeeze", ("add",), ("squeezed",), {"axes": (2, 3), "keepdim": True})
    scale = Node(Op.MUL, "scale", ("add", "gate"), ("scaled",))
    mean = replace(graph.nodes[-2], inputs=("scaled",))
    plan = plan_sparse(as_float(graph.with_nodes((*graph.nodes[:-2], squeeze, gate, scale, mean, graph.nodes[-1]))))
    assert not plan.weights
    assert all("mul scale" in finding.why or "mean squeeze" in finding.why for finding in plan.refused)


@pytest.mark.parametrize("keepdim", [False, True])
def test_the_mean_of_a_cluster_is_reshaped_to_what_it_is(keepdim):
    graph = network(change=changed("mean", keepdim=keepdim))
    graph = replace(graph, nodes=graph.nodes[:-1], outputs=("mean",))
    content = write_tflite(graph, sparse=AUTO)
    operators = [(operator.name, operator.outputs) for operator in parse(content).operators]
    assert [name for name, _ in operators[-2:]] == ["MEAN", "RESHAPE"]
    (found,), (wanted,) = (TfliteRunner(c).run([image()]) for c in (content, write_tflite(graph)))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())

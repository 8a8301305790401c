"""The recover stage in several processes: launched by torchrun, each one of `accelerate`'s.

What they need lies in a folder: the model as it is saved, samples as arrays (mapped, not copied), options as JSON;
models and functions of the user's by name, or graphs as they are saved. The first process tells how far it is on its
output, one line a step, and leaves the trained model, or what it raised.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import errors
from toolchain.errors import OptionError, ToolchainError
from toolchain.graph import Graph
from toolchain.imports import import_callable
from toolchain.ladder.goal import Goal
from toolchain.progress import Progress
from toolchain.samples import SampleSet, Selection
from toolchain.samples.values import ColumnRows
from toolchain.stages.inputs import input_types
from toolchain.stages.states import Model, TracedModel, load

if TYPE_CHECKING:
    from toolchain.stages.recover import Recover

_STEP = "step "
_BY_NAME = ("loss", "metric")
_MODELS = ("teacher", "student")


def launch(stage: Recover, model: Model, progress: Progress, checkpoints: Path | None) -> tuple[Any, dict[str, Any]]:
    """Run `stage` on `model` in its number of processes: the trained model, and the facts. Raises what they raise, and
    OptionError where they cannot be started."""
    if find_spec("accelerate") is None:
        raise OptionError(
            "several processes train through accelerate, which is not installed",
            hint="pip install 'edge-toolchain[accelerate]', or set processes = 1",
        )
    with tempfile.TemporaryDirectory(prefix="recover-") as name:
        folder = Path(name)
        _write(stage, model, folder, checkpoints)
        told = list(progress.track(_run(stage.processes, folder), description=stage.name, total=stage.steps(model)))
        if (folder / "error.json").is_file():
            found = json.loads((folder / "error.json").read_text())
            raise getattr(errors, found["kind"])(found["what"], where=found["where"], hint=found["hint"])
        if not (folder / "made").is_dir():
            raise OptionError("a process of the training died", where="\n".join(told[-20:]), hint="see its last lines")
        made = load(folder / "made")
        return made, dict(made.history[-1].facts)


def _run(processes: int, folder: Path) -> Iterator[str]:
    """One item for each step that is told, and the last lines of anything else."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", __name__, str(folder)]
    settings = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings
    ) as process:
        assert process.stdout is not None
        try:
            other = []
            for line in process.stdout:
                if line.startswith(_STEP):
                    yield line
                else:
                    other.append(line.rstrip())
            yield from other[-20:]
        finally:
            process.terminate()


def _write(stage: Recover, model: Model, folder: Path, checkpoints: Path | None) -> None:
    (folder / "model").mkdir()
    model.save(folder / "model")
    samples = stage.samples.checked(input_types(model.graph))
    (whole,) = samples.with_batch_size(samples.calibration_count).calibration()
    for index, array in enumerate(whole.inputs):
        np.save(folder / f"input{index}.npy", array)
    if whole.labels is not None:
        np.save(folder / "labels.npy", whole.labels)
    plain = {"batch_size": samples.batch_size, "inputs": len(whole.inputs), "checkpoints": str(checkpoints or "")}
    named = {name: _spec(getattr(stage, name), name) for name in _BY_NAME}
    models = {name: _model_spec(getattr(stage, name), name, folder) for name in _MODELS}
    skipped = {"samples", *named, *models}
    options = {key: value for key, value in stage.options().items() if key not in skipped}
    (folder / "options.json").write_text(json.dumps({**plain, "options": {**options, **named}, "models": models}))


def _spec(function: Any, what: str) -> str | None:
    """`package.module:function` of a function of the user's. Raises OptionError for one that has no such name."""
    if function is None or isinstance(function, str):
        return function
    spec = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        if function.__module__ != "__main__" and import_callable(spec, what=what) is function:
            return spec
    except (OptionError, AttributeError):
        pass
    raise OptionError(
        f"other processes cannot import this {what}", hint="put it in a module and name it package.module:function"
    )


def _model_spec(model: Any, what: str, folder: Path) -> str | None:
    """A name as it is; of a graph, where it was saved."""
    if model is None or isinstance(model, str):
        return model
    if not isinstance(model, Graph):
        raise OptionError(
            f"other processes cannot make this {what}", hint=f"name the {what}: package.module:function, or a .pt2 file"
        )
    (folder / what).mkdir()
    TracedModel(graph=model, reference=model).save(folder / what)
    return ""


def _read(folder: Path) -> tuple[Recover, Model, Path | None]:
    from toolchain.stages.recover import Recover

    plain = json.loads((folder / "options.json").read_text())
    columns = [np.load(folder / f"input{index}.npy", mmap_mode="r") for index in range(plain["inputs"])]
    labels = np.load(folder / "labels.npy") if (folder / "labels.npy").is_file() else None
    rows = ColumnRows(columns, labels)
    everything = Selection(rows, tuple(range(len(rows))))
    samples = SampleSet(
        name="samples", for_calibration=everything, for_judging=Selection(rows, ()), batch_size=plain["batch_size"]
    )
    options: dict[str, Any] = {
        key: plain["options"][key] for key in (f.name for f in fields(Recover)) if key in plain["options"]
    }
    options["goal"] = None if options["goal"] is None else Goal(**options["goal"])
    options["metric"] = None if options["metric"] is None else import_callable(options["metric"], what="metric")
    options["features"] = tuple(options["features"])
    for name, spec in plain["models"].items():
        options[name] = load(folder / name).graph if spec == "" else spec
    stage = Recover(samples=samples, **options)
    return stage, load(folder / "model"), Path(plain["checkpoints"]) if plain["checkpoints"] else None


class _Told:
    """Progress as lines that `launch` reads."""

    def track(self, items: Any, *, description: str, total: int | None = None) -> Iterator[Any]:
        for index, item in enumerate(items):
            yield item
            print(f"{_STEP}{index + 1}", flush=True)


def main() -> None:
    """One process of several."""
    folder, is_first = Path(sys.argv[1]), os.environ.get("RANK", "0") == "0"
    try:
        stage, model, checkpoints = _read(folder)
        made = stage(model, checkpoints=checkpoints, **({"progress": _Told()} if is_first else {}))
    except ToolchainError as error:
        if is_first:
            told = {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}
            (folder / "error.json").write_text(json.dumps(told))
        raise SystemExit(error.exit_code) from error
    if is_first:
        (folder / "half").mkdir()
        made.save(folder / "half")
        (folder / "half").rename(folder / "made")
    import torch.distributed

    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""The command line: deploy, diagnose, stage, lint, diff, pack, unpack, validate, devices, emulator, targets, schema.

Turns errors into one message and an exit code.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from toolchain.devices import commands as device_commands
from toolchain.errors import INTERRUPTED, OptionError, ToolchainError, UnsupportedError
from toolchain.packing import commands

if TYPE_CHECKING:
    from toolchain.pipeline import StageRun
    from toolchain.report import RichProgress

app = typer.Typer(
    name="toolchain",
    help="From a trained PyTorch model to ONNX and TFLite files tuned to a device, checked against the float model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Target = Annotated[str, typer.Option("--target", "-t", help="A shipped target's name, or the path of your own TOML.")]
ModelSpec = Annotated[
    str, typer.Option("--model", "-m", help="A zoo name, package.module:function, or a .pt2 file of torch.export.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        "-c",
        help="Samples: a shipped name, a TOML, an .npz, a folder of images, package.module:function, or synthetic.",
    ),
]
Feedback = Annotated[
    str | None, typer.Option(help="Of a streaming model: inputs and the outputs that go back to them, state=1,...")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results [build/TARGET/MODEL].")]
StoreFolder = Annotated[Path, typer.Option("--store", help="Where finished stages are kept, to continue from.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the facts as JSON on standard output, and nothing else there.")
]


class SchemaKind(StrEnum):
    """What a JSON schema can be printed of."""

    TARGET = "target"
    DEVICE = "device"
    CALIBRATION = "calibration"


@app.command()
def deploy(
    target: Target = "arm64",
    model: ModelSpec = "mnist",
    calibration: Calibration = None,
    metric: Annotated[
        str | None, typer.Option(help="package.module:function(outputs, labels) -> score, higher is better.")
    ] = None,
    out: Out = None,
    recipe: Annotated[str, typer.Option(help="A recipe of the target, or the path of a recipe TOML.")] = "default",
    in_out: Annotated[str | None, typer.Option(help="integer or float in- and outputs [the target's choice].")] = None,
    float_files: Annotated[bool, typer.Option("--float-files", help="Write float versions of the files too.")] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Files take any number of samples at a time.")
    ] = False,
    samples: Annotated[int | None, typer.Option(help="Calibration samples [the sample set's choice].", min=1)] = None,
    judge: Annotated[int | None, typer.Option(help="Samples to judge with [the sample set's choice].", min=1)] = None,
    feedback: Feedback = None,
    store: StoreFolder = Path("build/store"),
    as_json: AsJson = False,
) -> None:
    """Deploy a model: trace, compress, quantize, export, check, report."""
    from toolchain.deployment import deploy as run_deploy
    from toolchain.report import RichProgress, print_summary
    from toolchain.samples.streams import parse_feedback

    if in_out not in (None, "integer", "float"):
        raise OptionError(f"--in-out is integer or float, not {in_out!r}")
    err = Console(stderr=True)
    with RichProgress(err) as progress:
        started, ended = _tell_stages(err, progress)
        done = run_deploy(
            model,
            target=target,
            calibration=calibration,
            metric=metric,
            out=out,
            recipe=recipe,
            store=store,
            in_out=in_out,
            float_files=float_files,
            dynamic_batch=dynamic_batch,
            calibration_count=samples,
            judging_count=judge,
            feedback=parse_feedback(feedback),
            progress=progress,
            on_start=started,
            on_end=ended,
        )
    if as_json:
        typer.echo(json.dumps(dict(done.facts), indent=2))
    else:
        print_summary(dict(done.facts), Console(), paths=(*done.files, done.bundle))


@app.command()
def diagnose(
    target: Target = "arm64",
    model: ModelSpec = "mnist",
    calibration: Calibration = None,
    out: Out = None,
    recipe: Annotated[str, typer.Option(help="A recipe of the target, or the path of a recipe TOML.")] = "default",
    samples: Annotated[int | None, typer.Option(help="Calibration samples [the sample set's choice].", min=1)] = None,
    judge: Annotated[int, typer.Option(help="Samples to diagnose on, kept apart from calibration.", min=1)] = 8,
    feedback: Feedback = None,
    store: StoreFolder = Path("build/store"),
    as_json: AsJson = False,
) -> None:
    """Say where a quantized model loses accuracy: layer by layer, with the cause and what to do."""
    from toolchain.diagnose import diagnose as run_diagnose
    from toolchain.report import RichProgress
    from toolchain.report.diagnosis_terminal import print_diagnosis
    from toolchain.samples.streams import parse_feedback

    err = Console(stderr=True)
    with RichProgress(err) as progress:
        started, ended = _tell_stages(err, progress)
        done = run_diagnose(
            model,
            target=target,
            calibration=calibration,
            out=out,
            recipe=recipe,
            store=store,
            calibration_count=samples,
            feedback=parse_feedback(feedback),
            samples=judge,
            progress=progress,
            on_start=started,
            on_end=ended,
        )
    if as_json:
        typer.echo(json.dumps(dict(done.facts), indent=2))
    else:
        print_diagnosis(dict(done.facts), Console(), paths=done.files)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="trace, prune, cluster, calibrate, quantize, recover or export.")],
    source: Annotated[str, typer.Argument(help="A saved model's folder; for trace: what --model takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the result (new or empty).")],
    target: Target = "arm64",
    calibration: Calibration = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="KEY=VALUE of the stage, as in a recipe; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one stage on a saved model."""
    from toolchain.report import RichProgress
    from toolchain.single_stage import run_stage

    err = Console(stderr=True)
    with RichProgress(err) as progress:
        facts = run_stage(name, source, out, target, calibration, _options(option or []), progress)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(f"{name}: {out}")
        for key, value in facts.items():
            text = json.dumps(value)
            typer.echo(f"  {key}: {text if len(text) <= 100 else f'{len(value)} entries (--json shows them)'}")


@app.command()
def lint(
    target: Target = "arm64",
    model: ModelSpec = "mnist",
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", help="Shape of an input, 1,3,224,224 or int64:1,128; repeat it, one an input."),
    ] = None,
    calibration: Calibration = None,
    as_json: AsJson = False,
) -> None:
    """Say what of a model, trained or not, a target lacks: op, dtype, attribute, place, what to use instead."""
    from toolchain.lint import lint as run_lint
    from toolchain.lint import zero_inputs
    from toolchain.report.findings import print_findings
    from toolchain.samples import load_samples
    from toolchain.zoo.resolve import load_model

    loaded = load_model(model)
    known = zero_inputs(shape) if shape else loaded.example_inputs
    found = run_lint(
        loaded.module,
        target=target,
        example_inputs=load_samples(calibration or loaded.samples).first_inputs() if known is None else known,
    )
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    else:
        print_findings(found.findings, found.memory, found.device, Console())
    if found.blocks:
        raise typer.Exit(UnsupportedError.exit_code)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="An .onnx, a .tflite, or a saved stage's folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another, of any kind.")],
    samples: Annotated[int, typer.Option(help="Samples that both are run on; 0 leaves outputs out.", min=0)] = 16,
    calibration: Calibration = None,
    seed: Annotated[int, typer.Option(help="Of the random samples, where --calibration names none.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Put two artifacts side by side: ops, shapes, sizes, scales, and outputs on the same samples."""
    from toolchain.comparison.compare import compare_artifacts
    from toolchain.report import RichProgress
    from toolchain.report.differences import print_diff
    from toolchain.samples import load_samples

    given = samples if calibration is None else load_samples(calibration)
    with RichProgress(Console(stderr=True)) as progress:
        found = compare_artifacts(first, second, given, count=samples, seed=seed, progress=progress)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    else:
        print_diff(found, Console())


for command in (
    *(commands.pack, commands.unpack),
    *(device_commands.validate, device_commands.emulator),
):
    app.command()(command)


@app.command()
def targets(as_json: AsJson = False) -> None:
    """List targets, the devices they stand for, and the recipes they offer."""
    from toolchain.backends.device_table import print_targets

    print_targets(as_json)


@app.command()
def devices(as_json: AsJson = False) -> None:
    """List targets with their devices, the ways there, the back ends, and what each misses here."""
    from toolchain.backends.device_table import print_devices

    print_devices(as_json)


@app.command()
def schema(kind: Annotated[SchemaKind, typer.Argument(help="target, device or calibration.")]) -> None:
    """Print the JSON schema of a kind of TOML."""
    from toolchain.profiles import DeviceProfile
    from toolchain.samples import CalibrationSpec
    from toolchain.targets import Target as TargetTable

    models: dict[SchemaKind, Any] = {
        SchemaKind.TARGET: TargetTable,
        SchemaKind.DEVICE: DeviceProfile,
        SchemaKind.CALIBRATION: CalibrationSpec,
    }
    typer.echo(json.dumps(models[kind].model_json_schema(), indent=2))


def _note(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False)


def _tell_stages(err: Console, progress: RichProgress) -> tuple[Callable[[str], None], Callable[[StageRun], None]]:
    """What to call when a stage starts, and when it ends; in between something moves, where it can."""
    running = ExitStack()

    def started(stage: str) -> None:
        _INTERRUPTION.check()
        if not progress.moves:
            _note(err, f"{stage} ...")
        running.enter_context(progress.running(stage))

    def ended(run: StageRun) -> None:
        _INTERRUPTION.check()
        running.close()
        _note(err, f"{run.stage} {'taken from the store' if run.resumed else f'{run.seconds:.1f} s'}")

    return started, ended


def _options(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE, the value read as TOML where it can be, else as text."""
    import tomllib

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise OptionError(f"--set takes KEY=VALUE, not {pair!r}")
        try:
            options[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = value
    return options


class _Interruption:
    """Ctrl-C. Where it hits the import of a native module it comes out as another error, or not at all: so it is
    kept."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, *_: object) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        if self.asked:
            raise KeyboardInterrupt


_INTERRUPTION = _Interruption()


def main() -> None:
    """Entry point: runs the command line and leaves with the error tree's exit codes."""
    signal.signal(signal.SIGINT, _INTERRUPTION)
    try:
        _run()
    except BaseException:
        if not _INTERRUPTION.asked:
            raise
        _fail("interrupted; finished stages are kept, the same command continues from them", INTERRUPTED)


def _run() -> None:
    # torch's threads wait for each other by spinning, which on a busy machine keeps the one they wait for off the
    # processor (measured: 10 times slower); a short spin costs nothing on a quiet one
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        code = app(standalone_mode=False)
        gc.freeze()  # nothing is left to collect but torch's modules, which takes a second
        sys.exit(code if isinstance(code, int) else 0)
    except ToolchainError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERRUPTED)
    except Exception as error:
        _fail_unexpected(error)


def _fail(message: str, code: int) -> None:
    if _INTERRUPTION.asked and code != INTERRUPTED:
        raise KeyboardInterrupt
    Console(stderr=True).print(f"[bold red]error:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _escaped(message: str) -> str:
    from rich.markup import escape

    return escape(message)


def _fail_unexpected(error: Exception) -> None:
    """Usage errors of the command line parser, a full disk, and what should never happen."""
    show = getattr(error, "format_message", None)
    if show is not None:
        _fail(f"{show()}\n  to do: see toolchain --help", OptionError.exit_code)
    if isinstance(error, OSError):
        where = f"\n  where: {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", OptionError.exit_code)
    if os.environ.get("TOOLCHAIN_DEBUG"):
        raise error
    name = type(error).__name__
    _fail(f"a defect of the toolchain: {name}: {error}\n  to do: report it; TOOLCHAIN_DEBUG=1 shows the traceback", 1)


if __name__ == "__main__":
    main()

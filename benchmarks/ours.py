"""Our side of a comparison: one process from import to both files written, as `toolchain deploy` goes.

    python ours.py --out FOLDER [--json X.json] [--samples 100] [--store FOLDER] [--until STAGE] [--check]

`--store` keeps every finished stage as `toolchain deploy` does; without it nothing is kept. `--check` goes on
to judge the files in their runtimes, which is timed as a stage of its own.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from peers._common import Account

if TYPE_CHECKING:
    from toolchain.job import Job
    from toolchain.pipeline import StageRun


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--json", type=Path, help="where the seconds of each stage go")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--calibration", default="photos")
    parser.add_argument("--target", default="arm64")
    parser.add_argument("--recipe", default="static", help="the target's recipe; peers climb no ladder either")
    parser.add_argument("--samples", type=int, default=100, help="calibration samples")
    parser.add_argument("--in-out", choices=("integer", "float"), help="in- and outputs (if not the target's)")
    parser.add_argument("--store", type=Path, help="folder for finished stages")
    parser.add_argument("--until", help="the last stage to run (all, and the files written, if not given)")
    parser.add_argument("--check", action="store_true", help="judge the files as well")
    return parser.parse_args()


def run(arguments: argparse.Namespace, account: Account) -> None:
    from toolchain.formats.artifact import InOut
    from toolchain.job import Request, prepare
    from toolchain.stages.states import ExportedModel
    from toolchain.store import Store

    account.stage("imports")
    request = Request(
        model=arguments.model,
        target=arguments.target,
        calibration=arguments.calibration,
        out=arguments.out,
        recipe=arguments.recipe,
        calibration_count=arguments.samples,
        options={"in_out": InOut(arguments.in_out)} if arguments.in_out else {},
    )
    job = prepare(request)
    account.stage("load model and samples")
    stages = job.pipeline.stages
    names = [stage.name for stage in stages]
    last = names.index(arguments.until) + 1 if arguments.until else len(names)
    made = replace(job.pipeline, stages=stages[:last]).run(
        job.model.module,
        store=Store(arguments.store) if arguments.store else None,
        on_end=_ended(job, account),
    )
    if isinstance(made, ExportedModel):
        made.write(arguments.out)
        account.stage("write")
        if arguments.check:
            from toolchain.validation.validate import validate

            validate(made, job.samples, job.target.gates)
            account.stage("check")


def _ended(job: Job, account: Account) -> Callable[[StageRun], None]:
    """What `deploy` does after each stage: a traced model is compared with what the device runs."""
    from toolchain.graph import fold
    from toolchain.profiles import check_ops
    from toolchain.stages.states import TracedModel

    def ended(run: StageRun) -> None:
        if isinstance(run.model, TracedModel):
            check_ops(fold(run.model.graph), job.profile, job.target.device)
        account.stage(run.stage)

    return ended


def main() -> None:
    account = Account()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as toolchain.cli does
    arguments = arguments_of()
    run(arguments, account)
    text = json.dumps(account.totals(), indent=2) + "\n"
    if arguments.json:
        arguments.json.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()

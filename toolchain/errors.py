"""Every error a user can meet, drawn as one tree, each branch with its exit code.

    ToolchainError                 1
    ├── OptionError                2   an option, a path or a name given by the user does not hold
    ├── OrderError                 3   stages in a row that cannot run
    ├── ProfileError               4   a TOML (target, device profile, sample set, recipe) is malformed
    ├── UnsupportedError           5   the model holds what the graph, a format or a target cannot express
    ├── BudgetError                6   the artifact does not fit the device
    ├── DisagreementError          7   an artifact does not compute what the float reference computes
    ├── SampleError                8   samples are missing, damaged or of the wrong kind
    └── DeviceError                9   a device cannot be reached, is lost or does not answer in time

A message says what is wrong, where, and what to do. Several findings of one kind are collected and raised
together (`raise_collected`). Interruption (Ctrl-C) leaves with 130, as shells expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

INTERRUPTED = 130


class ToolchainError(Exception):
    """Root of the tree. `exit_code` is what the command line leaves with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  to do: {self.hint}")
        return "\n".join(lines)


class OptionError(ToolchainError):
    exit_code = 2


class OrderError(ToolchainError):
    exit_code = 3


class ProfileError(ToolchainError):
    exit_code = 4


class UnsupportedError(ToolchainError):
    exit_code = 5


class BudgetError(ToolchainError):
    exit_code = 6


class DisagreementError(ToolchainError):
    exit_code = 7


class SampleError(ToolchainError):
    exit_code = 8


class DeviceError(ToolchainError):
    exit_code = 9


def raise_collected(
    kind: type[ToolchainError], title: str, findings: Sequence[str], *, hint: str | None = None
) -> None:
    """Raise one `kind` that lists all `findings`, one a line; do nothing when there are none."""
    if findings:
        raise kind("\n".join([title, *(f"  - {finding}" for finding in findings)]), hint=hint)

"""Peer: the float TFLite file alone, litert_torch.convert and export.

python litert_float.py OUT.tflite
"""

from __future__ import annotations

import contextlib
import sys

import litert_torch
import torch
from _common import INPUT_SHAPE, load_model

with contextlib.redirect_stdout(sys.stderr):
    litert_torch.convert(load_model(), (torch.zeros(INPUT_SHAPE),)).export(sys.argv[1])

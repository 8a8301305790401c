"""The float ONNX file of an exported program by torch.onnx.export as it is by default today (needs onnxscript).

python export_onnx.py PROGRAM.pt2 OUT.onnx NAME...
"""

from __future__ import annotations

import sys

import torch

program, out, *names = sys.argv[1:]
torch.onnx.export(
    torch.export.load(program), (), out, input_names=names, opset_version=18, dynamo=True, external_data=False
)

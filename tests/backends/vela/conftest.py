"""A compiler that stands in for Vela, and the tables Vela writes of a small file, half of it on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SUMMARY = (
    "experiment,network,core_clock,sram_memory_used,dram_memory_used,on_chip_flash_memory_used,"
    "off_chip_flash_memory_used,total_original_weights,total_npu_encoded_weights,nn_macs,cycles_npu,cycles_total\n"
    "default,model,200000000.0,2.0,0.5,0.25,1.75,1000,250,5000,1000,1234.0\n"
)
LAYERS = (
    "Original Operator,NNG Operator,Target,Staging Usage,Peak% (Staging),Op Cycles,Network% (cycles),NPU,SRAM AC,"
    "DRAM AC,OnFlash AC,OffFlash AC,MAC Count,Network% (MAC),Util% (MAC),Name\n"
    "Conv2D,Conv2D,NPU,3216,94.3,3760,45.0,3760,1048,0,0,960,55296,66.2,11.4,first\n"
    "DepthToSpace,Passthrough,CPU,0,0.0,0,0.0,0,0,0,0,0,0,0.0,100,a, name with commas\n"
)
PRINTED = """
Warning (supported operators) operator: DEPTH_TO_SPACE, ofm: 'a, name with commas'
Reason: Unsupported opType

Warning (supported operators) operator: RESIZE_BILINEAR, ofm: 'it's'
Reason: Scaling matches and operation has unsupported scale-factor=3
Scale-factor must be one of: 2x/4x/8x

################################################################################
"""
STAND_IN = f"""
import pathlib, sys
names = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert names["--config"] == "Arm/vela.ini" and sys.argv[-1] == "--verbose-performance", sys.argv
assert names["--accelerator-config"] == "ethos-u55-128" and names["--memory-mode"] == "Shared_Sram", names
assert names["--system-config"] == "Ethos_U55_Deep_Embedded", names
content = pathlib.Path(sys.argv[1]).read_bytes()
if content == b"refused":
    sys.exit("Traceback (most recent call last):\\nRuntimeError: Compilation failed")
if content == b"broken":
    sys.exit("Traceback (most recent call last):\\nKeyError: '0'")
if content == b"deadly":
    import os, signal
    os.kill(os.getpid(), signal.SIGFPE)
out = pathlib.Path(names["--output-dir"])
out.mkdir()
print({PRINTED!r})
if content != b"empty":
    (out / "model_summary_Ethos_U55_Deep_Embedded.csv").write_text({SUMMARY!r})
    (out / "model_per-layer.csv").write_text({LAYERS!r})
    (out / "model_vela.tflite").write_bytes(b"compiled " + content)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `ethosu.vela` that checks the options it is given and writes the tables above."""
    package = tmp_path / "ethosu" / "vela"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "ethosu"]:
        monkeypatch.delitem(sys.modules, name, raising=False)

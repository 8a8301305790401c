"""What a bundle says of the device it is for: which ways lead there, and what of it no host can run.

It is written into the manifest's provenance; a bundle that says nothing of it is judged on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolchain.devices import run_bundle
from toolchain.devices.reading import Bundle
from toolchain.devices.ways import WAYS, Options, WayKind
from toolchain.errors import OptionError
from toolchain.profiles import DeviceProfile
from toolchain.targets import Target

_VERSION = re.compile(r"\d[\w.]*")


@dataclass(frozen=True)
class BundledDevice:
    """A target's device; `note` says in a line what only the device itself runs."""

    name: str = ""
    ways: tuple[str, ...] = ("here",)
    note: str = ""


def device_provenance(target: Target, profile: DeviceProfile) -> dict[str, Any]:
    """What a manifest's provenance says of the device: plain JSON values."""
    found: dict[str, Any] = {"device": target.device, "kind": profile.kind, "ways": list(target.ways)}
    if profile.emulator is not None:
        found["emulator"] = {"cpu": profile.emulator.cpu}
    note = _note(profile)
    return found | ({"note": note} if note else {})


def _note(profile: DeviceProfile) -> str:
    if profile.vela is not None:
        return "the NPU runs what Vela compiles of model.tflite, which no host can: model.tflite itself is judged"
    if profile.qnn is not None:
        return "the HTP runs what QNN compiles of model.onnx, which no host can: model.onnx itself is judged"
    if profile.kind == "mcu":
        return (
            "firmware takes model and golden values from c/ in the bundle: here interpreters of this machine are judged"
        )
    return ""


def bundled_device(provenance: Mapping[str, Any]) -> BundledDevice:
    """The device of a bundle, as far as its provenance tells."""
    name, ways, note = (provenance.get(key) for key in ("device", "ways", "note"))
    known = tuple(way for way in ways if isinstance(way, str)) if isinstance(ways, list) else ()
    return BundledDevice(
        name if isinstance(name, str) else "",
        known or BundledDevice.ways,
        note if isinstance(note, str) else "",
    )


def choose_way(wanted: str | None, options: Options, device: BundledDevice) -> WayKind:
    """The way that is `wanted`, or that an option is of: a host, a CPU to emulate, an interpreter of this machine; else
    the first of the device's ways that is ready. Raises OptionError where there is no such way."""
    if wanted is not None:
        if wanted not in WAYS:
            raise OptionError(f"there is no way {wanted!r} to a device", hint=f"choose {' or '.join(WAYS)}")
        return WAYS[wanted]
    fitting = [WAYS[name] for name in device.ways if name in WAYS]
    if options.host is not None:
        return next((kind for kind in fitting if kind.to_host), WAYS["ssh"])
    if options.cpu is not None or options.python is not None:
        return WAYS["here" if options.cpu is None else "emulator"]
    for kind in fitting:
        missing = kind.missing()
        if missing is None and not kind.to_host:
            return kind
        if missing is not None:
            options.tell(f"not by {kind.name}, which misses {missing}")
    return WAYS["here"]


def runtimes_of(bundle: Bundle) -> dict[str, str]:
    """The runtimes that gave a bundle's expected outputs, with their versions: what confirms them to the bit. Only
    known ones: a bundle may come from anywhere, and these are installed."""
    known = [a for a in bundle.artifacts if a.runtime in run_bundle.RUNTIMES and _VERSION.fullmatch(a.version)]
    return {artifact.runtime: artifact.version for artifact in known}

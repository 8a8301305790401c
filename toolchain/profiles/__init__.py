"""Device profiles: what a device holds and runs (`profile`), and what of a model it cannot take (`checks`)."""

from toolchain.profiles.checks import check_flash, check_numbers, check_ops, check_ram, check_shapes, device_findings
from toolchain.profiles.profile import DeviceProfile, load_profile
from toolchain.profiles.tables import Pays, Table

__all__ = [
    "DeviceProfile",
    "Pays",
    "Table",
    "check_flash",
    "check_numbers",
    "check_ops",
    "check_ram",
    "check_shapes",
    "device_findings",
    "load_profile",
]

"""Files that other distributions carry in their wheels, found without importing those."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from toolchain.errors import OptionError


def packaged_file(path: str) -> Path:
    """Return a file inside an installed package, e.g. `skimage/data/coffee.png`.

    Raises OptionError where the package is not installed (with the extra that brings it) or lacks the file.
    """
    package, _, inside = path.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise missing_extra(package, wanted_for=path)
    file = Path(found.submodule_search_locations[0]) / inside
    if not file.is_file():
        raise OptionError(
            f"the installed package {package!r} holds no {inside}",
            where=str(file.parent),
            hint="install a version of it that does, or name another file",
        )
    return file


def missing_extra(package: str, *, wanted_for: str) -> OptionError:
    """Return the error for a package that the extra `zoo` brings and that is not installed."""
    return OptionError(
        f"{wanted_for} needs the package {package!r}, which is not installed",
        hint='pip install "edge-toolchain[zoo]"',
    )

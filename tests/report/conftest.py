"""Facts to render."""

from __future__ import annotations

from typing import Any

import pytest
from deployments import make_small_facts


@pytest.fixture
def facts() -> dict[str, Any]:
    return make_small_facts()

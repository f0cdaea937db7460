"""Programs that a test runs once and looks at by rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from life.programs import Program


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run one of the programs here, with a runtime directory of its own."""

    def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        place = tmp_path_factory.mktemp("place")
        place.chmod(0o700)
        return subprocess.run(
            [sys.executable, str(Path(__file__).with_name(name)), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PAGEDOPT_RUNTIME_DIR": str(place)},
        )

    return run

"""`python -m pagedopt` is the `pagedopt` command."""

from __future__ import annotations

import sys

from pagedopt.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

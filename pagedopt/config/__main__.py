"""`python -m pagedopt.config` prints docs/configuration.md."""

from pagedopt.config.reference import reference

print(reference(), end="")

"""The screens of `pagedopt top` as pure functions: `screen` puts one together, the other modules draw its parts."""

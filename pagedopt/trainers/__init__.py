"""Trainers that use these optimizers: Transformers, TRL, PEFT, Accelerate, Lightning, and scripts as they are.

`pagedopt.install` makes the Trainer of Transformers use them for the names of bitsandbytes. What belongs to one
framework is in one file, which imports that framework: `transformers` and `lightning` have a callback that logs
`pagedopt.stats()`. docs/trainers.md has the lines for each framework.
"""

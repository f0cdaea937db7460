"""Telemetry of a process: what its publisher and its watchers agree on, and how a watcher reads it.

The messages are in `wire`, the discovery files in `places`, keys in `security`; `feed` is the watcher's side. Nothing
here loads torch or the native core, but for `publisher`, which runs in the watched process.
"""

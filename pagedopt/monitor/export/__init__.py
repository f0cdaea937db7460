"""Telemetry in the formats of other programs: Prometheus and the trace viewer of Chrome."""

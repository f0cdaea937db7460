"""The side of the watched process: a thread that publishes snapshots and answers requests."""

"""The screens of `pagedopt top` and the feed behind them. Nothing here loads torch or the native core."""

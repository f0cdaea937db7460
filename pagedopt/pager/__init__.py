"""The pager: which pages move (`policy`, pure), and how much memory there is for them.

`pager` is the thread, `arenas` makes what it works on, `budget` is the rule for how much may stay; `host_memory`,
`device_memory` and `spill` say what the tiers have.
"""

"""`pagedopt top`: where it hears of processes, what it keeps of them, and its screens. No torch, no native core."""

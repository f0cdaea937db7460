"""What the publisher of a process and those who watch it agree on: messages, places, errors. No torch, no core."""

"""The `triton` command: the platform on this machine, and the demo."""

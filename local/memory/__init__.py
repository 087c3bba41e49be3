"""The ports in memory, with the semantics of the real ones: what the simulator runs on, and fast enough for it."""

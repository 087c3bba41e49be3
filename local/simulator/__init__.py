"""The deterministic simulator: the production deciders, tick and worker loop in a world of faults, under one seed."""

"""Events on their way to other systems: formats, targets, and the engine that loses none."""

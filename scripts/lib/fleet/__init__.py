"""A fleet on one machine: the parts of scripts/bench/fleet."""

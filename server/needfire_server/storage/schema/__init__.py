"""The steps that lead from an empty database to the one that this version uses."""

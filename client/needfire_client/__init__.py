"""The agent: records what the files of a host are, watches them, and reports what changes."""

"""The server: knows which agents may speak, takes their signed reports, and loses none."""

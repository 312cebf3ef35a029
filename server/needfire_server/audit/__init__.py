"""The server's audit log: what is recorded, who signs it, who notices when it was changed."""

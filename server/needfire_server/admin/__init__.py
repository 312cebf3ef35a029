"""How administrators steer the server: the socket that it listens on, and ``needfire-admin``."""

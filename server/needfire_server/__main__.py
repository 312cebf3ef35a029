"""``python -m needfire_server`` is ``needfire-server``."""

from needfire_server.entry import server

server()

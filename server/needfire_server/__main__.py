"""``python -m needfire_server`` is ``needfire-server``."""

from needfire_server.cli import main

main()

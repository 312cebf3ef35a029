"""``python -m needfire_client``: the same as ``needfire-agent``."""

import sys

from needfire_client.cli import main

sys.exit(main())

"""``python -m needfire_client``: the same as ``needfire-agent``."""

import sys

from needfire_client.start import main

sys.exit(main())

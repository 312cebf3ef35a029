"""needfire-server as it would be if the arrival of reports left no record in the audit log.

Only to be compared with the real one: there is no such setting.
"""

from needfire_server import intake
from needfire_server.entry import server

if __name__ == "__main__":
    intake.reports_draft = lambda *_: None  # type: ignore[attr-defined]
    server()

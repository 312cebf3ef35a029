"""Put the catalogue of events into docs/events.md."""

from pathlib import Path

from needfire_protocol.catalogue_page import events_page

path = Path(__file__).resolve().parents[2] / "docs/events.md"
path.write_text(events_page(), encoding="utf-8")

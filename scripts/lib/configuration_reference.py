"""Put the table of directives into docs/configuration.md, etc/agentrc and etc/serverrc."""

from pathlib import Path

from needfire_protocol.rc.reference import with_generated_regions

ROOT = Path(__file__).resolve().parents[2]

for name in ("docs/configuration.md", "etc/agentrc", "etc/serverrc"):
    path = ROOT / name
    before = path.read_text(encoding="utf-8")
    after = with_generated_regions(before)
    if after != before:
        path.write_text(after, encoding="utf-8")
    print(f"{name}: {'unchanged' if after == before else 'written'}")

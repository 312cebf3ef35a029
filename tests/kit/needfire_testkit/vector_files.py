"""What stands in the files of the test vectors, for other implementations too."""

import hmac
import sys
from pathlib import Path

from needfire_protocol.handshake import Transcript
from needfire_testkit.pairs import FAKE_SALT_KEY, NAME, PASSWORD, verifier_of
from needfire_testkit.vector_receivers import KEYS, Vector, challenged
from needfire_testkit.vectors import all_vectors

__all__ = ["file_text", "read_file", "secrets_text", "write_all"]


def file_text(vector: Vector) -> str:
    """The text of a vector's file."""
    head = {"expect": vector.expect, "receiver": vector.receiver, "comment": vector.comment}
    lines = [f"{name}: {text}" for name, text in head.items() if text]
    digits = vector.data.hex()
    rows = [digits[start : start + 64] for start in range(0, len(digits), 64)]
    return "\n".join([*lines, "", *rows, ""])


def read_file(path: Path) -> Vector:
    """The vector of a file."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    data = bytes.fromhex(body)
    return Vector(path.stem, fields["receiver"], fields["expect"], fields.get("comment", ""), data)


def secrets_text() -> str:
    """The fixed secrets that the vectors were made with, for other implementations."""
    agent, server = challenged()
    assert agent._negotiation is not None
    assert server._negotiation is not None
    challenge = server.data_to_send()
    agent.receive_data(challenge)
    transcript = Transcript()
    transcript.add(agent._negotiation.hello)
    transcript.add(challenge)
    shared = agent._negotiation._srp._user.K
    verifier = verifier_of()
    rows: dict[str, str] = {
        "name": NAME,
        "password": PASSWORD,
        "fake salt key": FAKE_SALT_KEY.hex(),
        "salt": verifier.salt.hex(),
        "verifier": verifier.verifier.hex(),
        "a": agent._negotiation._srp._user.get_ephemeral_secret().hex(),
        "b": server._negotiation._srp._verifier.get_ephemeral_secret().hex(),
        "K": shared.hex(),
        "master key": hmac.digest(transcript.digest(), shared, "sha256").hex(),
        "session id": KEYS.session_id.hex(),
        "resumption key": KEYS.resumption_key.hex(),
        "signing key": KEYS.signing_key.hex(),
    }
    return "".join(f"{name}: {value}\n" for name, value in rows.items())


def write_all(folder: Path) -> None:
    """Write every file anew, and remove those that are no vectors any more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{vector.name}.txt": file_text(vector) for vector in all_vectors()}
    wanted["SECRETS"] = secrets_text()
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))

"""An honest agent that logs in anew, again and again, in a process of its own.

In the bench's own loop it would wait for the strangers that the bench plays. Each time it begins
with neither session nor connection, and backs off as the real agent does. One line a log-in: the
seconds that it took, and how often it was turned away meanwhile. Told to end (SIGTERM), it says
the same of the one that it is at.

    python -m fleet.newcomer PORT ADDRESS PASSWORD [--resume]
"""

import asyncio
import contextlib
import random
import signal
import sys
import time

from fleet.agent import SimulatedAgent
from needfire_client.backoff import Backoff

LIMIT_S = 30.0
PAUSE_S = 0.2


async def main(port: int, address: str, password: str, *, resumes: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    agent = SimulatedAgent(address, lambda _agent, _reason: None)
    while True:
        if not resumes:
            agent.keys = None
        began_s, refused = time.monotonic(), 0
        try:
            backoff = Backoff(random.random)
            while not await is_in(agent, port, password):
                refused += 1
                await asyncio.sleep(backoff.next_delay_s())
        finally:
            print(f"{time.monotonic() - began_s:.3f} {refused}", flush=True)
        agent.close()
        await asyncio.sleep(PAUSE_S)


async def is_in(agent: SimulatedAgent, port: int, password: str) -> bool:
    try:
        await agent.connect(port, password, limit_s=LIMIT_S)
    except (OSError, TimeoutError):
        agent.close()
        return False
    return True


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(
            main(int(sys.argv[1]), sys.argv[2], sys.argv[3], resumes="--resume" in sys.argv)
        )

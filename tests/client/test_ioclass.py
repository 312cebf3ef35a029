"""A thread that scans reads when nobody else wants to, and so does what it starts."""

import threading
from concurrent.futures import ThreadPoolExecutor

from needfire_client.ioclass import be_idle_reader
from needfire_testkit.io_class import IDLE, io_class


def test_a_thread_becomes_an_idle_reader_with_what_it_starts_and_no_other_thread_does() -> None:
    before = io_class()
    inherited: list[int] = []

    def scan() -> tuple[bool, int]:
        is_idle = be_idle_reader()
        started = threading.Thread(target=lambda: inherited.append(io_class()))
        started.start()
        started.join()
        return is_idle, io_class()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(scan).result() == (True, IDLE)
    assert inherited == [IDLE]
    assert io_class() == before != IDLE

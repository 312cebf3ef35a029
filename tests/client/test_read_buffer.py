import ctypes
import mmap
from pathlib import Path

from needfire_client.attributes import Examiner
from needfire_client.read_buffer import read_buffer


def address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def test_it_begins_with_a_page() -> None:
    for size_bytes in (1, 4096, 65_536, 512 * 1024 + 1):
        buffer = read_buffer(size_bytes)
        assert len(buffer) == size_bytes
        assert address(buffer) % mmap.PAGESIZE == 0


def test_it_is_the_process_s_own() -> None:
    """Else a worker that is forked would read into what its parent is hashing."""
    begin = address(buffer := read_buffer(65_536))
    buffer[0] = 1
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_ = line.split()
        first, behind = (int(each, 16) for each in span.split("-"))
        if first <= begin < behind:
            assert permissions == "rw-p"
            break
    else:
        raise AssertionError("the buffer is mapped nowhere")


def test_files_are_read_into_such_a_buffer() -> None:
    examiner = Examiner("sha256")
    assert address(examiner._buffer) % mmap.PAGESIZE == 0

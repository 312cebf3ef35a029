"""Which bytes stand for which plain values: MessagePack, bounded and without its loopholes.

The only importer of ``msgpack``. A decoded value is made of None, bool, int, finite float, str,
bytes, list and dict with str keys, and of nothing else. Refused are: bytes beyond the value,
duplicate keys (the library lets the last one win), keys that are not text, NaN and infinities,
extension types and timestamps, and whatever exceeds the limits that the caller gives.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from io import BytesIO
from itertools import chain, islice
from typing import Any, Final

import msgpack

from needfire_protocol.errors import FormatError
from needfire_protocol.limits import DecodingLimits

__all__ = [
    "decode",
    "decode_array",
    "decode_flat",
    "decode_flat_all",
    "encode",
    "encode_array_header",
]

_PIECE_BYTES: Final = 64 * 1024
_TEXT_ONLY: Final = frozenset({str})
_PACKER: Final = threading.local()


def encode(value: object) -> bytes:
    """Return the bytes of a plain value; tuples become arrays, bytes ``bin``.

    A value of another type is a bug of ours (TypeError).

    Raises:
        FormatError: text holds half of a surrogate pair, or a number has more than 64 bits.
    """
    try:
        # Not the packer that the thread keeps (``_packer``): it would hold 256 KiB in each thread of an
        # agent for the little that is said now and then.
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"a value cannot be encoded: {error}") from error
    return packed


@lru_cache(maxsize=1024)
def encode_array_header(count: int) -> bytes:
    """Return the bytes that begin an array of so many values, as ``encode`` would."""
    packed: bytes = msgpack.Packer().pack_array_header(count)
    return packed


def decode(
    data: bytes,
    *,
    limits: DecodingLimits,
    is_only_compared: bool = False,
    as_tuples: bool = False,
) -> Any:
    """Return the value that the bytes stand for; arrays come back as lists.

    Args:
        is_only_compared: leave out the slower checks (depth, finite numbers), because the value
            is only held against another one for equality, or against the types that it must have.
        as_tuples: arrays come back as tuples, which are made in four fifths of the time. Only
            together with ``is_only_compared``: depth is counted in lists.

    Raises:
        FormatError: the bytes are not exactly one value, or it exceeds a limit.
    """
    if len(data) > limits.size_bytes_max:
        raise FormatError(f"{len(data)} encoded bytes exceed the limit of {limits.size_bytes_max}")
    try:
        value = _bounded(msgpack.unpackb, data, limits, _refuse_duplicates, as_tuples)
    except (ValueError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        # The library's text may quote the peer's bytes; its type says enough.
        raise FormatError(f"not decodable: {type(error).__name__}") from error
    if not is_only_compared:
        _check_depth(value, limits.depth_max)
    return value


def decode_array(
    data: bytes, start: int, end: int, *, limits: DecodingLimits, is_only_compared: bool = False
) -> Iterator[Any]:
    """Yield the values of the array that stands in ``data[start:end]``, one at a time.

    Args:
        is_only_compared: as for ``decode``.

    Raises:
        FormatError: as ``decode``, perhaps after some of the values.
    """
    if end - start > limits.size_bytes_max:
        raise FormatError(f"{end - start} bytes exceed the limit of {limits.size_bytes_max}")
    # Of an empty one there is nothing else to be looked at.
    _check_depth([], limits.depth_max)
    stream = BytesIO(data)
    stream.seek(start)
    try:
        reader = partial(
            msgpack.Unpacker,
            read_size=min(_PIECE_BYTES, limits.size_bytes_max),
            max_buffer_size=limits.size_bytes_max,
        )
        unpacker = _bounded(reader, stream, limits, _refuse_duplicates)
        count = unpacker.read_array_header()
        if count > limits.array_items_max:
            raise FormatError(f"{count} values exceed the limit of {limits.array_items_max}")
        for _ in range(count):
            value = unpacker.unpack()
            if not is_only_compared:
                _check_depth(value, limits.depth_max - 1)
            yield value
        if start + unpacker.tell() != end:
            raise FormatError("not decodable: the array does not end where it should")
    except (ValueError, msgpack.UnpackException, RecursionError, OverflowError) as error:
        raise FormatError(f"not decodable: {type(error).__name__}") from error


def decode_flat(data: bytes, *, limits: DecodingLimits) -> Any:
    """Return what ``decode`` does, in half the time, for a caller who looks at every part himself.

    Where the value gives the same bytes again, no key stood twice in it. What has another form is
    left to ``decode``. The caller must refuse what is no text, integer, boolean or None, and
    keys that are not text: depth, numbers and kinds of keys are not looked at here.

    Raises:
        FormatError: as ``decode``.
    """
    if len(data) <= limits.size_bytes_max:
        try:
            value = _bounded(msgpack.unpackb, data, limits)
            if _packer()(value) == data:
                return value
        except (ValueError, msgpack.UnpackException, RecursionError, OverflowError):
            pass  # The slow way finds the words for it.
    return decode(data, limits=limits)


def decode_flat_all(data: Sequence[bytes], *, limits: DecodingLimits) -> list[Any] | None:
    """Return what ``decode_flat`` returns of each, in two thirds of its time.

    None where one of them is refused, or has another form than ``encode`` gives it: ask for each
    then. All are read as one stream. That each value gives its own bytes again says where one ends
    and the next begins, as well as that no key stood twice.
    """
    if max(map(len, data), default=0) > limits.size_bytes_max:
        return None
    stream = b"".join(data)
    try:
        unpacker = _bounded(partial(msgpack.Unpacker, max_buffer_size=len(stream)), None, limits)
        unpacker.feed(stream)
        # One more shows that these are too many; a peer's bytes could be a million values.
        values = list(islice(unpacker, len(data) + 1))
        is_whole = list(map(_packer(), values)) == list(data)
    except (FormatError, ValueError, msgpack.UnpackException, RecursionError, OverflowError):
        return None
    return values if is_whole else None


def _bounded(
    read: Callable[..., Any],
    source: bytes | BytesIO | None,
    limits: DecodingLimits,
    pairs_hook: Callable[[list[tuple[object, object]]], object] | None = None,
    as_tuples: bool = False,
) -> Any:
    """Call a reader of the library with what keeps every reading within its limits.

    The one place of these options. They are spelled out at each call because the library needs a
    microsecond more for options that were prepared once and come as ``**options``: as much as for
    all of a small message.
    """
    return read(
        source,
        raw=False,
        use_list=not as_tuples,
        strict_map_key=True,
        max_str_len=limits.text_bytes_max,
        max_bin_len=limits.binary_bytes_max,
        max_array_len=limits.array_items_max,
        max_map_len=limits.map_items_max,
        max_ext_len=0,
        ext_hook=_refuse_extension,
        object_pairs_hook=pairs_hook,
    )


def _packer() -> Callable[[object], bytes]:
    """Return the packer of this thread: making one costs more than its work."""
    try:
        pack: Callable[[object], bytes] = _PACKER.pack
    except AttributeError:
        pack = _PACKER.pack = msgpack.Packer(use_bin_type=True).pack
    return pack


def _refuse_extension(code: int, _data: bytes) -> object:
    raise FormatError(f"extension type {code} is not allowed")


def _refuse_duplicates(pairs: list[tuple[object, object]]) -> dict[object, object]:
    merged = dict(pairs)
    if len(merged) != len(pairs):
        raise FormatError("a key stands twice in a map")
    if not _TEXT_ONLY.issuperset(map(type, merged)):
        raise FormatError("a key of a map is not text")
    return merged


def _check_depth(value: Any, depth_max: int) -> None:
    """Walk level by level, not by recursion: the depth is the peer's choice."""
    level: Iterable[Any] = (value,)
    for _ in range(depth_max + 1):
        containers: list[Iterable[Any]] = []
        # The decoder makes no subclasses; most of what it makes is text and numbers.
        for item in level:
            kind = type(item)
            if kind is str or kind is int:
                continue
            if kind is dict:
                containers.append(item.values())
            elif kind is list:
                containers.append(item)
            elif kind is float and not math.isfinite(item):
                raise FormatError("a number is not finite")
        if not containers:
            return
        level = chain.from_iterable(containers)
    raise FormatError(f"values are nested deeper than {depth_max}")

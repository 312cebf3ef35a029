"""Questions about one key each, asked of the database together.

When a fleet comes back, a server on a shared store asks about each agent. One at a time, that is a
round trip and a millisecond of CPU for each of a dozen statements; so what is asked while an answer
is under way waits, and is asked with the next question: none of them waits for a clock.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final, Generic, TypeVar

from needfire_protocol.errors import StorageError

__all__ = ["GatheredReads"]

K = TypeVar("K")
V = TypeVar("V")

_TOGETHER_MAX: Final = 64
"""Keys of one question: its answer is a few hundred kilobytes at most, and a few milliseconds."""


class GatheredReads(Generic[K, V]):
    """Asks about many keys at once. In the event loop's thread.

    Args:
        ask: begins to ask about each of the keys that it is given, none of them twice. What is
            answered about one may be an error, which only those get who asked about that one; an
            error instead of answers, all get.
    """

    def __init__(
        self, ask: Callable[[Sequence[K]], asyncio.Future[Mapping[K, V | StorageError]]]
    ) -> None:
        self._ask = ask
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}
        self._is_asking = False

    async def get(self, key: K) -> V:
        """Return what the database says of a key; it is read after this was called.

        Raises:
            StorageError: the database cannot be read, or what it has of this key cannot.
        """
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if not self._is_asking:
            self._next()
        return await answer

    def _next(self) -> None:
        keys = list(islice(self._waiting, _TOGETHER_MAX))
        # Taken out first: who asks about one of them from now on is to hear what is true then.
        asked = {key: self._waiting.pop(key) for key in keys}
        try:
            question = self._ask(keys)
        except StorageError as error:
            _tell_all(asked, dict.fromkeys(keys, error))
            return
        self._is_asking = True
        question.add_done_callback(partial(self._answered, asked))

    def _answered(
        self,
        asked: Mapping[K, Sequence[asyncio.Future[V]]],
        question: asyncio.Future[Mapping[K, V | StorageError]],
    ) -> None:
        self._is_asking = False
        if question.cancelled():
            for answer in chain(*asked.values()):
                answer.cancel()
        elif (error := question.exception()) is not None:
            _tell_all(asked, dict.fromkeys(asked, error))
        else:
            _tell_all(asked, question.result())
        while self._waiting and not self._is_asking:
            self._next()


def _tell_all(
    asked: Mapping[K, Sequence[asyncio.Future[V]]], answers: Mapping[K, V | BaseException]
) -> None:
    for key, waiting in asked.items():
        said = answers[key]
        for answer in waiting:
            if answer.done():  # who asked was cancelled
                continue
            if isinstance(said, BaseException):
                answer.set_exception(said)
            else:
                answer.set_result(said)

"""One trouble is said once, and again when it changes or after a while."""

from needfire_client.repeats import REPEAT_S, RepeatFilter


def test_the_same_trouble_is_news_once() -> None:
    told = RepeatFilter()
    assert [told.is_news("refused", second) for second in range(5)] == [True] + [False] * 4


def test_another_trouble_is_news() -> None:
    told = RepeatFilter()
    assert told.is_news("refused", 0)
    assert told.is_news("reset", 1)
    assert told.is_news("refused", 2)


def test_it_is_said_again_after_ten_minutes_and_not_before() -> None:
    told = RepeatFilter()
    assert told.is_news("refused", 100)
    assert not told.is_news("refused", 100 + REPEAT_S - 0.001)
    assert told.is_news("refused", 100 + REPEAT_S)


def test_after_it_was_over_it_is_news_again() -> None:
    told = RepeatFilter()
    assert told.is_news("refused", 0)
    told.clear()
    assert told.is_news("refused", 1)

"""One thing is told as one."""

from needfire_protocol.counted import counted


def test_only_one_thing_has_no_s() -> None:
    assert [counted(number, "rule") for number in (0, 1, 2)] == ["0 rules", "1 rule", "2 rules"]

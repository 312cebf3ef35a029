from needfire_client.receipt import Skipped


def test_nothing_skipped_is_said() -> None:
    assert Skipped().fields() == {"skipped": 0}


def test_reasons_are_counted_and_paths_are_named() -> None:
    skipped = Skipped()
    skipped.add(b"/a b", "Permission denied")
    skipped.add(b"/c\n", "sparse")
    skipped.add(b"/d", "sparse")
    assert skipped.fields() == {
        "skipped": 3,
        "skipped_why": "sparse: 2; Permission denied: 1",
        "skipped_paths": "/a\\x20b /c\\x0a /d",
    }


def test_both_are_bounded_and_the_count_is_not() -> None:
    skipped = Skipped()
    for number in range(1000):
        skipped.add(b"/%d" % number, f"reason {number}")
    fields = skipped.fields()
    assert fields["skipped"] == 1000
    assert str(fields["skipped_paths"]).endswith("/19 and 980 more")
    assert str(fields["skipped_why"]).startswith("other reasons: 984; ")


def test_long_paths_do_not_make_a_long_receipt() -> None:
    skipped = Skipped()
    for _ in range(10):
        skipped.add(b"/" + b"\xff" * 4000, "Permission denied")
    assert skipped.fields()["skipped_paths"] == "and 10 more"

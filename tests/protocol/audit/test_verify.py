"""Whatever is done to a log is found, with the right word for it and the right place.

The mutation suite: each kind of tampering, at a sample of places of a log of a few thousand
records. It is a gate: a single one that goes through, or that gets another name, fails it.
"""

import random
from collections.abc import Sequence

import pytest

from needfire_protocol.audit.export import checkpoint_line, header_line
from needfire_protocol.audit.merkle import Frontier, leaf_hash
from needfire_protocol.audit.note import Checkpoint, Note, parse_note, public_key_of, sign_note
from needfire_protocol.audit.record import (
    Draft,
    Moment,
    encode_record,
    parse_head,
    parse_record,
)
from needfire_protocol.audit.verdict import Verdict, Verification
from needfire_protocol.audit.verify import verify
from needfire_testkit.audit_logs import (
    ORIGIN,
    AuditLog,
    grown_log,
    lines_of,
    private_key,
    with_newlines,
)

RECORDS = 2_000
EVERY = 200
HAND_OVER = 1_130
LOG = grown_log(RECORDS, every=EVERY, hand_over_at=HAND_OVER)
LINES = LOG.export()
DATA = b"".join(LINES)
KEY = LOG.keys[0]

RECORD_LINES = [i for i, line in enumerate(LINES) if parse_head(line[:-1]) is not None]
CHECKPOINT_LINES = [i for i, line in enumerate(LINES) if line.startswith(b'{"checkpoint"')]
# Both ends, both sides of a checkpoint, both sides of the new key, and some anywhere.
SAMPLE = sorted(
    {0, 1, 2, EVERY - 2, EVERY - 1, EVERY, EVERY + 1, HAND_OVER - 1, HAND_OVER, HAND_OVER + 1}
    | {RECORDS - 3, RECORDS - 2, RECORDS - 1}
    | set(random.Random(7).sample(range(RECORDS), 5))
)


def check(lines: Sequence[bytes], **kw: object) -> Verification:
    return verify(lines, [KEY], **kw)  # type: ignore[arg-type]


def verdict(lines: Sequence[bytes], **kw: object) -> Verdict | None:
    finding = check(lines, **kw).finding
    return None if finding is None else finding.verdict


def expect(lines: Sequence[bytes], wanted: Verdict, number: int, **kw: object) -> None:
    """The word is the right one, and the first bad record is it, or within what is named."""
    finding = check(lines, **kw).finding
    assert finding is not None, "not found"
    assert (finding.verdict, finding.first <= number <= finding.last) == (wanted, True), finding


def line_of(number: int) -> int:
    return RECORD_LINES[number]


def changed(line: bytes) -> bytes:
    """The same record with another text in it, written as a server would."""
    record = parse_record(line[:-1])
    draft = Draft(record.draft.code, False, "mallory", None, None, {"what": "nothing happened"})
    return encode_record(record.number, record.previous, record.moment, draft) + b"\n"


def test_an_intact_log_is_intact() -> None:
    result = check(LINES)
    assert result.finding is None
    assert (result.records, result.checkpoints) == (RECORDS, len(CHECKPOINT_LINES))
    assert result.closing is not None
    assert result.closing.size == RECORDS


@pytest.mark.parametrize("key", LOG.keys)
def test_any_key_that_the_log_had_is_enough(key: object) -> None:
    assert verify(LINES, [key]).finding is None  # type: ignore[list-item]


# ---- flip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SAMPLE)
def test_a_flipped_bit_anywhere_in_a_record_is_a_change_of_that_record(number: int) -> None:
    line = LINES[line_of(number)]
    drawn = random.Random(number)
    places = {0, 1, 5, 6, 12, 30, 80, 90, len(line) - 2, len(line) - 1}
    places |= set(drawn.sample(range(len(line)), 7))
    for place in sorted(place for place in places if place < len(line)):
        flipped = bytearray(line)
        flipped[place] ^= 1 << drawn.randrange(8)
        data = b"".join([*LINES[: line_of(number)], bytes(flipped), *LINES[line_of(number) + 1 :]])
        expect(lines_of(data), Verdict.CHANGED, number)


@pytest.mark.parametrize("number", SAMPLE)
def test_a_record_that_says_something_else_is_a_change_of_it(number: int) -> None:
    lines = list(LINES)
    lines[line_of(number)] = changed(lines[line_of(number)])
    expect(lines, Verdict.CHANGED, number)


@pytest.mark.parametrize("place", CHECKPOINT_LINES)
def test_a_flipped_bit_in_a_checkpoint_is_found(place: int) -> None:
    line = LINES[place]
    drawn = random.Random(place)
    for at in drawn.sample(range(len(line) - 1), 25):
        flipped = bytearray(line)
        flipped[at] ^= 1 << drawn.randrange(7)
        lines = lines_of(b"".join([*LINES[:place], bytes(flipped), *LINES[place + 1 :]]))
        # A flipped name or key id is another key's, as far as anybody can tell.
        assert verdict(lines) in (Verdict.CHANGED, Verdict.WRONG_KEY), (at, bytes(flipped))


def test_a_flipped_bit_in_the_header_is_found() -> None:
    drawn = random.Random(1)
    for at in range(0, len(LINES[0]) - 1, 3):
        flipped = bytearray(LINES[0])
        flipped[at] ^= 1 << drawn.randrange(7)
        lines = lines_of(bytes(flipped) + b"".join(LINES[1:200]))
        assert verdict(lines) is not None, at


# ---- delete, insert, swap --------------------------------------------------------------------


@pytest.mark.parametrize("number", SAMPLE)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_deleted_records_are_removed_ones(number: int, count: int) -> None:
    doomed = {line_of(each) for each in range(number, min(number + count, RECORDS))}
    is_end = number + count >= RECORDS
    kept = [line for i, line in enumerate(LINES) if i not in doomed]
    expect(kept, Verdict.CUT_OFF if is_end else Verdict.REMOVED, number)


@pytest.mark.parametrize(
    ("count", "text"), [(1, "record 40 is missing"), (2, "records 40 to 41 are missing")]
)
def test_how_many_records_are_missing_is_said(count: int, text: str) -> None:
    finding = check(LINES[: line_of(40)] + LINES[line_of(40 + count) :]).finding
    assert finding is not None
    assert finding.text == text


def test_a_large_part_that_is_deleted_with_its_checkpoints_is_removed() -> None:
    expect(LINES[: line_of(500)] + LINES[line_of(1_500) :], Verdict.REMOVED, 500)


@pytest.mark.parametrize("number", SAMPLE)
@pytest.mark.parametrize("source", [0, 17, RECORDS - 1])
def test_a_copy_of_another_record_is_inserted(number: int, source: int) -> None:
    place = line_of(number) + 1
    lines = [*LINES[:place], LINES[line_of(source)], *LINES[place:]]
    finding = check(lines).finding
    assert finding is not None
    assert finding.verdict is Verdict.INSERTED
    # Of two that are the same, the second one is too many.
    assert finding.first == (source + 1 if source == number + 1 else number + 1)


@pytest.mark.parametrize("number", SAMPLE)
def test_a_forged_record_that_fits_its_predecessor_is_inserted(number: int) -> None:
    place = line_of(number)
    lines = [*LINES[:place], changed(LINES[place]), *LINES[place:]]
    expect(lines, Verdict.INSERTED, number)


@pytest.mark.parametrize("number", SAMPLE)
@pytest.mark.parametrize("junk", [b"\n", b"junk\n", b"{}\n", b'{"n":5}\n'])
def test_a_line_that_is_nothing_is_inserted(number: int, junk: bytes) -> None:
    place = line_of(number)
    expect([*LINES[:place], junk, *LINES[place:]], Verdict.INSERTED, number)


@pytest.mark.parametrize("number", [n for n in SAMPLE if n < RECORDS - 1])
@pytest.mark.parametrize("distance", [1, 3, 600])
def test_two_records_that_change_places_are_reordered(number: int, distance: int) -> None:
    if (other := number + distance) >= RECORDS:
        other = RECORDS - 1
    lines = list(LINES)
    first, second = line_of(number), line_of(other)
    lines[first], lines[second] = lines[second], lines[first]
    expect(lines, Verdict.REORDERED, number)


@pytest.mark.parametrize("number", [n for n in SAMPLE if n < RECORDS - 60])
def test_a_record_that_is_moved_is_reordered(number: int) -> None:
    lines = list(LINES)
    moved = lines.pop(line_of(number))
    lines.insert(line_of(number + 50), moved)
    expect(lines, Verdict.REORDERED, number)
    lines = list(LINES)
    moved = lines.pop(line_of(number + 50))
    lines.insert(line_of(number), moved)
    expect(lines, Verdict.REORDERED, number)


def test_a_forged_tail_with_a_right_chain_does_not_fit_its_checkpoint() -> None:
    """Somebody who has no key rewrites everything from record 1,500 on."""
    begin = 1_500
    lines, previous = list(LINES), leaf_hash(LINES[line_of(begin - 1)][:-1])
    for number in range(begin, RECORDS):
        old = parse_record(LINES[line_of(number)][:-1])
        draft = Draft(old.draft.code, True, "root", None, None, {"what": "all is well"})
        line = encode_record(number, previous, old.moment, draft)
        lines[line_of(number)], previous = line + b"\n", leaf_hash(line)
    expect(lines, Verdict.CHANGED, begin)


def test_a_record_that_is_forged_in_with_a_right_chain_is_inserted() -> None:
    begin, made = 1_500, []
    previous = leaf_hash(LINES[line_of(begin - 1)][:-1])
    for number in range(begin, 1_601):
        draft = Draft("CLIENT_REMOVED", True, "root")
        line = encode_record(number, previous, Moment(1, 1), draft)
        made.append(line)
        previous = leaf_hash(line)
    lines = [*LINES[: line_of(begin)], *with_newlines(made), *LINES[line_of(1_599) + 1 :]]
    expect(lines, Verdict.INSERTED, begin)


# ---- cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SAMPLE)
def test_a_log_that_is_cut_at_any_byte_is_cut_off(number: int) -> None:
    begin = sum(map(len, LINES[: line_of(number)]))
    length = len(LINES[line_of(number)])
    drawn = random.Random(number)
    for at in {0, 1, length - 1, *drawn.sample(range(length), 5)}:
        finding = check(lines_of(DATA[: begin + at])).finding
        assert finding is not None
        assert finding.verdict is Verdict.CUT_OFF
        assert finding.first == number


def test_a_log_that_is_cut_within_its_header_is_cut_off() -> None:
    for at in range(0, len(LINES[0]), 5):
        expect(lines_of(DATA[:at]), Verdict.CUT_OFF, 0)


@pytest.mark.parametrize("place", CHECKPOINT_LINES[:-1])
def test_a_log_that_is_cut_at_a_checkpoint_is_cut_off(place: int) -> None:
    records = sum(1 for each in RECORD_LINES if each < place)
    expect(LINES[: place + 1], Verdict.CUT_OFF, records)


def test_a_log_whose_last_checkpoint_is_torn_is_cut_off() -> None:
    for at in range(1, len(LINES[-1])):
        expect(lines_of(DATA[:-at]), Verdict.CUT_OFF, RECORDS)


@pytest.mark.parametrize("place", CHECKPOINT_LINES[:-1])
def test_a_cut_with_an_older_header_is_known_by_a_checkpoint_kept_elsewhere(place: int) -> None:
    """The one cut that the file alone cannot tell: it is an honest export of an earlier day."""
    note = LOG.notes[CHECKPOINT_LINES.index(place)]
    keys = LOG.keys[:1] if place < line_of(HAND_OVER) else LOG.keys
    lines = [header_line(keys, note) + b"\n", *LINES[1 : place + 1]]
    assert verdict(lines) is None
    records = sum(1 for each in RECORD_LINES if each < place)
    expect(lines, Verdict.CUT_OFF, records, anchor=parse_note(LOG.notes[-1]))


# ---- checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", CHECKPOINT_LINES)
def test_a_checkpoint_that_is_taken_out_is_missing(place: int) -> None:
    assert verdict([*LINES[:place], *LINES[place + 1 :]]) is Verdict.MISSING_CHECKPOINT


def test_a_log_without_its_header_misses_its_closing_checkpoint() -> None:
    assert verdict(LINES[1:]) is Verdict.MISSING_CHECKPOINT


@pytest.mark.parametrize("place", CHECKPOINT_LINES[2:])
@pytest.mark.parametrize("old", [0, 1])
def test_an_old_checkpoint_in_the_place_of_a_new_one_is_a_missing_one(place: int, old: int) -> None:
    lines = list(LINES)
    lines[place] = LINES[CHECKPOINT_LINES[old]]
    # After the new key the old key's signature is a wrong one, whatever it says.
    allowed = {Verdict.MISSING_CHECKPOINT}
    if place > line_of(HAND_OVER):
        allowed.add(Verdict.WRONG_KEY)
    assert verdict(lines) in allowed


@pytest.mark.parametrize("old", [0, 3, len(LOG.notes) - 2])
def test_an_old_checkpoint_in_the_header_is_a_missing_one(old: int) -> None:
    lines = LOG.export(closing=LOG.notes[old])
    assert verdict(lines) is Verdict.MISSING_CHECKPOINT


def test_an_old_checkpoint_beside_the_new_one_is_inserted() -> None:
    place = CHECKPOINT_LINES[3]
    old = LINES[CHECKPOINT_LINES[1]]
    assert verdict([*LINES[:place], old, *LINES[place:]]) is Verdict.INSERTED
    assert verdict([*LINES[: place + 1], LINES[place], *LINES[place + 1 :]]) is Verdict.INSERTED


@pytest.mark.parametrize("place", CHECKPOINT_LINES[:-1])
@pytest.mark.parametrize("distance", [-2, -1, 1, 30])
def test_a_checkpoint_in_another_place_is_reordered(place: int, distance: int) -> None:
    lines = list(LINES)
    lines.insert(place + distance, lines.pop(place))
    assert verdict(lines) is Verdict.REORDERED


def test_two_checkpoints_that_change_places_are_reordered() -> None:
    lines = list(LINES)
    first, second = CHECKPOINT_LINES[1], CHECKPOINT_LINES[3]
    lines[first], lines[second] = lines[second], lines[first]
    assert verdict(lines) is Verdict.REORDERED


# ---- keys ------------------------------------------------------------------------------------


def test_none_of_a_thousand_wrong_keys_is_accepted() -> None:
    accepted = 0
    for number in range(1_000):
        key = public_key_of(ORIGIN, private_key(1_000 + number))
        finding = verify(LINES, [key]).finding
        accepted += finding is None
        assert finding is not None
        assert finding.verdict is Verdict.WRONG_KEY
    assert accepted == 0


def test_a_wrong_key_is_not_accepted_where_the_header_lies() -> None:
    wrong = public_key_of(ORIGIN, private_key(99))
    lines = [header_line([*LOG.keys, wrong], LOG.notes[-1]) + b"\n", *LINES[1:]]
    assert verify(lines, [wrong]).finding is not None


def signed_anew(log: AuditLog, number: int) -> list[bytes]:
    """The same records, with every checkpoint signed by another key."""
    private = private_key(number)
    lines = []
    for note in log.notes:
        text = parse_note(note).text
        lines.append(checkpoint_line(sign_note(text, log.origin, private)))
    notes = iter(lines)
    body = [next(notes) if line.startswith(b'{"checkpoint"') else line for line in log.lines]
    closing = sign_note(parse_note(log.notes[-1]).text, log.origin, private)
    return with_newlines([header_line(log.keys, closing), *body])


def test_checkpoints_of_another_key_are_of_a_wrong_key() -> None:
    assert verdict(signed_anew(LOG, 66)) is Verdict.WRONG_KEY


def test_a_whole_log_of_another_key_is_of_a_wrong_key() -> None:
    forged = AuditLog(private=private_key(66))
    for _ in range(100):
        forged.add()
    forged.checkpoint()
    assert verdict(forged.export()) is Verdict.WRONG_KEY
    # Naming the true key among its own does not help, wherever it is named.
    lines = with_newlines([header_line([KEY, forged.key], forged.notes[-1]), *forged.lines])
    assert verdict(lines) is not None


def test_a_forger_cannot_hand_over_to_the_true_key_and_sign_with_his_own() -> None:
    forged = AuditLog(private=private_key(66))
    forged.add()
    forged.checkpoint()
    forged.hand_over(private_key(1))
    forged.private = private_key(66)
    forged.add()
    forged.checkpoint()
    assert verify(forged.export(), [KEY]).finding is not None
    # Nor in what nothing has signed yet.
    live = AuditLog(private=private_key(66))
    live.checkpoint()
    live.hand_over(private_key(1))
    finding = verify(live.export(), [KEY], is_live=True).finding
    assert finding is not None
    assert finding.verdict is Verdict.WRONG_KEY


def test_a_key_that_the_key_before_did_not_name_is_a_wrong_one() -> None:
    log = AuditLog()
    log.checkpoint()
    log.private = private_key(66)
    log.hand_over(private_key(67))
    log.checkpoint()
    assert verify(log.export(), [KEY]).finding is not None


# ---- two logs --------------------------------------------------------------------------------


def other_log() -> AuditLog:
    log = AuditLog(origin="needfire.audit/ff", private=private_key(5), word="other")
    for _ in range(300):
        log.add()
    log.checkpoint()
    return log


def test_two_logs_in_one_file_are_found() -> None:
    expect([*LINES, *other_log().export()], Verdict.INSERTED, RECORDS)
    expect([*LINES, *LINES], Verdict.INSERTED, RECORDS)
    expect([*LINES, *other_log().export()[1:]], Verdict.INSERTED, RECORDS)


def test_a_log_that_goes_on_with_another_is_found() -> None:
    place = line_of(500)
    assert verdict([*LINES[:place], *other_log().export()[200:]]) is not None


# ---- checkpoints kept elsewhere, and logs that are still written --------------------------------


def test_a_checkpoint_kept_elsewhere_is_found_in_the_log() -> None:
    for note in LOG.notes:
        assert verdict(LINES, anchor=parse_note(note)) is None


def test_a_rewritten_log_with_the_true_key_does_not_hold_what_was_kept() -> None:
    """The server itself lies: it has the key and signs another history."""
    rewritten = AuditLog(word="rewritten")
    while rewritten.frontier.size < RECORDS:
        rewritten.add()
    rewritten.checkpoint()
    assert verdict(rewritten.export()) is None
    expect(rewritten.export(), Verdict.CHANGED, 1, anchor=parse_note(LOG.notes[0]))


def test_a_kept_checkpoint_of_a_wrong_key_is_said_to_be_one() -> None:
    frontier = Frontier()
    for number in range(10):
        frontier.append(leaf_hash(LINES[line_of(number)][:-1]))
    text = Checkpoint(ORIGIN, 10, frontier.root(), 1).text()
    note: Note = parse_note(sign_note(text, ORIGIN, private_key(66)))
    assert verdict(LINES, anchor=note) is Verdict.WRONG_KEY


def test_what_is_behind_the_last_checkpoint_is_counted_while_a_log_is_written() -> None:
    log = AuditLog()
    log.add()
    log.checkpoint()
    log.add()
    log.add()
    live = verify(log.export(), [log.key], is_live=True)
    assert (live.finding, live.records, live.unsigned) == (None, 4, 2)
    assert verdict(log.export()) is Verdict.INSERTED
    expect(log.export(), Verdict.CUT_OFF, 4, is_live=True, size=5)


def test_a_log_without_a_line_is_cut_off() -> None:
    expect([], Verdict.CUT_OFF, 0)


def test_a_line_beyond_all_bounds_is_a_change() -> None:
    place = line_of(10)
    lines = [*LINES[:place], b"x" * 1_000, b"y" * 1_000, LINES[place], *LINES[place + 1 :]]
    assert verdict(lines) is not None


# ---- which record it is, and words for people ------------------------------------------------------


def small_log(signed_at: Sequence[int], records: int = 8) -> AuditLog:
    log = AuditLog()
    while log.frontier.size < records:
        log.add()
        if log.frontier.size in signed_at:
            log.checkpoint()
    return log


@pytest.mark.parametrize("signed_at", [(8,), (3, 8), (6, 8), (7, 8), (3,), (6,), (7,), (4, 7)])
@pytest.mark.parametrize("number", range(8))
def test_a_changed_record_is_named_itself_wherever_checkpoints_are(
    signed_at: tuple[int, ...], number: int
) -> None:
    """Also at the end of a log that is still written, where the server knows its last record."""
    log = small_log(signed_at)
    lines = log.export()
    place = next(i for i, line in enumerate(lines) if line.startswith(b'{"n":%d,' % number))
    lines[place] = changed(lines[place])
    result = verify(lines, [log.key], is_live=True, size=8, tip=log.previous).finding
    assert result is not None
    assert (result.verdict, result.last) == (Verdict.CHANGED, number)
    if number < 7:
        assert result.first == number
    else:
        # No record vouches for the last one: those before it may have been made to fit it.
        signed = [0, *(each for each in signed_at if each <= number)]
        assert result.first == signed[-1]


@pytest.mark.parametrize(
    ("records", "verdict"), [(5, Verdict.CUT_OFF), (6, Verdict.CHANGED), (9, Verdict.CHANGED)]
)
def test_another_history_is_told_by_its_records_though_its_checkpoints_have_the_same_numbers(
    records: int, verdict: Verdict
) -> None:
    kept = parse_note(small_log((2, 6)).notes[1])
    other = AuditLog()
    while other.frontier.size < records:
        other.add()
        if other.frontier.size in (2, 4):
            other.checkpoint()
            other.word = "another event"
    other.checkpoint()
    finding = verify(other.export(), [other.key], anchor=kept).finding
    assert finding is not None
    assert finding.verdict is verdict


def test_a_last_hash_that_fits_no_record_names_the_last_one_though_all_are_signed() -> None:
    log = small_log((8,))
    finding = verify(log.export(), [log.key], is_live=True, size=8, tip=bytes(32)).finding
    assert finding is not None
    assert (finding.verdict, finding.first, finding.last) == (Verdict.CHANGED, 7, 7)


def test_without_the_last_hash_both_records_are_named_that_it_may_be() -> None:
    log = small_log((4,))
    lines = log.export()
    lines[-2] = changed(lines[-2])
    finding = verify(lines, [log.key], is_live=True).finding
    assert finding is not None
    assert (finding.verdict, finding.first, finding.last) == (Verdict.CHANGED, 6, 7)


@pytest.mark.parametrize("keep", [0, 1])
def test_a_log_without_any_record_is_cut_off(keep: int) -> None:
    lines = [line for line in LINES if parse_head(line[:-1]) is None]
    expect(lines, Verdict.CUT_OFF, 0)
    # The first checkpoint alone, or none.
    expect(lines[: 1 + keep], Verdict.CUT_OFF, 0)


def test_a_log_without_its_first_part_is_one_of_which_records_are_removed() -> None:
    expect([LINES[0], *LINES[CHECKPOINT_LINES[0] :]], Verdict.REMOVED, 0)


@pytest.mark.parametrize("lines", [[b"\n"], [b"\n", b"\n"], [b"\r\n"]])
def test_an_empty_line_behind_the_log_is_told_in_words(lines: list[bytes]) -> None:
    finding = check([*LINES, *lines]).finding
    assert finding is not None
    assert (finding.verdict, finding.first) == (Verdict.INSERTED, RECORDS)
    assert "an empty line" in finding.text


def test_line_ends_of_another_system_are_told_in_words() -> None:
    finding = check([line[:-1] + b"\r\n" for line in LINES]).finding
    assert finding is not None
    assert finding.verdict is Verdict.CHANGED
    assert "CR LF" in finding.text
    assert "byte for byte" in finding.text

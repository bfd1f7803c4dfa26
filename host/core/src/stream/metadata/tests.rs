use super::*;

fn ranges(offsets: impl IntoIterator<Item = Offset>) -> impl Iterator<Item = Range<Offset>> {
    offsets.into_iter().map(|offset| offset..offset + 1)
}

fn marked(marks: &Marks) -> Vec<Offset> {
    marks.ranges().iter().cloned().flatten().collect()
}

/// A text of version 1, whatever is in it.
fn forged(kind: u8, base: Offset, body: &[u8]) -> String {
    let mut rest = Vec::new();
    number(base, &mut rest);
    rest.extend_from_slice(body);
    text(kind, &rest)
}

fn forged_runs(base: Offset, numbers: &[u64]) -> String {
    let mut body = Vec::new();
    numbers.iter().for_each(|one| number(*one, &mut body));
    forged(KIND_RUNS, base, &body)
}

/// Commits of version 1 that brokers keep: whatever version is current, it reads them.
const VERSION_1: [(&str, Offset, &[Offset]); 3] =
    [("", 7, &[]), ("cAEBkmZUxAEX", 1, &[1, 2, 3, 5]), ("cAEA8asoiAAFAQQB6AcB", 0, &[5, 10, 1011])];

#[test]
fn texts_of_version_1_are_read() {
    for (text, base, offsets) in VERSION_1 {
        assert_eq!(encode_ranges(base, ranges(offsets.iter().copied())), text, "{offsets:?}");
        assert_eq!(decode(text, base, None).map(|marks| marked(&marks)), Ok(offsets.to_vec()));
    }
}

#[test]
fn unreadable_metadata_means_none_and_never_one_less() {
    let good = encode_ranges(100, ranges([101, 103]));
    let check = |text: &str, position, log_end, why| assert_eq!(decode(text, position, log_end), Err(why), "{text}");
    check(&good, 99, None, Unreadable::OtherBase(100));
    check(&good, 101, None, Unreadable::OtherBase(100));
    check(&good, 100, Some(103), Unreadable::BeyondTheLog(103));
    check("B99:ce08", 100, None, Unreadable::Foreign);
    check("R0,5,10", 100, None, Unreadable::Foreign);
    check("AAAA", 100, None, Unreadable::Foreign);
    check(&"A".repeat(MAX_TEXT_BYTES + 1), 100, None, Unreadable::Foreign);
    check(&forged(2, 100, &[]), 100, None, Unreadable::Foreign);
    check(&format!("{good}="), 100, None, Unreadable::Foreign);
    assert_eq!(decode(&good, 100, Some(104)).map(|marks| marked(&marks)), Ok(vec![101, 103]));
}

#[test]
fn a_text_that_was_changed_marks_nothing() {
    let good = encode_ranges(100, ranges([101, 103, 110, 200]));
    for at in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("it is ASCII");
        assert!(decode(&changed, 100, None).is_err(), "{changed}");
        assert!(decode(&good[..at], 100, None).is_err() || at == 0);
    }
}

#[test]
fn a_forged_run_length_marks_nothing() {
    let billions = forged_runs(100, &[1, 4_000_000_000]);
    assert_eq!(decode(&billions, 100, Some(1000)), Err(Unreadable::BeyondTheLog(4_000_000_100)));
    assert_eq!(decode(&billions, 100, None), Err(Unreadable::TooMany));
    assert_eq!(decode(&billions, 100, Some(5_000_000_000)), Err(Unreadable::TooMany));
    for numbers in [&[1, u64::MAX][..], &[u64::MAX, 1], &[1, u64::MAX - 102, 1, 1], &[1, 0], &[1]] {
        assert_eq!(decode(&forged_runs(100, numbers), 100, None), Err(Unreadable::Damaged), "{numbers:?}");
    }
    let many: Vec<u64> = std::iter::repeat_n(MAX_MARKED / 4, 20).collect();
    assert_eq!(decode(&forged_runs(0, &many), 0, None), Err(Unreadable::TooMany));
    assert_eq!(decode(&forged(KIND_BITMAP, u64::MAX, &[1]), u64::MAX, None), Err(Unreadable::Damaged));
    // A number of more than 64 bits, and one without an end.
    assert_eq!(decode(&forged(KIND_RUNS, 0, &[0x80; 12]), 0, None), Err(Unreadable::Damaged));
    assert_eq!(decode(&forged(KIND_RUNS, 0, &[0xff; 10]), 0, None), Err(Unreadable::Damaged));
}

#[test]
fn the_shorter_form_is_taken_and_the_one_that_marks_more() {
    let kind = |offsets: Vec<Offset>| {
        let bytes = URL_SAFE_NO_PAD.decode(encode_ranges(0, ranges(offsets))).expect("it is base64");
        bytes[2]
    };
    assert_eq!(kind((0..1000).collect()), KIND_RUNS);
    assert_eq!(kind((0..1000).step_by(2).collect()), KIND_BITMAP);
    // Neither holds all of it: here a bitmap holds 12,000 and runs 1,500, there it is the other way round.
    assert_eq!(kind((0..100_000).step_by(2).collect()), KIND_BITMAP);
    assert_eq!(kind((0..1_000_000).step_by(200).collect()), KIND_RUNS);
}

#[test]
fn what_does_not_fit_is_cut_to_its_longest_prefix() {
    for step in [2, 3, 50, 1000, 100_000] {
        let all: Vec<Offset> = (1..5_000_000_u64).step_by(step).take(50_000).collect();
        let text = encode_ranges(0, ranges(all.iter().copied()));
        assert!(text.len() <= MAX_TEXT_BYTES && (text.len() > 4000 || all.len() < 1000), "{}", text.len());
        let marks = marked(&decode(&text, 0, None).expect("it is read"));
        assert!(all.starts_with(&marks) && marks.len() > 40, "{step}: {}", marks.len());
    }
    let long = encode_ranges(5, std::iter::once(6..6 + 3 * MAX_MARKED));
    let marks = decode(&long, 5, None).expect("it is read");
    assert_eq!((marks.ranges()[0].clone(), marks.len()), (6..6 + MAX_MARKED, MAX_MARKED));
}

#[test]
fn marks_are_taken_in_rising_order() {
    let mut marks = decode(&encode_ranges(0, ranges([2, 3, 7])), 0, None).expect("it is read");
    assert_eq!((marks.len(), marks.is_empty()), (3, false));
    assert_eq!([0, 2, 4, 7, 8].map(|offset| marks.take(offset)), [false, true, false, true, false]);
    let mut marks = decode(&encode_ranges(0, ranges([2, 3, 7])), 0, None).expect("it is read");
    assert!(marks.take(2));
    assert_eq!(marks.from(3).collect::<Vec<_>>(), [3..4, 7..8]);
}

/// Numbers from a seed (splitmix64), so that 100,000 patterns take a moment.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// What a stream may have completed beyond `base`: runs of all lengths, at all densities, one in a hundred very many.
    fn pattern(&mut self, base: Offset) -> Vec<Range<Offset>> {
        let count = if self.below(100) == 0 { self.below(3000) } else { self.below(30) };
        let (skips, lengths) = (1 << self.below(20), 1 << self.below(9));
        let mut at = base + self.below(3);
        let run = |_| {
            let start = at + self.below(skips);
            at = start + 1 + self.below(lengths);
            start..at
        };
        (0..count).map(run).collect()
    }
}

#[test]
fn no_pattern_of_100_000_decodes_to_more_than_was_completed() {
    let mut numbers = Numbers(1);
    for case in 0..100_000 {
        let base = [0, 300, 1 << 40, u64::MAX >> 1][case % 4];
        let all: Vec<Range<Offset>> = merged(numbers.pattern(base).into_iter()).collect();
        let text = encode_ranges(base, all.iter().cloned());
        assert!(text.len() <= MAX_TEXT_BYTES);
        let marks = decode(&text, base, all.last().map(|last| last.end)).expect("what is written is read");
        let kept = marks.ranges();
        // The last of a bitmap may be cut.
        let is_prefix = kept.iter().zip(&all).enumerate().all(|(at, (kept, all))| {
            kept.start == all.start && (kept.end == all.end || kept.end < all.end && at + 1 == marks.ranges().len())
        });
        assert!(is_prefix && kept.len() <= all.len(), "{kept:?} of {all:?}");
        // A run takes 5 bytes at most here, so that these fit surely; what does not must have filled the room.
        if all.len() <= 600 {
            assert_eq!(kept, all);
        } else {
            assert!(kept == all || text.len() > MAX_TEXT_BYTES - 32, "{} of {}", kept.len(), all.len());
        }
    }
}

//! What other consumers are known to get wrong, each as it must be.

use std::num::NonZeroUsize;
use std::time::Duration;

use pype_core::retry::{Retry, RetryOn};
use pype_core::stream::Step;
use pype_core::stream::control::{Control, Delivery, Flow, Options, Outcome, Partition, Refusal, Settled, Start};
use pype_core::stream::lanes::Ordering;
use pype_core::stream::metadata::Unreadable;

use super::stage::{P, Stage, at, attempts, options, size};

#[test]
fn a_hole_does_not_stall_the_commits() {
    let mut stage = Stage::new(options());
    stage.deliver_all([5000, 5003, 5004]);
    for work in stage.start_all() {
        stage.done(work.id);
    }
    let commit = stage.commit().expect("there is something to commit");
    assert_eq!((commit.position, commit.metadata.as_str()), (5005, ""));
    stage.control.committed(&commit, true);
    assert_eq!(stage.control.commits(), []);
}

#[test]
fn lag_reaches_zero_behind_an_aborted_transaction() {
    let mut stage = Stage::new(options());
    assert!(stage.control.log_end(P, stage.epoch, 100));
    stage.deliver_all([0]);
    assert!(stage.control.advance(P, stage.epoch, 100));
    assert_eq!(stage.state().lag, Some(100));
    let id = stage.start(0);
    stage.done(id);
    assert_eq!((stage.state().lag, stage.commit().map(|commit| commit.position)), (Some(0), Some(100)));
}

#[test]
fn epochs_rise_with_every_assignment() {
    let mut control: Control<()> = Control::new(options());
    let mut epochs: Vec<u64> = (0..3).map(|number| control.assign(Partition(number), at(0)).get()).collect();
    control.revoke(Partition(1));
    control.release(Partition(1));
    epochs.push(control.assign(Partition(1), at(0)).get());
    control.lose(Partition(0));
    epochs.push(control.assign(Partition(0), at(0)).get());
    epochs.push(control.assign(Partition(0), at(0)).get());
    assert_eq!(epochs, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_the_metadata_covers_is_not_run_again() {
    let mut first = Stage::new(options());
    first.deliver_all([0, 1, 2, 5, 6]);
    let works = first.start_all();
    for done in [1, 2, 4] {
        first.done(works[done].id);
    }
    let commit = first.commit().expect("there is something to commit");
    assert_eq!(commit.position, 0);

    let start = Start { position: commit.position, metadata: Some(&commit.metadata), log_end: Some(7) };
    let mut second = Stage::starting(options(), start);
    let delivered = [0, 1, 2, 5, 6].map(|offset| second.deliver(offset, "k"));
    let (queued, before) = (Delivery::Queued, Delivery::DoneBefore);
    assert_eq!(delivered, [queued, before, before, queued, before]);
    assert_eq!(second.state().done_before, 3);
    for offset in [0, 5] {
        let id = second.start(offset);
        second.done(id);
    }
    assert!(second.nothing_starts());
    assert_eq!(second.position(), 7);
}

#[test]
fn marks_that_have_not_come_again_yet_are_committed_again() {
    let mut stage = Stage::new(options());
    stage.deliver_all(0..6);
    let works = stage.start_all();
    for done in [2, 3, 5] {
        stage.done(works[done].id);
    }
    let metadata = stage.commit().expect("something is complete").metadata;
    let mut stage = Stage::starting(options(), Start { metadata: Some(&metadata), ..at(0) });
    stage.deliver_all([0, 1]);
    let id = stage.start_all()[1].id;
    stage.done(id);
    let metadata = stage.commit().expect("something is complete").metadata;
    let mut stage = Stage::starting(options(), Start { metadata: Some(&metadata), ..at(0) });
    let before = (0..6).filter(|offset| stage.deliver(*offset, "k") == Delivery::DoneBefore).collect::<Vec<_>>();
    assert_eq!(before, [1, 2, 3, 5]);
}

#[test]
fn unreadable_metadata_means_none_and_never_one_less() {
    let mut control: Control<u64> = Control::new(options());
    let start = Start { metadata: Some("of another program"), ..at(10) };
    let (epoch, why) = control.assign_checked(P, start);
    assert_eq!(why, Some(Unreadable::Foreign));
    assert_eq!(control.commits(), []);
    assert!(matches!(control.deliver(P, epoch, 9, None, 9, Duration::ZERO), Delivery::Refused(Refusal::OutOfOrder(_))));
    assert_eq!(control.deliver(P, epoch, 10, None, 10, Duration::ZERO), Delivery::Queued);
    assert_eq!(control.next(Duration::ZERO).map(|work| work.offset), Some(10));
}

#[test]
fn no_attempts_is_not_success() {
    // `attempts: 0` has no type; one attempt is one execution.
    let once = Retry { attempts: attempts(1), ..options().retry };
    let mut stage = Stage::new(Options { retry: once, ..options() });
    stage.deliver_all([0]);
    let work = stage.next().expect("it is executed");
    assert_eq!((work.step, work.attempt), (Step::Handle, 1));
    assert_eq!(stage.fail(work.id), Settled::DeadLetter);
    assert_eq!(stage.position(), 0);
}

#[test]
fn attempts_count_executions() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    let mut seen = Vec::new();
    loop {
        let work = stage.next().expect("it is executed");
        seen.push((work.attempt, stage.now.as_secs()));
        match stage.fail(work.id) {
            Settled::Retry { at } => stage.now = at,
            settled => break assert_eq!(settled, Settled::DeadLetter),
        }
    }
    assert_eq!(seen, [(1, 0), (2, 1), (3, 3)]);
}

#[test]
fn what_was_not_run_is_no_attempt() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    for _ in 0..20 {
        let work = stage.next().expect("it waits for its turn again");
        assert_eq!(work.attempt, 1);
        assert_eq!(stage.not_run(work.id), Settled::Requeued);
    }
    assert_eq!(stage.state().position, Some(0));
}

#[test]
fn an_error_that_will_not_pass_is_not_tried_again() {
    for (on, tried_again) in [(RetryOn::Retryable, false), (RetryOn::Any, true)] {
        let mut stage = Stage::new(Options { retry: Retry { on, ..options().retry }, ..options() });
        stage.deliver_all([0]);
        let id = stage.start(0);
        let settled = stage.control.completed(id, Outcome::Failed { retryable: false }, stage.now, 0.5);
        assert_eq!(matches!(settled, Settled::Retry { .. }), tried_again);
    }
}

#[test]
fn a_dead_letter_counts_when_it_is_confirmed() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0, 1]);
    let (first, second) = (stage.start(0), stage.start(1));
    stage.done(second);
    let (first, settled) = stage.fail_for_good(first);
    assert_eq!((settled, stage.position()), (Settled::DeadLetter, 0));
    assert_eq!(stage.state().publishing, 1);

    let Settled::Retry { at } = stage.control.dead_letter_failed(first, stage.now, 0.5) else {
        panic!("it is tried again")
    };
    assert!(stage.nothing_starts());
    stage.now = at;
    let work = stage.next().expect("it is published again");
    assert_eq!((work.step, work.attempt, stage.position()), (Step::DeadLetter, 3, 0));
    assert_eq!(stage.done(work.id), Settled::Stale, "nobody handles it");
    assert_eq!(stage.control.dead_lettered(work.id, stage.now), Settled::Done);
    assert_eq!(stage.position(), 2);
    assert_eq!(stage.control.dead_lettered(work.id, stage.now), Settled::Stale);
}

#[test]
fn a_dead_letter_is_published_until_it_is_confirmed() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    let id = stage.start(0);
    let (mut id, _) = stage.fail_for_good(id);
    for _ in 0..50 {
        let Settled::Retry { at } = stage.control.dead_letter_failed(id, stage.now, 0.5) else {
            panic!("it is tried again")
        };
        assert!(at - stage.now <= Duration::from_secs(60));
        stage.now = at;
        id = stage.next().expect("it is published again").id;
    }
    assert_eq!(stage.control.dead_lettered(id, stage.now), Settled::Done);
}

#[test]
fn the_end_of_an_attempt_is_not_taken_for_that_of_the_next() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    let first = stage.start(0);
    stage.fail(first);
    stage.wait(1);
    let second = stage.start(0);
    assert_ne!(first, second);
    assert_eq!((stage.done(first), stage.position()), (Settled::Stale, 0));
    assert_eq!((stage.done(second), stage.position()), (Settled::Done, 1));
}

#[test]
fn without_dead_letters_the_stream_stops_and_loses_nothing() {
    let mut stage = Stage::new(Options { dead_letters: false, ..options() });
    stage.deliver_all([0, 1, 2]);
    let works = stage.start_all();
    stage.done(works[1].id);
    let (_, settled) = stage.fail_for_good(works[0].id);
    assert_eq!(settled, Settled::GiveUp);
    assert!(stage.control.is_stopped() && stage.nothing_starts());
    stage.done(works[2].id);
    let commit = stage.commit().expect("what is complete is committed all the same");
    assert_eq!(commit.position, 0);
    assert!(!commit.metadata.is_empty());
}

#[test]
fn a_revoked_partition_starts_nothing_and_its_running_work_counts() {
    let mut stage = Stage::new(options());
    stage.deliver(0, "a");
    stage.deliver(1, "a");
    stage.deliver(2, "b");
    let (a, b) = (stage.start(0), stage.start(2));
    stage.control.revoke(P);
    assert!(stage.nothing_starts() && !stage.control.drained(P));
    assert_eq!(stage.deliver(3, "c"), Delivery::Refused(Refusal::Draining));
    stage.done(a);
    assert!(stage.nothing_starts(), "what waited behind it is dropped");
    assert_eq!(stage.fail(b), Settled::Left);
    assert!(stage.control.drained(P));
    assert_eq!(stage.commit().map(|commit| commit.position), Some(1));
    stage.control.release(P);
    assert_eq!(stage.control.commits(), []);
    assert!(stage.control.is_idle());
}

#[test]
fn a_lost_partition_is_not_committed() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    let id = stage.start(0);
    stage.control.lose(P);
    assert_eq!(stage.control.commits(), []);
    assert!(!stage.control.owns(P, stage.epoch));
    assert_eq!(stage.done(id), Settled::Stale);
    assert!(stage.control.is_idle());
}

#[test]
fn a_late_end_of_an_old_epoch_completes_nothing() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0, 1]);
    let old = stage.start(0);
    stage.control.lose(P);
    let before = stage.epoch;
    stage.epoch = stage.control.assign(P, at(0));
    let given = stage.control.deliver(P, before, 0, None, 0, stage.now);
    assert_eq!(given, Delivery::Refused(Refusal::OtherEpoch { given: before, current: stage.epoch }));
    stage.deliver_all([0, 1]);
    assert_eq!(stage.done(old), Settled::Stale);
    assert_eq!((stage.position(), stage.state().stale), (0, 1));
}

#[test]
fn a_key_that_still_runs_in_an_old_epoch_does_not_run_again_meanwhile() {
    let mut stage = Stage::new(options());
    stage.deliver(0, "a");
    stage.deliver(1, "b");
    let old = stage.start(0);
    stage.control.lose(P);
    stage.epoch = stage.control.assign(P, at(0));
    stage.deliver(0, "a");
    stage.deliver(1, "b");
    let other = stage.start(1);
    assert!(stage.nothing_starts());
    assert_eq!(stage.done(old), Settled::Stale);
    let again = stage.start(0);
    stage.done(again);
    stage.done(other);
    assert_eq!(stage.position(), 2);
}

#[test]
fn stale_work_takes_up_room_until_it_ends() {
    let mut limits = options().limits;
    limits.running = size(1);
    let mut stage = Stage::new(Options { limits, ..options() });
    stage.deliver_all([0]);
    let old = stage.start(0);
    stage.control.lose(P);
    stage.epoch = stage.control.assign(P, at(0));
    stage.deliver_all([7]);
    assert!(stage.nothing_starts());
    stage.done(old);
    stage.start(7);
}

#[test]
fn a_commit_that_failed_is_made_anew_of_what_is_true_then() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0, 1]);
    let works = stage.start_all();
    stage.done(works[0].id);
    let failed = stage.commit().expect("something is complete");
    stage.done(works[1].id);
    stage.control.committed(&failed, false);
    let commit = stage.commit().expect("it is due still");
    assert_eq!((failed.position, commit.position), (1, 2));
    stage.control.committed(&commit, true);
    stage.control.committed(&failed, true);
    assert_eq!(stage.commit(), None);
}

#[test]
fn a_commit_of_an_old_epoch_says_nothing_about_the_new() {
    let mut stage = Stage::new(options());
    stage.deliver_all([0]);
    let id = stage.start(0);
    stage.done(id);
    let old = stage.commit().expect("something is complete");
    stage.epoch = stage.control.assign(P, at(0));
    stage.deliver_all([0]);
    let id = stage.start(0);
    stage.done(id);
    stage.control.committed(&old, true);
    assert!(stage.commit().is_some());
    assert!(!stage.control.owns(old.partition, old.epoch));
}

#[test]
fn a_key_runs_in_order_through_its_retries_and_its_dead_letter() {
    let mut stage = Stage::new(options());
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b")] {
        stage.deliver(offset, key);
    }
    let (first, other) = (stage.start(0), stage.start(2));
    assert!(stage.nothing_starts());
    stage.done(other);
    let (first, settled) = stage.fail_for_good(first);
    assert_eq!(settled, Settled::DeadLetter);
    assert!(stage.nothing_starts());
    stage.control.dead_lettered(first, stage.now);
    stage.start(1);
}

#[test]
fn orderings_say_what_runs_at_a_time() {
    let started = |ordering, keys: [Option<&str>; 4]| {
        let mut stage = Stage::new(Options { ordering, ..options() });
        for (offset, key) in (0..).zip(keys) {
            stage.control.deliver(P, stage.epoch, offset, key.map(str::as_bytes), offset, stage.now);
        }
        stage.start_all().iter().map(|work| work.offset).collect::<Vec<_>>()
    };
    let keys = [Some("a"), Some("a"), Some("b"), Some("")];
    assert_eq!(started(Ordering::Key, keys), [0, 2, 3]);
    assert_eq!(started(Ordering::Key, [None; 4]), [0, 1, 2, 3]);
    assert_eq!(started(Ordering::Partition, keys), [0]);
    assert_eq!(started(Ordering::Partition, [None; 4]), [0]);
    assert_eq!(started(Ordering::Unordered, keys), [0, 1, 2, 3]);
}

#[test]
fn the_same_key_of_two_partitions_is_two_lanes() {
    let mut stage = Stage::new(options());
    let other = stage.control.assign(Partition(1), at(0));
    stage.deliver(0, "a");
    stage.control.deliver(Partition(1), other, 0, Some(b"a"), 0, stage.now);
    assert_eq!(stage.start_all().len(), 2);
}

#[test]
fn back_pressure_is_per_partition_and_does_not_flutter() {
    let mut stage = Stage::new(options());
    let other = stage.control.assign(Partition(1), at(0));
    stage.deliver_all(0..9);
    stage.control.deliver(Partition(1), other, 0, None, 0, stage.now);
    assert_eq!(stage.control.flow(), []);
    stage.deliver_all(9..12);
    assert_eq!(stage.control.flow(), [(P, Flow::Pause)]);
    assert_eq!(stage.control.flow(), []);
    let mut works = stage.start_all().into_iter().filter(|work| work.partition == P);
    for left in (7..12).rev() {
        let id = works.next().expect("ten run").id;
        stage.done(id);
        let expected: &[(Partition, Flow)] = if left == 7 { &[(P, Flow::Resume)] } else { &[] };
        assert_eq!(stage.control.flow(), expected, "{left}");
    }
}

#[test]
fn steady_retries_do_not_fill_admission() {
    let mut stage = Stage::new(options());
    stage.deliver_all(0..9);
    for work in stage.start_all() {
        assert!(matches!(stage.fail(work.id), Settled::Retry { .. }));
    }
    let state = stage.state();
    assert_eq!((state.parked, state.queued, state.running, state.paused), (9, 0, 0, false));
    stage.deliver_all(9..18);
    assert_eq!(stage.control.flow(), []);
    assert_eq!(stage.start_all().len(), 9);
}

#[test]
fn what_waits_behind_a_retry_does_not_hold_admission_either() {
    let mut stage = Stage::new(options());
    stage.deliver(0, "hot");
    let id = stage.start(0);
    stage.fail(id);
    for offset in 1..9 {
        stage.deliver(offset, "hot");
    }
    assert_eq!((stage.state().parked, stage.state().queued, stage.state().paused), (9, 0, false));
    stage.wait(1);
    let id = stage.start(0);
    assert_eq!((stage.state().parked, stage.state().queued), (0, 8));
    stage.done(id);
    stage.start(1);
}

#[test]
fn parked_records_have_a_bound_of_their_own() {
    let mut stage = Stage::new(options());
    for offset in 0..10 {
        stage.deliver_all([offset]);
        let id = stage.start(offset);
        stage.fail(id);
    }
    assert_eq!(stage.control.flow(), [(P, Flow::Pause)]);
    stage.wait(1);
    for work in stage.start_all() {
        stage.done(work.id);
    }
    assert_eq!(stage.control.flow(), [(P, Flow::Resume)]);
}

#[test]
fn one_record_that_never_ends_does_not_grow_the_ledger_for_ever() {
    let mut limits = options().limits;
    limits.remembered = size(100);
    let mut stage = Stage::new(Options { limits, ..options() });
    stage.deliver_all([0]);
    let stuck = stage.start(0);
    for offset in 1..100 {
        assert_eq!(stage.control.flow(), []);
        stage.deliver_all([offset]);
        let id = stage.start(offset);
        stage.done(id);
    }
    assert_eq!(stage.control.flow(), [(P, Flow::Pause)]);
    assert_eq!((stage.state().gaps, stage.state().blocking_offset), (1, Some(0)));
    stage.done(stuck);
    assert_eq!(stage.control.flow(), [(P, Flow::Resume)]);
}

#[test]
fn the_record_that_blocks_goes_first() {
    let mut limits = options().limits;
    limits.running = size(1);
    let mut stage = Stage::new(Options { limits, ..options() });
    let other = stage.control.assign(Partition(1), at(0));
    stage.deliver_all([0]);
    let blocking = stage.start(0);
    stage.fail(blocking);
    for offset in 0..5 {
        stage.control.deliver(Partition(1), other, offset, None, offset, stage.now);
    }
    stage.deliver_all([1, 2]);
    let running = stage.next().expect("others go on meanwhile").id;
    stage.wait(1);
    stage.done(running);
    let next = stage.next().expect("one may run");
    assert_eq!((next.partition, next.offset), (P, 0));
}

#[test]
fn partitions_take_turns() {
    let mut limits = options().limits;
    limits.running = NonZeroUsize::MIN;
    let mut control: Control<u64> = Control::new(Options { limits, ..options() });
    for number in 0..3 {
        let epoch = control.assign(Partition(number), at(0));
        for offset in 0..3 {
            control.deliver(Partition(number), epoch, offset, None, offset, Duration::ZERO);
        }
    }
    let mut seen = [0; 3];
    for round in 0..9 {
        let work = control.next(Duration::ZERO).expect("there is more");
        assert!(control.next(Duration::ZERO).is_none());
        control.completed(work.id, Outcome::Done, Duration::ZERO, 0.5);
        seen[work.partition.0 as usize] += 1;
        assert!(seen.iter().max().zip(seen.iter().min()).is_some_and(|(most, least)| most - least <= 2), "{round}");
    }
}

#[test]
fn it_says_when_the_next_retry_is_due() {
    let mut stage = Stage::new(options());
    assert_eq!(stage.control.wake(), None);
    stage.deliver_all([0]);
    let id = stage.start(0);
    stage.fail(id);
    assert_eq!(stage.control.wake(), Some(Duration::from_secs(1)));
    stage.control.revoke(P);
    assert_eq!(stage.control.wake(), None);
}

#[test]
fn draining_ends_with_what_runs() {
    let mut stage = Stage::new(options());
    stage.deliver(0, "a");
    stage.deliver(1, "a");
    let id = stage.start(0);
    stage.control.drain();
    assert!(!stage.control.is_idle() && stage.nothing_starts());
    stage.done(id);
    assert!(stage.control.is_idle());
    assert_eq!(stage.commit().map(|commit| commit.position), Some(1));
}

#[test]
fn it_says_how_long_a_record_has_blocked() {
    let mut stage = Stage::new(options());
    stage.deliver_all([3, 4]);
    stage.wait(7);
    let state = stage.state();
    assert_eq!((state.blocking_offset, state.blocked_for), (Some(3), Some(Duration::from_secs(7))));
    assert_eq!((state.position, state.delivered_end, state.queued), (Some(3), Some(5), 2));
}

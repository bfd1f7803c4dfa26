//! Records of a lane that are given out together, to be handled one after the other.

use pype_core::stream::control::{Acknowledge, Delivery, Options, Outcome, Settled, Work};

use super::stage::{P, Stage, at, options, size};

/// So many records of one key, the first of which is begun with the others behind it.
fn run_of(count: u64, options: Options) -> (Stage, Vec<Work<u64>>) {
    let mut stage = Stage::new(options);
    stage.deliver_under("k", 0..count);
    let run = run(&mut stage);
    assert_eq!(run.len() as u64, count);
    (stage, run)
}

/// What starts now, with all that follows it.
fn run(stage: &mut Stage) -> Vec<Work<u64>> {
    let first = stage.next().expect("something starts");
    let id = first.id;
    let mut run = vec![first];
    run.extend(stage.control.followers(id, 100));
    run
}

fn offsets(run: &[Work<u64>]) -> Vec<u64> {
    run.iter().map(|work| work.offset).collect()
}

#[test]
fn only_one_of_them_runs() {
    let mut limits = options().limits;
    limits.running = size(2);
    let (mut stage, run) = run_of(3, Options { limits, ..options() });
    assert_eq!(run.iter().map(|work| work.follows).collect::<Vec<_>>(), [false, true, true]);
    for (work, queued) in run.iter().zip([2, 1, 0]) {
        assert_eq!((stage.state().running, stage.state().queued), (1, queued));
        assert_eq!(stage.done(work.id), Settled::Done);
    }
    assert_eq!((stage.state().running, stage.position()), (0, 3));
}

#[test]
fn no_more_are_given_out_than_are_asked_for_and_none_twice() {
    let mut stage = Stage::new(options());
    stage.deliver_under("k", 0..5);
    stage.deliver(5, "other");
    let first = stage.start(0);
    assert_eq!(offsets(&stage.control.followers(first, 2).collect::<Vec<_>>()), [1, 2]);
    assert_eq!(stage.control.followers(first, 9).count(), 0);
    let other = stage.start(5);
    assert_eq!(stage.control.followers(other, 9).count(), 0);
}

#[test]
fn those_behind_a_failure_are_taken_back_and_wait_for_its_retry() {
    let (mut stage, old) = run_of(3, options());
    assert!(matches!(stage.fail(old[0].id), Settled::Retry { .. }));
    assert_eq!((stage.state().parked, stage.state().running), (3, 0));
    assert!(stage.nothing_starts());
    stage.wait(1);
    let again = run(&mut stage);
    assert_eq!(offsets(&again), [0, 1, 2]);
    assert_eq!(again.iter().map(|work| work.attempt).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(stage.done(old[1].id), Settled::Stale, "it was taken back");
    again.iter().for_each(|work| assert_eq!(stage.done(work.id), Settled::Done));
}

#[test]
fn those_behind_a_dead_letter_wait_until_it_is_confirmed() {
    let (mut stage, old) = run_of(2, options());
    let failed = Outcome::Failed { retryable: false };
    assert_eq!(stage.control.completed(old[0].id, failed, stage.now, 0.5), Settled::DeadLetter);
    assert!(stage.nothing_starts());
    assert_eq!(stage.control.followers(old[0].id, 9).count(), 0);
    stage.control.dead_lettered(old[0].id, stage.now);
    stage.start(1);
}

#[test]
fn what_is_given_back_takes_those_behind_it_along() {
    let (mut stage, old) = run_of(4, options());
    assert_eq!(stage.not_run(old[2].id), Settled::Requeued);
    assert_eq!(stage.not_run(old[3].id), Settled::Stale);
    stage.done(old[0].id);
    assert!(stage.nothing_starts());
    stage.done(old[1].id);
    assert_eq!(offsets(&run(&mut stage)), [2, 3]);
}

#[test]
fn an_end_that_is_told_too_early_completes_nothing() {
    let (mut stage, old) = run_of(2, options());
    assert_eq!(stage.done(old[1].id), Settled::Requeued);
    stage.done(old[0].id);
    assert_eq!(stage.position(), 1);
    stage.start(1);
}

#[test]
fn a_revoked_partition_lets_them_end_and_gives_out_no_more() {
    let (mut stage, old) = run_of(4, options());
    stage.control.revoke(P);
    assert_eq!(stage.done(old[0].id), Settled::Done);
    assert!(!stage.control.drained(P));
    assert_eq!(stage.control.followers(old[1].id, 9).count(), 0);
    assert_eq!(stage.fail(old[1].id), Settled::Left);
    assert!(stage.control.drained(P) && stage.control.is_idle());
    assert_eq!(stage.commit().map(|commit| commit.position), Some(1));
}

#[test]
fn a_key_waits_for_all_that_an_old_epoch_has_in_hand() {
    let (mut stage, old) = run_of(3, options());
    stage.control.lose(P);
    stage.epoch = stage.control.assign(P, at(0));
    stage.deliver_under("k", 0..3);
    for work in &old[..2] {
        assert!(stage.nothing_starts());
        assert_eq!(stage.done(work.id), Settled::Stale);
    }
    assert_eq!(stage.not_run(old[2].id), Settled::Stale);
    assert_eq!((offsets(&run(&mut stage)), stage.position()), (vec![0, 1, 2], 0));
}

#[test]
fn each_is_acknowledged_as_it_ends() {
    let (mut stage, run) = run_of(2, Options { acknowledge: Acknowledge::Each, ..options() });
    stage.done(run[0].id);
    assert_eq!(stage.control.acknowledgements().len(), 1);
    assert_eq!(stage.deliver(1, "k"), Delivery::InFlight);
    stage.done(run[1].id);
    assert_eq!(stage.control.acknowledgements().len(), 1);
}

//! Sources that are told of each record alone, as JetStream is.

use pype_core::stream::control::{Acknowledge, Delivery, Options, Settled};

use super::stage::{Stage, options};

fn stage() -> Stage {
    Stage::new(Options { acknowledge: Acknowledge::Each, ..options() })
}

fn acknowledged(stage: &mut Stage) -> Vec<(u64, u64, bool)> {
    let all = stage.control.acknowledgements();
    all.into_iter().map(|one| (one.offset, one.payload, one.handled)).collect()
}

#[test]
fn records_are_acknowledged_as_they_end() {
    let mut stage = stage();
    stage.deliver_all([5, 3, 9]);
    let works = stage.start_all();
    assert_eq!(works.iter().map(|work| work.offset).collect::<Vec<_>>(), [3, 5, 9]);
    stage.done(works[2].id);
    stage.done(works[0].id);
    assert_eq!(acknowledged(&mut stage), [(9, 9, true), (3, 3, true)]);
    assert_eq!(acknowledged(&mut stage), []);
    assert_eq!(stage.control.commits(), []);
    assert_eq!((stage.state().position, stage.state().running), (None, 1));
}

#[test]
fn what_comes_again_while_it_is_under_way_is_not_run_twice() {
    let mut stage = stage();
    stage.deliver_all([1]);
    let id = stage.start(1);
    // The newer delivery is the one to acknowledge.
    assert_eq!(stage.control.deliver(super::stage::P, stage.epoch, 1, None, 100, stage.now), Delivery::InFlight);
    assert!(stage.nothing_starts());
    stage.fail(id);
    assert_eq!(stage.deliver(1, "1"), Delivery::InFlight);
    stage.wait(1);
    let id = stage.start(1);
    stage.done(id);
    assert_eq!(acknowledged(&mut stage), [(1, 1, true)]);
    assert_eq!(stage.deliver(1, "1"), Delivery::Queued, "its acknowledgement was lost");
}

#[test]
fn a_dead_letter_is_acknowledged_when_it_is_confirmed() {
    let mut stage = stage();
    stage.deliver_all([1]);
    let id = stage.start(1);
    let (id, settled) = stage.fail_for_good(id);
    assert_eq!((settled, acknowledged(&mut stage)), (Settled::DeadLetter, vec![]));
    stage.control.dead_lettered(id, stage.now);
    assert_eq!(acknowledged(&mut stage), [(1, 1, false)]);
}

#[test]
fn what_was_not_done_is_not_acknowledged() {
    let mut stage = stage();
    stage.deliver_all([1, 2]);
    let works = stage.start_all();
    stage.control.lose(super::stage::P);
    assert_eq!(stage.done(works[0].id), Settled::Stale);
    assert_eq!(acknowledged(&mut stage), []);
}

//! The records that are under way, each in a place that is used again when it is done.

use std::fmt;

use super::control::{Epoch, Partition, Work};
use super::lanes::LaneId;
use super::ledger::{Offset, Slot};

/// One attempt at a record. No two of a stream's life are the same, so that a late end of one attempt is never taken for the
/// end of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId {
    generation: u64,
    place: u32,
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.place, self.generation)
    }
}

/// What is to be done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// It is handled.
    Handle,
    /// It could not be handled, and its dead letter is published.
    DeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its turn.
    Queued,
    /// It waits until it is due.
    Parked,
    /// Somebody has it in hand.
    Busy,
    /// Whoever has the one before it in its lane in hand begins with it when that is done.
    Behind,
}

#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) partition: Partition,
    pub(super) epoch: Epoch,
    pub(super) offset: Offset,
    /// Its delivery, where positions are committed.
    pub(super) slot: Option<Slot>,
    pub(super) lane: Option<LaneId>,
    /// How often it was handled, and how often its dead letter was tried.
    pub(super) executions: u32,
    pub(super) publications: u32,
    pub(super) step: Step,
    pub(super) state: State,
    pub(super) payload: T,
}

#[derive(Debug)]
pub(super) struct Works<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    /// Rises with each record that it holds, and each attempt at that.
    generation: u64,
    item: Option<Item<T>>,
}

impl<T> Works<T> {
    pub(super) fn new() -> Works<T> {
        Works { places: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, item: Item<T>) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize].item = Some(item);
            return place;
        }
        let place = u32::try_from(self.places.len()).expect("memory ends before places do");
        self.places.push(Place { generation: 0, item: Some(item) });
        place
    }

    pub(super) fn id(&self, place: u32) -> WorkId {
        WorkId { generation: self.places[place as usize].generation, place }
    }

    /// Begins another attempt, which somebody has in hand from now on.
    pub(super) fn give_out(&mut self, place: u32, state: State) -> Work<T>
    where
        T: Clone,
    {
        self.places[place as usize].generation += 1;
        let id = self.id(place);
        let item = self.get_mut(place);
        item.state = state;
        let Item { step, partition, epoch, offset, executions, .. } = *item;
        Work {
            id,
            step,
            partition,
            epoch,
            offset,
            attempt: executions + u32::from(step == Step::Handle),
            payload: item.payload.clone(),
            follows: state == State::Behind,
        }
    }

    /// The place of a record, if it is still under way and no other attempt at it has begun.
    pub(super) fn find(&self, id: WorkId) -> Option<u32> {
        let place = self.places.get(id.place as usize)?;
        (place.generation == id.generation && place.item.is_some()).then_some(id.place)
    }

    pub(super) fn get(&self, place: u32) -> &Item<T> {
        self.places[place as usize].item.as_ref().expect("a place that is named holds a record")
    }

    pub(super) fn get_mut(&mut self, place: u32) -> &mut Item<T> {
        self.places[place as usize].item.as_mut().expect("a place that is named holds a record")
    }

    pub(super) fn holds(&self, place: u32) -> bool {
        self.places[place as usize].item.is_some()
    }

    pub(super) fn remove(&mut self, place: u32) -> Item<T> {
        let at = &mut self.places[place as usize];
        let item = at.item.take().expect("a place that is named holds a record");
        at.generation += 1;
        self.free.push(place);
        item
    }

    /// Removes the records of a partition that nobody has in hand, be it to begin with them later. How many that were.
    pub(super) fn remove_waiting(&mut self, partition: Partition) -> usize {
        let mut removed = 0;
        for place in 0..self.places.len() {
            let waits =
                |item: &Item<T>| item.partition == partition && matches!(item.state, State::Queued | State::Parked);
            if self.places[place].item.as_ref().is_some_and(waits) {
                self.remove(u32::try_from(place).expect("it was made from one"));
                removed += 1;
            }
        }
        removed
    }
}

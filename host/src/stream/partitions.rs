//! The partitions of a source, by the numbers that the control plane knows them by.

use std::collections::HashMap;

use pype_core::stream::control::{Epoch, Partition as Number};
use pype_plugin::stream::Partition;

/// Partitions, numbered as they come. A number is for ever.
#[derive(Default)]
pub(super) struct Partitions {
    numbers: HashMap<Partition, Number>,
    homes: Vec<Home>,
    /// The one that was looked for last: records come in runs.
    last: Option<Number>,
}

/// A partition.
pub(super) struct Home {
    pub(super) partition: Partition,
    /// Its assignment, if it is ours.
    pub(super) assigned: Option<Assigned>,
}

/// An assignment.
#[derive(Clone, Copy)]
pub(super) struct Assigned {
    /// By the source's count.
    pub(super) source_epoch: u64,
    /// By the control plane's.
    pub(super) epoch: Epoch,
    /// Whether nothing has come of it yet.
    pub(super) fresh: bool,
}

impl Partitions {
    /// The number of a partition, which may be new.
    pub(super) fn number(&mut self, partition: &Partition) -> Number {
        if let Some(number) = self.numbers.get(partition) {
            return *number;
        }
        let number = Number(u32::try_from(self.homes.len()).expect("there are fewer partitions"));
        self.numbers.insert(partition.clone(), number);
        self.homes.push(Home { partition: partition.clone(), assigned: None });
        number
    }

    /// The number of a partition that has come before.
    pub(super) fn find(&mut self, topic: &str, partition: i32) -> Option<Number> {
        let is_it = |home: &Home| home.partition.partition == partition && home.partition.topic == topic;
        if let Some(last) = self.last.filter(|last| is_it(self.home(*last))) {
            return Some(last);
        }
        let at = self.homes.iter().position(is_it)?;
        self.last = Some(Number(u32::try_from(at).expect("there are fewer partitions")));
        self.last
    }

    pub(super) fn home(&self, number: Number) -> &Home {
        &self.homes[number.0 as usize]
    }

    pub(super) fn home_mut(&mut self, number: Number) -> &mut Home {
        &mut self.homes[number.0 as usize]
    }

    /// Those that are ours.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (Number, &Home)> {
        let numbered = self.homes.iter().enumerate();
        numbered
            .filter(|(_, home)| home.assigned.is_some())
            .map(|(at, home)| (Number(u32::try_from(at).expect("there are fewer partitions")), home))
    }
}

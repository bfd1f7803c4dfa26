//! Lanes: records that must run one after the other, in the order they came.
//!
//! A lane has those records of one partition that share a key, or all of it, as [`Ordering`] says. Its first is the one
//! that runs, or waits for a retry; the others wait behind it, some of them with whoever runs it. A lane lives as long as
//! there is a record in it, and its memory is used again for the next.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::control::Partition;

/// Which records run one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// Those of a partition whose keys are the same bytes. A record without a key is in no order.
    #[default]
    Key,
    /// Those of a partition.
    Partition,
    /// None.
    Unordered,
}

impl Ordering {
    /// The key of the lane that a record belongs into.
    pub(super) fn lane_key(self, key: Option<&[u8]>) -> Option<&[u8]> {
        match self {
            Ordering::Key => key,
            Ordering::Partition => Some(&[]),
            Ordering::Unordered => None,
        }
    }
}

/// A lane, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneId(u32);

/// All lanes of a stream.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    free: Vec<LaneId>,
    /// The first lane of each hash. Keys are those of many clients: a seed keeps them from choosing their hashes.
    by_hash: HashMap<u64, LaneId, BuildHasherDefault<Hashed>>,
    seed: u64,
}

#[derive(Debug)]
struct Lane {
    partition: Partition,
    hash: u64,
    key: Vec<u8>,
    /// Another lane whose key has the same hash.
    namesake: Option<LaneId>,
    /// The places of its records, the first one first.
    queue: VecDeque<u32>,
    held: bool,
}

impl Lanes {
    pub(super) fn new(seed: u64) -> Lanes {
        Lanes { seed, ..Lanes::default() }
    }

    /// The lane of a key, which is made if there is none.
    pub(super) fn of_key(&mut self, partition: Partition, key: &[u8]) -> LaneId {
        let hash = xxh3_64_with_seed(key, self.seed ^ u64::from(partition.0).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let first = self.by_hash.get(&hash).copied();
        let known = std::iter::successors(first, |lane| self.lane(*lane).namesake);
        let is_it = |lane: &Lane| lane.partition == partition && lane.key == key;
        if let Some(lane) = known.into_iter().find(|lane| is_it(self.lane(*lane))) {
            return lane;
        }
        let lane = self.make(partition, hash, key, first);
        self.by_hash.insert(hash, lane);
        lane
    }

    fn make(&mut self, partition: Partition, hash: u64, key: &[u8], namesake: Option<LaneId>) -> LaneId {
        if let Some(id) = self.free.pop() {
            let lane = self.lane_mut(id);
            (lane.partition, lane.hash, lane.namesake, lane.held) = (partition, hash, namesake, false);
            lane.key.clear();
            lane.key.extend_from_slice(key);
            return id;
        }
        let id = LaneId(u32::try_from(self.lanes.len()).expect("memory ends before places do"));
        self.lanes.push(Lane { partition, hash, key: key.to_vec(), namesake, queue: VecDeque::new(), held: false });
        id
    }

    /// Puts a record at the end. True if it is the first.
    pub(super) fn append(&mut self, lane: LaneId, item: u32) -> bool {
        let queue = &mut self.lane_mut(lane).queue;
        queue.push_back(item);
        queue.len() == 1
    }

    /// Takes a record away. The one that is first in its place, if it was the first; without one there is no lane any more.
    pub(super) fn remove(&mut self, lane: LaneId, item: u32) -> Option<u32> {
        let queue = &mut self.lane_mut(lane).queue;
        if queue.front() != Some(&item) {
            queue.retain(|other| *other != item);
            return None;
        }
        queue.pop_front();
        let next = queue.front().copied();
        if next.is_none() {
            self.forget(lane);
        }
        next
    }

    /// Those behind a record, in their order.
    pub(super) fn behind(&self, lane: LaneId, item: u32) -> impl Iterator<Item = u32> {
        self.lane(lane).queue.iter().copied().skip_while(move |other| *other != item).skip(1)
    }

    /// Of each lane of a partition, keeps only these records.
    pub(super) fn retain(&mut self, partition: Partition, keep: impl Fn(u32) -> bool) {
        for place in 0..self.lanes.len() {
            let lane = &mut self.lanes[place];
            if lane.partition != partition || lane.queue.is_empty() {
                continue;
            }
            lane.queue.retain(|item| keep(*item));
            lane.held = false;
            if lane.queue.is_empty() {
                self.forget(LaneId(u32::try_from(place).expect("it was made from one")));
            }
        }
    }

    /// Says whether a lane waits for the retry of its first. How many records it has.
    pub(super) fn hold(&mut self, lane: LaneId, held: bool) -> usize {
        let lane = self.lane_mut(lane);
        lane.held = held;
        lane.queue.len()
    }

    pub(super) fn is_held(&self, lane: LaneId) -> bool {
        self.lane(lane).held
    }

    /// How many lanes there are.
    pub(super) fn len(&self) -> usize {
        self.lanes.len() - self.free.len()
    }

    fn forget(&mut self, id: LaneId) {
        let Lane { hash, namesake, .. } = *self.lane(id);
        match self.by_hash.get(&hash).copied() {
            Some(first) if first == id => match namesake {
                Some(next) => drop(self.by_hash.insert(hash, next)),
                None => drop(self.by_hash.remove(&hash)),
            },
            first => {
                let before = std::iter::successors(first, |lane| self.lane(*lane).namesake)
                    .find(|lane| self.lane(*lane).namesake == Some(id));
                if let Some(before) = before {
                    self.lane_mut(before).namesake = namesake;
                }
            }
        }
        self.free.push(id);
    }

    fn lane(&self, id: LaneId) -> &Lane {
        &self.lanes[id.0 as usize]
    }

    fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        &mut self.lanes[id.0 as usize]
    }
}

/// The hasher of what is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Partition = Partition(0);

    #[test]
    fn a_lane_is_made_of_exact_keys_and_partitions() {
        let mut lanes = Lanes::new(7);
        let a = lanes.of_key(HERE, b"a");
        assert!(lanes.append(a, 1));
        assert_eq!(lanes.of_key(HERE, b"a"), a);
        let others = [lanes.of_key(HERE, b"ab"), lanes.of_key(HERE, b""), lanes.of_key(Partition(1), b"a")];
        assert!(others.iter().all(|other| *other != a));
    }

    #[test]
    fn keys_whose_hashes_are_the_same_have_lanes_of_their_own() {
        let mut lanes = Lanes::new(0);
        let made: Vec<LaneId> = (0..4_u8)
            .map(|key| {
                let first = lanes.by_hash.get(&1).copied();
                let lane = lanes.make(HERE, 1, &[key], first);
                lanes.by_hash.insert(1, lane);
                lanes.append(lane, u32::from(key));
                lane
            })
            .collect();
        for gone in [2, 3, 0, 1] {
            assert_eq!(lanes.remove(made[gone], u32::try_from(gone).expect("few")), None);
            let left: Vec<LaneId> =
                std::iter::successors(lanes.by_hash.get(&1).copied(), |lane| lanes.lane(*lane).namesake).collect();
            assert_eq!(left.len(), lanes.len());
            assert!(!left.contains(&made[gone]));
        }
    }

    #[test]
    fn records_leave_in_the_order_they_came() {
        let mut lanes = Lanes::new(0);
        let lane = lanes.of_key(HERE, b"a");
        assert_eq!([5, 6, 7].map(|item| lanes.append(lane, item)), [true, false, false]);
        assert_eq!([5, 6, 7].map(|item| lanes.remove(lane, item)), [Some(6), Some(7), None]);
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn one_in_the_middle_leaves_the_first_where_it_is() {
        let mut lanes = Lanes::new(0);
        let lane = lanes.of_key(HERE, b"a");
        assert_eq!([5, 6, 7, 8].map(|item| lanes.append(lane, item)), [true, false, false, false]);
        assert_eq!(lanes.remove(lane, 6), None);
        assert_eq!(lanes.behind(lane, 5).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(lanes.behind(lane, 8).count(), 0);
        assert_eq!(lanes.remove(lane, 5), Some(7));
    }
}

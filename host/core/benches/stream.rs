//! What one record costs the control plane of streams: delivered, given out, completed.
//!
//! Run with `cargo bench -p pype-core --bench stream`. The claim is 500 ns a record at most, with 1000 in flight.

use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pype_core::retry::Retry;
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{Acknowledge, Control, Epoch, Options, Outcome, Partition, Start};
use pype_core::stream::lanes::Ordering;
use pype_core::stream::ledger::Ledger;
use pype_core::stream::{WorkId, metadata};

const RECORDS: u64 = 100_000;
const IN_FLIGHT: usize = 1000;
const PARTITIONS: u64 = 8;

fn options(ordering: Ordering, acknowledge: Acknowledge) -> Options {
    let limits = Limits::of(NonZeroUsize::new(IN_FLIGHT).expect("not zero"));
    Options { ordering, acknowledge, limits, retry: Retry::default(), dead_letters: true, seed: 1 }
}

/// Which key a record has. With few keys most records wait in their lanes.
fn keys(kind: &str) -> Vec<[u8; 8]> {
    let key = |at: u64| match kind {
        "distinct" => at,
        // Rank 1 has about a tenth of all, rank 1000 a ten-thousandth.
        "zipf" => (1000.0_f64.powf((at * 7919 % RECORDS) as f64 / RECORDS as f64)) as u64,
        _ => at % 1000,
    };
    (0..RECORDS).map(|at| key(at).to_le_bytes()).collect()
}

/// All records through one control: as many are delivered as may be, a thousand are in hand, and end in the order they began.
fn through(control: &mut Control<u64>, epochs: &[Epoch], keys: &[[u8; 8]], in_hand: &mut VecDeque<WorkId>) {
    let now = Duration::ZERO;
    let mut records = (0..).zip(keys);
    let mut left = keys.len();
    let mut under_way = 0;
    while left > 0 {
        while under_way < 2 * IN_FLIGHT
            && let Some((at, key)) = records.next()
        {
            let partition = at % PARTITIONS;
            let number = Partition(partition as u32);
            control.deliver(number, epochs[partition as usize], at / PARTITIONS, Some(key), at, now);
            under_way += 1;
        }
        while let Some(work) = control.next(now) {
            in_hand.push_back(work.id);
        }
        for _ in 0..in_hand.len().div_ceil(4) {
            if let Some(id) = in_hand.pop_front() {
                black_box(control.completed(id, Outcome::Done, now, 0.5));
                left -= 1;
                under_way -= 1;
            }
        }
        black_box(control.flow());
    }
    black_box(control.acknowledgements());
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(RECORDS));
    group.sample_size(10);
    let cases = [
        ("key", "distinct", Ordering::Key, Acknowledge::Position),
        ("key", "thousand", Ordering::Key, Acknowledge::Position),
        ("key", "zipf", Ordering::Key, Acknowledge::Position),
        ("unordered", "distinct", Ordering::Unordered, Acknowledge::Position),
        ("each", "thousand", Ordering::Key, Acknowledge::Each),
    ];
    for (name, kind, ordering, acknowledge) in cases {
        let keys = keys(kind);
        group.bench_function(BenchmarkId::new(name, kind), |bench| {
            bench.iter_with_large_drop(|| {
                let mut control = Control::new(options(ordering, acknowledge));
                let number = |at| Partition(u32::try_from(at).expect("few partitions"));
                let epochs: Vec<Epoch> =
                    (0..PARTITIONS).map(|at| control.assign(number(at), Start::default())).collect();
                through(&mut control, &epochs, &keys, &mut VecDeque::new());
                control
            });
        });
    }
    group.finish();
}

/// What a commit costs with so many records complete beyond the position, every second one.
fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metadata");
    for count in [10_u64, 1000, 20_000] {
        let mut ledger = Ledger::new(0);
        for offset in 0..count {
            ledger.deliver(offset, Duration::ZERO).expect("offsets rise");
        }
        for offset in (1..count).step_by(2) {
            ledger.complete_offset(offset, Duration::ZERO);
        }
        let text = metadata::encode(&ledger.snapshot());
        group.bench_function(BenchmarkId::new("encode", count), |bench| {
            bench.iter(|| metadata::encode(black_box(&ledger.snapshot())));
        });
        group.bench_function(BenchmarkId::new("decode", count), |bench| {
            bench.iter(|| metadata::decode(black_box(&text), 0, None));
        });
    }
    group.finish();
}

criterion_group!(benches, records, commits);
criterion_main!(benches);

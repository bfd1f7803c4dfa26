//! The source and the sink against librdkafka's mock cluster, which has groups, generations and commit metadata.

use std::time::{Duration, Instant};

use pype_plugin::host::Instance;
use pype_plugin::stream::{
    Assignment, Committed, NewRecord, Partition, Position, Records, RecordsBuilder, StreamEvent,
};
use pype_plugin::testing::{block_on, stream};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};

use crate::source::KafkaSource;

const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
}

impl Cluster {
    fn new(partitions: i32) -> Self {
        let mock = MockCluster::new(1).expect("a mock cluster");
        mock.create_topic("orders", partitions, 1).expect("a topic");
        mock.create_topic("letters", 1, 1).expect("a topic");
        Self { mock }
    }

    fn config(&self, group: &str, topic: &str) -> Value {
        // The mock lets members join again only when a session would have been over.
        let properties = json!({ "heartbeat.interval.ms": "500" });
        let brokers = self.mock.bootstrap_servers();
        json!({
            "brokers": brokers, "group": group, "topics": [topic], "session_timeout_ms": 6000, "properties": properties,
        })
    }

    async fn source(&self, group: &str) -> Reading {
        self.reading(self.config(group, "orders")).await
    }

    async fn reading(&self, config: Value) -> Reading {
        Reading { source: stream::<KafkaSource>(config).await.expect("it opens"), seen: Vec::new() }
    }
}

fn batch(records: impl IntoIterator<Item = (&'static str, String)>) -> RecordsBuilder {
    let mut batch = RecordsBuilder::default();
    for (topic, key) in records {
        let record = NewRecord { topic, key: Some(key.as_bytes()), value: Some(b"value"), ..NewRecord::default() };
        batch.push(record, [("header", Some(b"h".as_slice())), ("none", None)]);
    }
    batch
}

/// A source, and what it has told.
struct Reading {
    source: Instance,
    seen: Vec<(Partition, i64, String)>,
}

impl Reading {
    async fn next(&self) -> StreamEvent {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.source.poll(Duration::from_millis(100)).await {
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => assert!(error.retryable, "{error}"),
            }
        }
        panic!("nothing happened");
    }

    async fn assigned(&self) -> Vec<Assignment> {
        loop {
            match self.next().await {
                StreamEvent::Assigned(assigned) if !assigned.is_empty() => return assigned,
                StreamEvent::Records(_) => panic!("records before the assignment"),
                _ => {}
            }
        }
    }

    async fn records(&mut self, count: usize) {
        while self.seen.len() < count {
            let StreamEvent::Records(frame) = self.next().await else { continue };
            for records in Records::read(&frame).await.expect("records") {
                self.seen.extend(records.iter().map(|record| {
                    let partition = Partition { topic: record.topic().to_owned(), partition: record.partition() };
                    let headers: Vec<_> = record.headers().collect();
                    assert_eq!(headers, [("header", Some(b"h".as_slice())), ("none", None)]);
                    let key = String::from_utf8(record.key().expect("a key").to_vec()).expect("text");
                    (partition, record.offset(), key)
                }));
            }
        }
    }

    async fn commit(&self, assignment: &Assignment, epoch: u64, offset: i64) -> Vec<Committed> {
        let partition = assignment.partition.clone();
        let position = Position { partition, epoch, offset, metadata: format!("beyond {offset}") };
        self.source.commit_positions(vec![position]).await.expect("an answer")
    }

    async fn close(self) {
        self.source.close().await.expect("it closes");
    }
}

#[test]
fn what_is_published_is_read_and_commits_come_back_with_their_metadata() {
    let cluster = Cluster::new(2);
    block_on(async {
        let mut first = cluster.source("g").await;
        let assigned = first.assigned().await;
        assert_eq!(assigned.len(), 2);
        assert!(assigned.iter().all(|one| one.position.is_none() && one.metadata.is_none()));
        let keys = (0..2500).map(|number| ("orders", format!("key {number}")));
        first.source.publish(batch(keys).finish_frame()).await.expect("confirmed");
        first.records(2500).await;
        let mut keys: Vec<_> = first.seen.iter().map(|(_, _, key)| key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 2500);
        for one in &assigned {
            let offsets: Vec<_> = first.seen.iter().filter(|seen| seen.0 == one.partition).map(|seen| seen.1).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b), "{:?}", one.partition);
        }
        assert_eq!(first.commit(&assigned[0], assigned[0].epoch, 17).await[0].error, None);
        let stale = first.commit(&assigned[1], assigned[1].epoch + 100, 17).await;
        assert_eq!(stale[0].error.as_ref().expect("refused").code, "stale-epoch");
        first.close().await;

        let second = cluster.source("g").await;
        for one in second.assigned().await {
            let expected = (one.partition == assigned[0].partition).then_some(17);
            assert_eq!((one.position, one.metadata), (expected, expected.map(|_| "beyond 17".to_owned())));
        }
        second.close().await;
    });
}

#[test]
fn what_is_held_gives_no_records_and_loses_none() {
    let cluster = Cluster::new(2);
    block_on(async {
        let mut reading = cluster.source("g").await;
        let assigned = reading.assigned().await;
        let held = assigned[0].partition.clone();
        reading.source.hold(vec![held.clone()], true).await.expect("held");
        let keys = (0..400).map(|number| ("orders", format!("key {number}")));
        reading.source.publish(batch(keys).finish_frame()).await.expect("confirmed");
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            if let Ok(Some(StreamEvent::Records(frame))) = reading.source.poll(Duration::from_millis(50)).await {
                for records in Records::read(&frame).await.expect("records") {
                    let of = |record: pype_plugin::stream::Record<'_>| record.partition() == held.partition;
                    assert!(!records.iter().any(of), "it is held");
                    reading.seen.extend(records.iter().map(|record| {
                        let partition = Partition { topic: record.topic().to_owned(), partition: record.partition() };
                        (partition, record.offset(), String::new())
                    }));
                }
            }
        }
        assert!((1..400).contains(&reading.seen.len()), "{}", reading.seen.len());
        reading.source.hold(vec![held], false).await.expect("goes on");
        reading.records(400).await;
        reading.close().await;
    });
}

#[test]
fn a_partition_is_given_away_when_it_is_released_and_its_epochs_rise() {
    for rebalance in ["cooperative", "eager"] {
        let cluster = Cluster::new(2);
        block_on(async {
            let mut config = cluster.config("g", "orders");
            config["rebalance"] = json!(rebalance);
            let first = cluster.reading(config.clone()).await;
            let before = first.assigned().await;
            let second = cluster.reading(config).await;
            let revoked = loop {
                match first.next().await {
                    StreamEvent::Revoked(partitions) => break partitions,
                    _ => assert!(second.source.poll(Duration::ZERO).await.is_ok()),
                }
            };
            // What is under way ends, and is committed, before anybody else gets it; the mock, unlike a broker, takes no commits as
            // long as it waits for members to join again.
            let mut position = Some(5);
            for one in before.iter().filter(|one| revoked.contains(&one.partition)) {
                if let Some(error) = &first.commit(one, one.epoch, 5).await[0].error {
                    assert_eq!((error.code.as_str(), error.retryable), ("rebalancing", true));
                    position = None;
                }
            }
            first.source.release(revoked.clone()).await.expect("released");
            let taken = second.assigned().await;
            assert!(taken.iter().all(|one| one.position == position), "{rebalance}: {taken:?}");
            let given_away = before.iter().find(|one| revoked.contains(&one.partition)).expect("one at least");
            assert!(first.commit(given_away, given_away.epoch, 6).await[0].error.is_some());
            second.close().await;
            // What the second had comes back, with larger epochs.
            let mut back = Vec::new();
            while back.len() < taken.len() {
                match first.next().await {
                    StreamEvent::Assigned(more) => back.extend(more),
                    StreamEvent::Revoked(partitions) => {
                        first.source.release(partitions).await.expect("released");
                        back.clear();
                    }
                    _ => {}
                }
            }
            let last = before.iter().map(|one| one.epoch).max().expect("two");
            assert!(back.iter().all(|one| one.epoch > last), "{rebalance}: {back:?}");
            first.close().await;
        });
    }
}

#[test]
fn a_wrong_name_or_address_is_told_at_once() {
    let cluster = Cluster::new(1);
    let code = |config| block_on(stream::<KafkaSource>(config)).err().expect("it does not open").code.clone();
    let mut own = cluster.config("g", "orders");
    own["properties"] = json!({ "enable.auto.commit": "true" });
    assert_eq!(code(own), "own-property");
    let mut tls = cluster.config("g", "orders");
    tls["security"] = json!({ "protocol": "ssl" });
    let no_tls = if cfg!(feature = "tls") { "kafka" } else { "no-tls" };
    assert_eq!(code(tls), no_tls);
    assert_eq!(code(json!({ "brokers": "b", "group": "g", "topics": [] })), "no-topics");
}

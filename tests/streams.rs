//! Streams of a real Kafka: nothing lost, order kept for each key, whatever happens to brokers and members.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pype_core::stream::metadata;
use pype_tests::services::Server;
use pype_tests::serving::Running;
use pype_tests::{Done, Sandbox, artefacts, binary, plugin, wait_for};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(30);

/// One broker for the tests that only talk to it.
static SHARED: LazyLock<Option<Server>> = LazyLock::new(Server::kafka);

/// A topic on a broker, and the documents of a stream that reads it.
struct Topic<'s> {
    server: &'s Server,
    name: &'static str,
    partitions: i32,
    sandbox: Sandbox,
}

impl<'s> Topic<'s> {
    fn new(server: &'s Server, name: &'static str, partitions: i32) -> Self {
        Self::set(server, name, partitions, &[])
    }

    /// A topic with these settings.
    fn set(server: &'s Server, name: &'static str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::new();
        binary();
        for library in ["kafka", "stages", "decode"] {
            sandbox.register(&artefacts().join(format!("libpype_{library}.so")));
        }
        sandbox.register(&plugin("effects"));
        let topic = Self { server, name, partitions, sandbox };
        topic.create(name, partitions, settings);
        topic
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.server.address());
        client
    }

    fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("the broker answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Sends records with these keys, and waits until they are there.
    fn send(&self, keys: impl Iterator<Item = usize>) {
        let producer: BaseProducer = self.client().set("linger.ms", "5").create().expect("a producer");
        self.send_with(&producer, keys);
        producer.flush(PATIENCE).expect("they arrive");
    }

    fn send_with(&self, producer: &BaseProducer, keys: impl Iterator<Item = usize>) {
        self.send_values(producer, keys.map(|key| (key, "{}".to_owned())));
    }

    fn send_values(&self, producer: &BaseProducer, records: impl Iterator<Item = (usize, String)>) {
        for (key, value) in records {
            let key = format!("k{key}");
            let mut record = BaseRecord::to(self.name).key(&key).payload(&value);
            while let Err((error, back)) = producer.send(record) {
                assert!(error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull), "{error}");
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
    }

    /// Sends records with keys of both kinds, so many a second; how many in all.
    fn send_until(&self, until: Instant, rate: usize) -> usize {
        // What it sends again while the broker stands still is there once.
        let mut client = self.client();
        client.set("linger.ms", "5").set("enable.idempotence", "true");
        let producer: BaseProducer = client.create().expect("a producer");
        let mut keys = uniform(usize::MAX).zip(zipf(usize::MAX)).flat_map(|(one, other)| [one, other]);
        let (began, mut sent) = (Instant::now(), 0);
        while Instant::now() < until {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
            self.send_with(&producer, keys.by_ref().take(due.saturating_sub(sent)));
            sent = sent.max(due);
            producer.poll(Duration::from_millis(10));
        }
        producer.flush(PATIENCE * 4).expect("they arrive");
        sent
    }

    /// The records that the group's commits cover now, each with how often it has begun so far.
    fn covered(&self) -> BTreeMap<(i64, i64), usize> {
        let positions = self.positions();
        let begun = self.effects().begun();
        let is_covered = |(partition, offset): &(i64, i64)| {
            let Some((Some(position), end, metadata)) =
                usize::try_from(*partition).ok().and_then(|at| positions.get(at))
            else {
                return false;
            };
            let number = |offset: &i64| u64::try_from(*offset).expect("not negative");
            let marks = metadata::decode(metadata, number(position), Some(number(end)));
            let marks = marks.map(|marks| marks.ranges().to_vec()).unwrap_or_default();
            offset < position || marks.iter().any(|range| range.contains(&number(offset)))
        };
        begun.into_iter().filter(|(record, _)| is_covered(record)).collect()
    }

    /// The stream, with a pipeline whose only stage is `effect`.
    fn stream(&self, effect: &str, more: &str) {
        self.stream_with(effect, "", more);
    }

    /// The same, whose source is told more.
    fn stream_with(&self, effect: &str, source: &str, more: &str) {
        let address = self.server.address();
        let name = self.name;
        self.sandbox.write(
            "handle.yaml",
            &format!(
                "pipeline: {{name: handle, version: 1.0.0}}\n\
                 context: {{version: '1', fields: {{key: str, partition: int, offset: int}}}}\n\
                 stages:\n  - {{execute: effect, configs: {{{effect}}}}}\n"
            ),
        );
        self.sandbox.write(
            "stream.yaml",
            &format!(
                "stream: {{name: {name}, version: 1.0.0}}\n\
                 source:\n  name: kafka_source\n  configs:\n    \
                 required: {{brokers: '{address}', group: {name}, topics: [{name}]}}\n    \
                 optional: {{session_timeout_ms: 6000{source}}}\n\
                 handle: {{pipeline: handle.yaml}}\ncommit: {{interval_ms: 200}}\n{more}"
            ),
        );
    }

    fn start(&self) -> Running {
        let mut command = self.sandbox.command(&["run", "stream.yaml"]);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.sandbox.path("log"));
        Running::of(command.stderr(Stdio::from(log.expect("a log"))))
    }

    fn effects(&self) -> Effects {
        Effects::read(&self.sandbox.path("effects"))
    }

    /// What the group has committed for each partition, and where the log ends.
    fn positions(&self) -> Vec<(Option<i64>, i64, String)> {
        let consumer: BaseConsumer = self.client().set("group.id", self.name).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(self.name, 0, self.partitions - 1);
        let Ok(committed) = consumer.committed_offsets(list, PATIENCE) else { return Vec::new() };
        let of = |partition| {
            let (_, end) = consumer.fetch_watermarks(self.name, partition, PATIENCE).ok()?;
            let found = committed.find_partition(self.name, partition)?;
            let offset = match found.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            Some((offset, end, found.metadata().to_owned()))
        };
        (0..self.partitions).filter_map(of).collect()
    }

    /// Waits until everything is committed.
    fn wait_until_done(&self) {
        let began = Instant::now();
        loop {
            let positions = self.positions();
            let is_done = |(at, end, _): &(Option<i64>, i64, String)| *end == 0 || *at == Some(*end);
            if positions.len() == usize::try_from(self.partitions).expect("few") && positions.iter().all(is_done) {
                return;
            }
            if began.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(self.sandbox.path("log")).unwrap_or_default();
                panic!("not done: {positions:?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The records in another topic.
    fn letters(&self, topic: &str, count: usize) -> Vec<BTreeMap<String, String>> {
        let group = format!("letters of {topic}");
        let mut client = self.client();
        let consumer: BaseConsumer =
            client.set("group.id", group).set("auto.offset.reset", "earliest").create().expect("a consumer");
        consumer.subscribe(&[topic]).expect("it subscribes");
        let mut letters = Vec::new();
        let until = Instant::now() + PATIENCE;
        while letters.len() < count && Instant::now() < until {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let headers = message.headers().into_iter().flat_map(Headers::iter);
            let mut letter: BTreeMap<_, _> = headers.map(|one| (one.key.to_owned(), text(one.value))).collect();
            letter.insert("key".to_owned(), text(message.key()));
            letter.insert("value".to_owned(), text(message.payload()));
            letters.push(letter);
        }
        letters
    }
}

/// What the stage `effect` wrote down.
struct Effects {
    /// Key, partition, offset; whether it began or ended.
    lines: Vec<(bool, String, i64, i64)>,
}

impl Effects {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("four words").to_owned();
            let ended = word() == "E";
            let number = |word: String| word.parse().expect("a number");
            (ended, word(), number(word()), number(word()))
        });
        Self { lines: lines.collect() }
    }

    fn done(&self) -> BTreeSet<(i64, i64)> {
        self.lines.iter().filter(|(ended, ..)| *ended).map(|(_, _, partition, offset)| (*partition, *offset)).collect()
    }

    fn ends(&self) -> usize {
        self.lines.iter().filter(|(ended, ..)| *ended).count()
    }

    /// How often each record was begun.
    fn begun(&self) -> BTreeMap<(i64, i64), usize> {
        let mut begun = BTreeMap::new();
        for (_, _, partition, offset) in self.lines.iter().filter(|(ended, ..)| !ended) {
            *begun.entry((*partition, *offset)).or_default() += 1;
        }
        begun
    }

    /// The same of all records but these, which were never done.
    fn assert_order_but_for(mut self, offsets: &[i64]) {
        self.lines.retain(|(_, _, _, offset)| !offsets.contains(offset));
        self.assert_order();
    }

    /// No record began before the last one of its key had been done.
    fn assert_order(&self) {
        let mut offsets: HashMap<&str, BTreeSet<i64>> = HashMap::new();
        for (_, key, _, offset) in &self.lines {
            offsets.entry(key).or_default().insert(*offset);
        }
        let mut done: HashMap<&str, BTreeSet<i64>> = HashMap::new();
        for (ended, key, _, offset) in &self.lines {
            let of_key = done.entry(key).or_default();
            if *ended {
                of_key.insert(*offset);
            } else if let Some(before) = offsets[key.as_str()].range(..offset).next_back() {
                assert!(of_key.contains(before), "{key}: {offset} began before {before} was done");
            }
        }
    }
}

/// `key = i mod 1000`, as the peers' benchmarks have it.
fn uniform(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(|number| number % 1000)
}

/// Keys of which few have most of the records: the key of rank `k` comes with a frequency of about 1/k.
fn zipf(count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count).map(move |_| {
        // xorshift64, by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
        1000_f64.powf(unit) as usize
    })
}

/// What happens to a stream for a while.
struct Chaos {
    /// The name of its topic.
    name: &'static str,
    /// `parallel` of the document.
    parallel: &'static str,
    /// How members share partitions.
    rebalance: &'static str,
    /// How many records come a second.
    rate: usize,
    /// What the handler does.
    effect: &'static str,
}

/// How long a test of this kind goes on: `PYPE_CHAOS_S`, or some seconds.
fn chaos_time() -> Duration {
    let given = std::env::var("PYPE_CHAOS_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(12))
}

impl Chaos {
    /// Members join, leave and are killed; the broker stands still from time to time, so that commits fail; handlers fail; and
    /// all the while records come. Nothing may be lost, the keys keep their order, and what a commit covers is not handled again.
    fn run(&self) {
        let Some(server) = Server::kafka() else { return };
        let topic = Topic::new(&server, self.name, 8);
        let more =
            format!("parallel: {}\nretry: {{attempts: 1000, backoff_ms: 5, max_backoff_ms: 50}}\n", self.parallel);
        topic.stream_with(
            &format!("file: effects, {}", self.effect),
            &format!(", rebalance: {}", self.rebalance),
            &more,
        );
        let (until, mut sent) = (Instant::now() + chaos_time(), 0);
        let (mut members, mut kills, mut covered) = (vec![topic.start()], 0, Vec::new());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| topic.send_until(until, self.rate));
            for round in 0_u64.. {
                if Instant::now() > until {
                    break;
                }
                std::thread::sleep(Duration::from_millis(400 + round * 311 % 900));
                match round % 7 {
                    1 | 4 if members.len() > 1 => {
                        // As with kill -9: whoever comes next finds what it had committed.
                        drop(members.remove(0));
                        kills += 1;
                        covered.push((topic.covered(), Instant::now()));
                    }
                    3 if members.len() > 1 => {
                        let leaving = members.remove(0);
                        leaving.signal(libc::SIGTERM);
                        assert_eq!(leaving.ended(), Some(0));
                    }
                    5 => {
                        server.signal(libc::SIGSTOP);
                        std::thread::sleep(Duration::from_secs(2));
                        server.signal(libc::SIGCONT);
                    }
                    _ if members.len() < 4 => members.push(topic.start()),
                    _ => {}
                }
            }
            sent = sending.join().expect("they are sent");
        });
        members.push(topic.start());
        topic.wait_until_done();
        drop(members);
        let (effects, ends) = (topic.effects(), topic.positions());
        let done = effects.done();
        let all =
            (0..).zip(&ends).flat_map(|(partition, (_, end, _))| (0..*end).map(move |offset| (partition, offset)));
        let lost: Vec<_> = all.filter(|record| !done.contains(record)).collect();
        assert!(lost.is_empty(), "{} were not handled: {lost:?}", lost.len());
        assert_eq!(done.len(), sent, "what was sent is what there is: {ends:?}");
        effects.assert_order();
        let begun = effects.begun();
        for (covered, at) in covered {
            for (record, times) in covered {
                assert_eq!(
                    begun[&record],
                    times,
                    "{record:?} was covered by a commit {:?} before the end",
                    at.elapsed()
                );
            }
        }
        println!("{}: {} of {sent} records were handled again, after {kills} kills", self.name, effects.ends() - sent);
    }
}

#[test]
fn nothing_is_lost_and_keys_keep_their_order_while_members_come_go_and_are_killed() {
    let (effect, parallel) = ("work_us: 2000, fails_one_in: 200", "{max_in_flight: 100}");
    Chaos { name: "members", parallel, rebalance: "cooperative", rate: 3000, effect }.run();
}

#[test]
fn nothing_is_lost_when_members_give_up_everything_at_each_rebalance() {
    let (effect, parallel) = ("work_us: 2000, fails_one_in: 200", "{max_in_flight: 100}");
    Chaos { name: "eager", parallel, rebalance: "eager", rate: 3000, effect }.run();
}

#[test]
fn nothing_is_lost_when_the_broker_shares_out_the_partitions() {
    let (effect, parallel) = ("work_us: 2000, fails_one_in: 200", "{max_in_flight: 100}");
    Chaos { name: "kip848", parallel, rebalance: "broker", rate: 3000, effect }.run();
}

#[test]
fn nothing_is_lost_when_child_processes_handle_the_records() {
    let (effect, parallel) = ("work_us: 1000, fails_one_in: 200", "{max_in_flight: 100, engine: process, workers: 2}");
    Chaos { name: "children", parallel, rebalance: "cooperative", rate: 500, effect }.run();
}

#[test]
fn a_handler_that_crashes_or_hangs_costs_its_record_alone() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "crashes", 2);
    topic.create("crashes.dlq", 1, &[]);
    topic.stream(
        "file: effects, crashes_at: [7], hangs_at: [11]",
        "parallel: {engine: process, workers: 2, timeout_s: 0.5}\nretry: {attempts: 2, backoff_ms: 20}\n\
         dead_letter: {topic: crashes.dlq}\n",
    );
    topic.send(uniform(400));
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    let effects = topic.effects();
    assert_eq!(effects.done().len(), 400 - 4);
    let letters = topic.letters("crashes.dlq", 4);
    for letter in &letters {
        let says = if letter["offset"] == "7" { "crashed with SIGSEGV" } else { "did not let go of it" };
        assert!(letter["x-error-reason"].contains(says), "{letter:?}");
        assert_eq!(letter["x-retry-attempt"], "2");
    }
    // Each of the four was begun twice, and what was behind it in the hands of its child once.
    let begun = effects.begun();
    effects.assert_order_but_for(&[7, 11]);
    assert!(
        begun.iter().all(|((_, offset), times)| *times == if [7, 11].contains(offset) { 2 } else { 1 }),
        "{begun:?}"
    );
    let post_mortems: Vec<_> = fs::read_dir(topic.sandbox.path("runs/post-mortem")).expect("there").flatten().collect();
    assert_eq!(post_mortems.len(), 8);
    let of_segfault = post_mortems.iter().map(|one| fs::read_to_string(one.path().join("meta.json")).expect("there"));
    assert!(of_segfault.filter(|meta| meta.contains("crashes/") && meta.contains("SIGSEGV")).count() == 4);
}

#[test]
fn a_record_that_crashes_a_decoder_costs_none_of_those_it_came_with() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "picky", 1);
    topic.create("picky.dlq", 1, &[]);
    topic.stream(
        "file: effects",
        "parallel: {engine: process, workers: 2}\nretry: {attempts: 1}\ndead_letter: {topic: picky.dlq}\n\
         decode:\n  - {name: json_decode, configs: {required: {fields: {offset: {type: int, from: n}}}, \
         optional: {keep: [partition]}}}\n  - {name: picky, configs: {required: {crashes_at: [57]}}}\n",
    );
    let producer: BaseProducer = topic.client().create().expect("a producer");
    topic.send_values(&producer, (0..200).map(|n| (n, format!("{{\"n\": {n}}}"))));
    producer.flush(PATIENCE).expect("they arrive");
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    let expect: BTreeSet<_> = (0..200).filter(|n| *n != 57).map(|n| (0, n)).collect();
    assert_eq!(topic.effects().done(), expect);
    let letters = topic.letters("picky.dlq", 1);
    assert!(letters[0]["x-error-reason"].contains("crashed with SIGSEGV"), "{letters:?}");
    assert_eq!(letters[0]["offset"], "57");
}

#[test]
fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(mut server) = Server::kafka() else { return };
    let (mut running, sandbox);
    {
        let topic = Topic::new(&server, "restarts", 4);
        topic.stream("file: effects, work_us: 3000", "parallel: {max_in_flight: 50}\n");
        topic.send(uniform(20_000));
        running = Some(topic.start());
        wait_for("some to be done", || (topic.effects().ends() > 1000).then_some(()));
        sandbox = topic.sandbox;
    }
    server.kill();
    std::thread::sleep(Duration::from_secs(2));
    server.start();
    let topic = Topic { server: &server, name: "restarts", partitions: 4, sandbox };
    topic.wait_until_done();
    drop(running.take());
    let effects = topic.effects();
    assert_eq!(effects.done().len(), 20_000);
    effects.assert_order();
    println!("{} of 20,000 records were handled again", effects.ends() - 20_000);
}

#[test]
fn holes_do_not_stall_a_stream() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "holes", 2);
    topic.stream("file: effects", "");
    topic.send(uniform(12_000));
    // A group that starts behind 0: what was before is gone.
    let admin: AdminClient<DefaultClientContext> = topic.client().create().expect("a client");
    let mut gone = TopicPartitionList::new();
    for partition in 0..2 {
        gone.add_partition_offset("holes", partition, Offset::Offset(5000)).expect("an offset");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(admin.delete_records(&gone, &AdminOptions::new())).expect("they are deleted");
    // A transaction that is committed leaves a marker; one that is aborted leaves records nobody gets, at the log's end too.
    let producer: BaseProducer = topic.client().set("transactional.id", "t").create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("a transaction");
    for aborted in [false, true, false, true] {
        producer.begin_transaction().expect("begun");
        topic.send_with(&producer, 0..100);
        producer.flush(PATIENCE).expect("they arrive");
        match aborted {
            true => producer.abort_transaction(PATIENCE).expect("aborted"),
            false => producer.commit_transaction(PATIENCE).expect("committed"),
        }
    }
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    let done = topic.effects().done();
    assert!(done.iter().all(|(_, offset)| *offset >= 5000));
    assert_eq!(done.len(), 12_000 - 2 * 5000 + 200, "what was committed, and nothing that was aborted");
}

#[test]
fn a_compacted_topic_does_not_stall_a_stream() {
    let Some(server) = SHARED.as_ref() else { return };
    // The cleaner leaves the segment alone that is written to: the shortest possible time makes each batch begin another.
    let settings = [("cleanup.policy", "compact"), ("segment.ms", "100"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic = Topic::set(server, "compacted", 2, &settings);
    for _ in 0..4 {
        topic.send(uniform(3000));
        std::thread::sleep(Duration::from_millis(200));
    }
    let there = || {
        let consumer: BaseConsumer = topic.client().set("group.id", "look").create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..2 {
            list.add_partition_offset("compacted", partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("assigned");
        let mut left: BTreeMap<i32, i64> =
            topic.positions().iter().zip(0..).map(|((_, end, _), at)| (at, *end)).collect();
        let mut offsets = BTreeSet::new();
        while !left.is_empty() {
            let message = consumer.poll(PATIENCE).expect("in time").expect("a record");
            offsets.insert((i64::from(message.partition()), message.offset()));
            // The last record of a partition is never compacted away.
            left.retain(|partition, end| *partition != message.partition() || *end > message.offset() + 1);
        }
        offsets
    };
    wait_for("the broker to compact the topic", || (there().len() < 6000).then_some(()));
    topic.stream("file: effects", "");
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    let effects = topic.effects();
    assert!(effects.done().is_superset(&there()), "the rest was handled");
    assert!(effects.done().len() < 9000, "there were holes");
    effects.assert_order();
}

#[test]
fn what_fails_goes_to_the_dead_letters_and_a_stream_without_them_stops_there() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "failures", 1);
    topic.create("failures.dlq", 1, &[]);
    topic.stream("file: effects, fails_at: [7, 11]", "retry: {attempts: 3, backoff_ms: 20}\n");
    topic.send(uniform(50));
    let stopped: Done = topic.sandbox.pype(&["run", "stream.yaml"]);
    stopped.fails(30, &["`failures/0/", "could not be handled", "dead_letter", "it was told to fail"]);
    assert!(topic.positions()[0].0.is_none_or(|position| position <= 7), "it passed the record");
    let letters = "retry: {attempts: 3, backoff_ms: 20}\ndead_letter: {topic: failures.dlq}\n";
    topic.stream("file: effects, fails_at: [7, 11]", letters);
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    assert_eq!(topic.effects().done().len(), 48);
    let letters = topic.letters("failures.dlq", 2);
    let mut of: Vec<_> = letters.iter().map(|letter| letter["offset"].as_str()).collect();
    of.sort_unstable();
    assert_eq!(of, ["11", "7"]);
    for letter in &letters {
        let expected = ("failures", "0", "3");
        assert_eq!((letter["source-topic"].as_str(), &*letter["partition"], &*letter["x-retry-attempt"]), expected);
        assert!(letter["x-error-reason"].contains("it was told to fail") && letter.contains_key("epoch"));
        assert_eq!(letter["key"], format!("k{}", letter["offset"]));
    }
}

#[test]
fn decoders_fill_the_context_of_a_pipeline_and_what_cannot_be_decoded_is_a_dead_letter() {
    let Some(server) = SHARED.as_ref() else { return };
    for (name, engine) in [("decoded", "async"), ("decoded-apart", "process, workers: 2")] {
        let topic = Topic::new(server, name, 1);
        topic.create(&format!("{name}.dlq"), 1, &[]);
        let more = format!(
            "parallel: {{engine: {engine}}}\ndead_letter: {{topic: {name}.dlq}}\n\
             decode: [{{name: json_decode, configs: {{required: {{fields: {{offset: {{type: int, from: n}}}}}}, \
             optional: {{keep: [partition]}}}}}}]\n"
        );
        topic.stream("file: effects", &more);
        let producer: BaseProducer = topic.client().create().expect("a producer");
        let value = |n: usize| if n % 10 == 3 { "no JSON".to_owned() } else { format!("{{\"n\": {}}}", 1000 + n) };
        topic.send_values(&producer, (0..100).map(|n| (n, value(n))));
        producer.flush(PATIENCE).expect("they arrive");
        let running = topic.start();
        topic.wait_until_done();
        assert_eq!(running.interrupt(), Some(0));
        let expect: BTreeSet<_> = (0..100).filter(|n| n % 10 != 3).map(|n| (0, 1000 + n)).collect();
        assert_eq!(topic.effects().done(), expect, "{engine}");
        let letters = topic.letters(&format!("{name}.dlq"), 10);
        assert_eq!(letters.len(), 10, "{engine}");
        for letter in letters {
            assert!(letter["x-error-reason"].contains("not JSON") && letter["offset"].ends_with('3'), "{letter:?}");
            assert_eq!(letter["x-retry-attempt"], "1");
        }
    }
}

#[test]
fn somebody_hears_of_a_stream_that_stops() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "alerted", 1);
    topic.create("alerts", 1, &[]);
    topic.stream("file: effects, fails_at: [3]", "retry: {attempts: 1}\nalerts: {topic: alerts}\n");
    topic.send(uniform(10));
    topic.sandbox.pype(&["run", "stream.yaml"]).fails(30, &["could not be handled"]);
    let alerts = topic.letters("alerts", 1);
    let told: serde_json::Value = serde_json::from_str(&alerts[0]["value"]).expect("JSON");
    assert_eq!((&told["stream"], &told["kind"]), (&"alerted".into(), &"stopped".into()));
    assert!(told["message"].as_str().is_some_and(|message| message.contains("it was told to fail")), "{told}");
}

#[test]
fn garbage_in_the_metadata_of_a_group_is_harmless() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "garbage", 3);
    topic.stream("file: effects", "");
    topic.send(uniform(3000));
    let consumer: BaseConsumer = topic.client().set("group.id", topic.name).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for (partition, metadata) in ["\u{1}\u{2}garbage", "R0-999999999999", "somebody else's"].into_iter().enumerate() {
        let mut element = list.add_partition("garbage", i32::try_from(partition).expect("few"));
        element.set_offset(Offset::Offset(10)).expect("an offset");
        element.set_metadata(metadata);
    }
    consumer.commit(&list, CommitMode::Sync).expect("committed");
    let running = topic.start();
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    assert_eq!(topic.effects().done().len(), 3000 - 30);
}

#[test]
fn a_broker_that_wants_a_password_gets_it_and_who_has_the_wrong_one_is_told() {
    let Some(server) = Server::kafka_with_passwords() else { return };
    let topic = Topic::new(&server, "guarded", 1);
    topic.create("guarded.dlq", 1, &[]);
    topic.stream("file: effects, fails_at: [3]", "retry: {attempts: 1}\ndead_letter: {topic: guarded.dlq}\n");
    topic.send(uniform(100));
    let security =
        "security: {protocol: sasl_plaintext, mechanism: PLAIN, username: pype, password: \"{{secret.kafka}}\"}";
    let text = topic.sandbox.read("stream.yaml").replace(&server.address(), &server.address_to_log_in());
    topic.sandbox.write("stream.yaml", &text.replace("optional: {", &format!("optional: {{{security}, ")));
    let with = |password: &str| {
        let mut command = topic.sandbox.command(&["run", "stream.yaml"]);
        command.env("PYPE_SECRET_KAFKA", password);
        command
    };
    let refused = Done::of(with("guessed").output().expect("the binary runs"));
    refused.fails(30, &["Authentication failed", "error[not-allowed]", "check `security`"]);
    assert!(!refused.err.contains("guessed"), "{}", refused.err);
    let running = Running::of(&mut with("secret"));
    topic.wait_until_done();
    assert_eq!(running.interrupt(), Some(0));
    assert_eq!(topic.effects().done().len(), 99);
    assert_eq!(topic.letters("guarded.dlq", 1)[0]["offset"], "3");
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let Some(server) = SHARED.as_ref() else { return };
    let topic = Topic::new(server, "mistakes", 1);
    topic.stream("file: effects", "");
    let text = topic.sandbox.read("stream.yaml");
    let with = |from: &str, to: &str| {
        topic.sandbox.write("stream.yaml", &text.replace(from, to));
        topic.sandbox.pype(&["run", "stream.yaml"])
    };
    with("topics: [mistakes]", "topics: [nowhere]").fails(30, &["`nowhere`", "create it, or correct its name"]);
    with("handle: {", "handel: {").fails(20, &["stream.yaml:", "did you mean `handle`"]);
    with("kafka_source", "kafka_sauce").fails(20, &["kafka_sauce", "did you mean `kafka_source`"]);
    with("pipeline: handle.yaml", "pipeline: nowhere.yaml").fails(20, &["nowhere.yaml"]);
    let away = with(&topic.server.address(), "127.0.0.1:1");
    away.fails(30, &["cannot reach the brokers `127.0.0.1:1`", "check `brokers`"]);
}

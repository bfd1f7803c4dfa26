//! Records of Kafka through pype, beside a plain loop, Confluent's Parallel Consumer and Pyrallel-Consumer: the same broker, the
//! same machine, one after the other.
//!
//! `cargo bench --bench streams` runs all cases; `-- key` only those whose name has that in it, `-- --only pype,plain` only those
//! contenders. `--records N` sets how many records there are (100,000); of a contender that would take longer than a quarter of a
//! minute, fewer are counted. What is not installed is skipped by name: see `tests/benches/peers/run --help`, which also says what
//! the work of a handler is.
//!
//! Aims: by key, at work of 0 to 100 us, three times Confluent's; at 10 ms, 0.95 of what `max_in_flight` allows, which is 100
//! records a second for each; and where parallelism cannot help, since all records have one key, 0.9 of the plain loop.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its report")]

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pype_tests::http::request;
use pype_tests::measure::{cpu_s, mb, peak_memory, peer, tree, tree_cpu_s};
use pype_tests::services::Server;
use pype_tests::{Sandbox, artefacts, binary, plugin};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// A contender is given so many records that it takes about so long.
const TIME: Duration = Duration::from_secs(15);

/// Which keys records have.
#[derive(Clone, Copy)]
enum Keys {
    /// The number of the record, modulo 1000.
    Uniform,
    /// The key of rank `k` of 1000 comes with a frequency of about 1/k.
    Zipf,
    /// All have the same.
    One,
}

struct Case {
    name: &'static str,
    keys: Keys,
    /// As pype has it.
    ordering: &'static str,
    work_us: u64,
    /// Whether pype's handler holds its thread meanwhile. The plain loop's always does.
    computes: bool,
}

const CASES: [Case; 15] = [
    Case { name: "key, no work", keys: Keys::Uniform, ordering: "key", work_us: 0, computes: false },
    Case { name: "key, 100 us", keys: Keys::Uniform, ordering: "key", work_us: 100, computes: false },
    Case { name: "key, 1 ms", keys: Keys::Uniform, ordering: "key", work_us: 1_000, computes: false },
    Case { name: "key, 10 ms", keys: Keys::Uniform, ordering: "key", work_us: 10_000, computes: false },
    Case { name: "zipf keys, no work", keys: Keys::Zipf, ordering: "key", work_us: 0, computes: false },
    Case { name: "zipf keys, 1 ms", keys: Keys::Zipf, ordering: "key", work_us: 1_000, computes: false },
    Case { name: "partition, no work", keys: Keys::Uniform, ordering: "partition", work_us: 0, computes: false },
    Case { name: "partition, 1 ms", keys: Keys::Uniform, ordering: "partition", work_us: 1_000, computes: false },
    Case { name: "unordered, no work", keys: Keys::Uniform, ordering: "unordered", work_us: 0, computes: false },
    Case { name: "unordered, 1 ms", keys: Keys::Uniform, ordering: "unordered", work_us: 1_000, computes: false },
    Case { name: "unordered, 10 ms", keys: Keys::Uniform, ordering: "unordered", work_us: 10_000, computes: false },
    Case { name: "one lane, 100 us", keys: Keys::One, ordering: "key", work_us: 100, computes: false },
    Case { name: "one lane, 100 us computing", keys: Keys::One, ordering: "key", work_us: 100, computes: true },
    Case { name: "one lane, 1 ms", keys: Keys::One, ordering: "key", work_us: 1_000, computes: false },
    Case { name: "one lane, 10 ms", keys: Keys::One, ordering: "key", work_us: 10_000, computes: false },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    Plain,
    /// With so many records in flight.
    Async(u32),
    Process,
    Confluent(u32),
    Pyrallel(u32),
}

const CONTENDERS: [(Contender, &str); 7] = [
    (Contender::Plain, "plain loop, rdkafka"),
    (Contender::Async(100), "pype, async, 100 in flight"),
    (Contender::Async(1000), "pype, async, 1000 in flight"),
    (Contender::Process, "pype, process"),
    (Contender::Confluent(100), "confluent, concurrency 100"),
    (Contender::Confluent(1000), "confluent, concurrency 1000"),
    (Contender::Pyrallel(1000), "pyrallel, async, 1000 in flight"),
];

/// What a contender did.
struct Took {
    records_per_s: f64,
    p99_ms: f64,
    cpu_s: f64,
    peak_rss_mb: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("streams: skipped, since this is no `cargo bench`");
        return;
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let records: u32 = value("--records").map_or(100_000, |text| text.parse().expect("--records takes a number"));
    let only = value("--only").unwrap_or_default();
    let values = [value("--records"), value("--only")];
    let is_name = |argument: &&String| !argument.starts_with('-') && !values.contains(&Some((*argument).clone()));
    let names: Vec<&String> = arguments.iter().filter(is_name).collect();
    let Some(server) = Server::kafka() else { return };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{records} records, 8 partitions; {cores} cores, with a load of {} before", &load[..4]);
    let bench = Bench { server, sandbox: Sandbox::new(), records };
    bench.prepare();
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| case.name.contains(*name))) {
        println!("\n{:<34} {:>11} {:>10} {:>8} {:>8}", case.name, "records/s", "p99 ms", "CPU s", "MB");
        for (contender, name) in CONTENDERS {
            if !only.is_empty() && !only.split(',').any(|part| name.starts_with(part)) {
                continue;
            }
            match bench.run(case, contender) {
                Ok(Took { records_per_s, p99_ms, cpu_s, peak_rss_mb }) => {
                    println!("{name:<34} {records_per_s:>11.0} {p99_ms:>10.2} {cpu_s:>8.1} {peak_rss_mb:>8.0}")
                }
                Err(why) => println!("{name:<34} skipped: {why}"),
            }
        }
    }
}

struct Bench {
    server: Server,
    sandbox: Sandbox,
    records: u32,
}

impl Bench {
    fn prepare(&self) {
        binary();
        for library in ["kafka", "stages"] {
            self.sandbox.register(&artefacts().join(format!("libpype_{library}.so")));
        }
        self.sandbox.register(&plugin("effects"));
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client");
        let topics = ["uniform", "zipf", "one"].map(|name| NewTopic::new(name, 8, TopicReplication::Fixed(1)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).expect("the broker answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        for (topic, keys) in [("uniform", Keys::Uniform), ("zipf", Keys::Zipf), ("one", Keys::One)] {
            self.load(topic, keys);
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.server.address());
        client
    }

    fn load(&self, topic: &str, keys: Keys) {
        let producer: BaseProducer = self.client().set("linger.ms", "20").create().expect("a producer");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for number in 0..self.records {
            // xorshift64, by Marsaglia.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
            let key = match keys {
                Keys::Uniform => number % 1000,
                Keys::Zipf => 1000_f64.powf(unit) as u32,
                Keys::One => 0,
            };
            let (key, value) = (format!("k{key}"), format!("{{\"n\":{number}}}"));
            let mut record = BaseRecord::to(topic).key(&key).payload(&value);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(PATIENCE).expect("they arrive");
    }

    /// How many records a contender is given that does so many a second at most.
    fn count(&self, most_per_s: f64) -> u32 {
        self.records.min((most_per_s * TIME.as_secs_f64()) as u32).max(100)
    }

    fn run(&self, case: &Case, contender: Contender) -> Result<Took, String> {
        let lanes = match (case.keys, case.ordering) {
            (Keys::One, _) => 1.0,
            (_, "partition") => 8.0,
            _ => f64::INFINITY,
        };
        // So many at a time, each for so long.
        let bound = |at_once: f64| match case.work_us {
            0 => f64::INFINITY,
            work => at_once.min(lanes) * 1e6 / work as f64,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        match contender {
            Contender::Plain => Ok(self.plain(case, self.count(bound(1.0)))),
            Contender::Async(in_flight) => self.pype(case, "async", in_flight, self.count(bound(f64::from(in_flight)))),
            Contender::Process => self.pype(case, "process", 1000, self.count(bound(cores))),
            Contender::Confluent(concurrency) => {
                self.peer(case, "confluent", concurrency, self.count(bound(f64::from(concurrency))))
            }
            Contender::Pyrallel(in_flight) => {
                self.peer(case, "pyrallel", in_flight, self.count(bound(f64::from(in_flight)).min(1_500.0)))
            }
        }
    }

    /// One consumer that handles each record where it is, and commits once a second.
    fn plain(&self, case: &Case, count: u32) -> Took {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", group())
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        consumer.subscribe(&[topic(case)]).expect("it subscribes");
        let (mut first, mut committed, mut cpu) = (None, Instant::now(), 0.0);
        let mut latencies = Vec::with_capacity(count as usize);
        while (latencies.len() as u32) < count {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            let polled = Instant::now();
            if first.is_none() {
                (first, cpu) = (Some(polled), cpu_s(std::process::id()));
            }
            assert!(message.payload().is_some_and(|value| value.starts_with(b"{")));
            work(case.work_us);
            latencies.push(polled.elapsed().as_secs_f64() * 1e3);
            if committed.elapsed() > Duration::from_secs(1) {
                consumer.commit_consumer_state(CommitMode::Async).expect("it commits");
                committed = Instant::now();
            }
        }
        let seconds = first.expect("there are records").elapsed().as_secs_f64();
        latencies.sort_by(f64::total_cmp);
        Took {
            records_per_s: f64::from(count) / seconds,
            p99_ms: latencies[latencies.len() * 99 / 100],
            cpu_s: cpu_s(std::process::id()) - cpu,
            peak_rss_mb: mb(peak_memory(std::process::id()).expect("this runs")),
        }
    }

    fn pype(&self, case: &Case, engine: &str, in_flight: u32, count: u32) -> Result<Took, String> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let (brokers, group, topic) = (self.server.address(), group(), topic(case));
        let Case { ordering, work_us, computes, .. } = case;
        self.sandbox.write(
            "handle.yaml",
            &format!(
                "pipeline: {{name: handle, version: 1.0.0}}\ncontext: {{version: '1', fields: {{n: int}}}}\n\
                 stages:\n  - {{execute: effect, configs: {{work_us: {work_us}, computes: {computes}}}}}\n"
            ),
        );
        self.sandbox.write(
            "stream.yaml",
            &format!(
                "stream: {{name: bench, version: 1.0.0}}\nsource:\n  name: kafka_source\n  configs: {{required: \
                 {{brokers: '{brokers}', group: {group}, topics: [{topic}]}}}}\nparallel: {{ordering: {ordering}, \
                 max_in_flight: {in_flight}, engine: {engine}}}\nmetrics: {{listen: '127.0.0.1:{port}'}}\n\
                 handle: {{pipeline: handle.yaml}}\n"
            ),
        );
        let mut command = self.sandbox.command(&["run", "stream.yaml", "--log", "warn"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the binary runs");
        let mut child = Ended(child);
        let address = ([127, 0, 0, 1], port).into();
        let metrics = || request(address, "GET", "/metrics", &[], b"").ok().map(|answer| Metrics::of(&answer.body));
        let (mut begun, mut last) = (None, None);
        wait_until(TIME * 20, || {
            if child.0.try_wait().expect("it is ours").is_some() {
                return true;
            }
            let (now, Some(metrics)) = (Instant::now(), metrics()) else { return false };
            if metrics.done > 0 && begun.is_none() {
                begun = Some((now, metrics.done, tree_cpu_s(child.0.id())));
            }
            let is_over = metrics.done >= u64::from(count);
            if is_over {
                last = Some((now, metrics));
            }
            is_over
        });
        let (Some((first, before, cpu)), Some((end, metrics))) = (begun, last) else {
            return Err("it ended, or took too long".to_owned());
        };
        Ok(Took {
            records_per_s: (metrics.done - before) as f64 / (end - first).as_secs_f64(),
            p99_ms: metrics.p99_ms,
            cpu_s: tree_cpu_s(child.0.id()) - cpu,
            peak_rss_mb: mb(tree(child.0.id()).into_iter().filter_map(peak_memory).sum()),
        })
    }

    fn peer(&self, case: &Case, name: &str, concurrency: u32, count: u32) -> Result<Took, String> {
        let (broker, group, count) = (self.server.address(), group(), count.to_string());
        let (ordering, concurrency) = (case.ordering.to_uppercase(), concurrency.to_string());
        let work = case.work_us.to_string();
        let told = peer(name, &[&broker, topic(case), &group, &count, &ordering, &concurrency, &work])?;
        let number = |name: &str| told.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        Ok(Took {
            records_per_s: number("records_per_s"),
            p99_ms: number("p99_ms"),
            cpu_s: number("cpu_s"),
            peak_rss_mb: number("peak_rss_mb"),
        })
    }
}

fn topic(case: &Case) -> &'static str {
    match case.keys {
        Keys::Uniform => "uniform",
        Keys::Zipf => "zipf",
        Keys::One => "one",
    }
}

/// A group that nobody had before.
fn group() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("g{:x}", RandomState::new().hash_one(()))
}

/// Waits at least so long. What is short the system would make longer: it spins.
fn work(us: u64) {
    match Duration::from_micros(us) {
        Duration::ZERO => {}
        time if us >= 1000 => std::thread::sleep(time),
        time => {
            let until = Instant::now() + time;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    }
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait_until(time: Duration, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < time && !there() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a stream tells of itself.
struct Metrics {
    done: u64,
    p99_ms: f64,
}

impl Metrics {
    fn of(text: &str) -> Self {
        let number = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
        let lines = || text.lines().filter(|line| line.starts_with("pype_stream_latency_seconds"));
        let done = lines().find(|line| line.contains("_count")).map_or(0.0, number);
        let bucket = |line: &str| {
            let bound = line.split("le=\"").nth(1)?.split('"').next()?.parse::<f64>().ok()?;
            Some((bound, number(line)))
        };
        // Within a bucket they are taken to be spread evenly.
        let (mut below, mut p99) = ((0.0, 0.0), f64::NAN);
        for (bound, count) in lines().filter_map(bucket) {
            if count >= done * 0.99 && p99.is_nan() {
                let share = (done * 0.99 - below.1) / (count - below.1).max(1.0);
                p99 = below.0 + share * (bound - below.0);
            }
            below = (bound, count);
        }
        Self { done: done as u64, p99_ms: p99 * 1e3 }
    }
}

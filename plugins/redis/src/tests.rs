//! On a real server: the contract of queues, locks, and messages.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow_array::cast::AsArray;
use pype_plugin::host::Instance;
use pype_plugin::prelude::*;
use pype_plugin::testing;
use pype_tests::services::Server;
use serde_json::json;

use crate::lock::RedisLock;
use crate::publish::RedisPublish;
use crate::queue::Redis;
use crate::subscribe::RedisSubscribe;

/// The server of this process.
fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::redis).as_ref()
}

fn is_there() -> bool {
    server().is_some()
}

async fn open_at(server: &str, name: &str) -> Result<Instance> {
    testing::queue::<Redis>(json!({ "url": format!("redis://{server}"), "name": name })).await
}

async fn open(name: &str) -> Result<Instance> {
    open_at(&server().expect("asked before").address(), name).await
}

pype_plugin::queue_contract!(open, when is_there);

#[test]
fn jobs_outlive_a_server_that_is_killed() {
    let Some(server) = Server::redis() else { return };
    let (address, server) = (server.address(), Arc::new(Mutex::new(server)));
    let restarted = server.clone();
    let restart = move || restarted.lock().expect("nobody panics with it").restart();
    let open = async |name: &str| open_at(&address, name).await;
    testing::contract::a_store_that_is_killed_and_comes_back_loses_nothing(open, restart);
}

#[test]
fn a_server_that_is_away_or_forgets_or_is_none_is_refused_with_what_to_do() {
    let Some(mut server) = Server::redis() else { return };
    let at = |url: String| testing::block_on(testing::queue::<Redis>(json!({ "url": url }))).err().expect("refused");
    assert_eq!(at("http://localhost".to_owned()).code, "bad-url");
    let address = server.address();
    testing::block_on(async {
        let client = redis::Client::open(format!("redis://{address}")).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connected");
        let off = redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("no").exec_async(&mut connection).await;
        off.expect("it may be turned off");
    });
    let forgets = at(format!("redis://{address}"));
    assert_eq!(forgets.code, "redis-not-durable");
    assert!(forgets.hint.as_deref().is_some_and(|hint| hint.contains("config set appendonly yes")), "{forgets}");
    server.kill();
    let away = at(format!("redis://:secret@{address}"));
    assert_eq!((away.kind, away.retryable), (ErrorKind::Unavailable, true));
    assert!(away.message.contains(&address) && !away.message.contains("secret"), "{away}");
}

fn url(server: &Server) -> String {
    format!("redis://{}", server.address())
}

async fn connection(server: &Server) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url(server)).expect("a URL");
    client.get_multiplexed_async_connection().await.expect("connected")
}

#[test]
fn one_at_a_time_has_a_lock_and_each_owner_a_larger_token() {
    let Some(server) = server() else { return };
    let (inside, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tokens: Arc<Mutex<Vec<u64>>> = Arc::default();
    let owner = |file: &'static str| {
        let (inside, most, tokens) = (inside.clone(), most.clone(), tokens.clone());
        let config = json!({ "url": url(server), "name": "one-at-a-time", "by": "file_path" });
        let test = testing::stage::<RedisLock>(config).field("file_path", json!(file));
        test.rest(move |fields| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            inside.fetch_sub(1, Ordering::SeqCst);
            let token = fields.json()["fencing_token"].as_u64().expect("a token");
            tokens.lock().expect("nobody panics with it").push(token);
            Ok(json!(file))
        })
    };
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(owner("a").run().result, Ok(json!("a"))));
        }
    });
    let tokens = tokens.lock().expect("nobody panics with it").clone();
    assert_eq!((most.load(Ordering::SeqCst), tokens.len()), (1, 5));
    assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
}

#[test]
fn a_lock_that_is_held_or_lost_ends_the_run_with_an_error_that_may_be_tried_again() {
    let Some(server) = server() else { return };
    let lock = |name: &str| {
        let config = json!({ "url": url(server), "name": name, "ttl_ms": 150, "wait_ms": 0 });
        testing::stage::<RedisLock>(config)
    };
    let taken = async |key: &'static str| {
        let mut connection = connection(server).await;
        redis::cmd("SET").arg(key).arg(99).exec_async(&mut connection).await.expect("set");
    };
    testing::block_on(taken("{held}:lock"));
    let held = lock("held").run().result.expect_err("it is another's");
    assert_eq!((held.code.as_str(), held.retryable), ("lock-held", true));
    // A pause of the owner, in which another takes the lock.
    let lost = lock("lost").rest_later(move |_| async move {
        taken("{lost}:lock").await;
        std::future::pending().await
    });
    let lost = lost.run().result.expect_err("it is another's");
    assert_eq!((lost.code.as_str(), lost.retryable), ("lock-lost", true));
}

#[test]
fn what_is_published_is_heard() {
    let Some(server) = server() else { return };
    let listen = json!({ "url": url(server), "channels": ["uploads.*"], "messages": 2, "for_s": 30 });
    let publish = |config: Value| {
        let stage = testing::stage::<RedisPublish>(config);
        let done = stage.field("file_path", json!("a.txt")).bytes("file_content", vec![0, 255]).run();
        assert!(done.result.is_ok(), "{done:?}");
    };
    let mut heard = std::thread::scope(|scope| {
        let listening = scope.spawn(|| testing::source::<RedisSubscribe>(listen).run());
        testing::block_on(async {
            let mut connection = connection(server).await;
            let patterns = async |connection: &mut _| -> u32 {
                redis::cmd("PUBSUB").arg("NUMPAT").query_async(connection).await.expect("told")
            };
            while patterns(&mut connection).await == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let config = json!({ "url": url(server), "channel": "uploads.done" });
        publish(config.clone());
        publish(json!({ "url": config["url"], "channel": "uploads.done", "body": "file_content" }));
        listening.join().expect("it ends")
    });
    let frame = heard.output("data");
    let batch = testing::block_on(async {
        let schema = frame.arrow_schema().await.expect("a schema");
        frame.next_record_batch(&schema).await.expect("read").expect("one")
    });
    let value = |row: usize| batch.column(1).as_binary::<i32>().value(row);
    assert_eq!((value(0), value(1)), (br#"{"file_path":"a.txt"}"#.as_slice(), [0, 255].as_slice()));
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "uploads.done");
    let none = json!({ "url": url(server), "channels": ["nobody"], "for_s": 0.05 });
    let nothing = testing::source::<RedisSubscribe>(none).run();
    assert_eq!((nothing.result, nothing.outputs.len()), (Ok(()), 1));
}

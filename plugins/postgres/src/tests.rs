//! On a real server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pype_plugin::prelude::*;
use pype_plugin::testing;
use pype_tests::services::Server;
use serde_json::json;

use crate::lock::PostgresLock;

/// The server of this process.
fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::postgres).as_ref()
}

fn url(server: &Server) -> String {
    format!("postgres://postgres@{}/postgres", server.address())
}

#[test]
fn one_at_a_time_has_a_lock_and_each_owner_a_larger_token() {
    let Some(server) = server() else { return };
    let (inside, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tokens: Arc<Mutex<Vec<u64>>> = Arc::default();
    let owner = || {
        let (inside, most, tokens) = (inside.clone(), most.clone(), tokens.clone());
        let config = json!({ "url": url(server), "name": "one-at-a-time", "by": "file_path" });
        let test = testing::stage::<PostgresLock>(config).field("file_path", json!("a"));
        test.rest(move |fields| {
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            inside.fetch_sub(1, Ordering::SeqCst);
            let token = fields.json()["fencing_token"].as_u64().expect("a token");
            tokens.lock().expect("nobody panics with it").push(token);
            Ok(Value::Null)
        })
    };
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| assert_eq!(owner().run().result, Ok(Value::Null)));
        }
    });
    let tokens = tokens.lock().expect("nobody panics with it").clone();
    assert_eq!((most.load(Ordering::SeqCst), tokens), (1, vec![1, 2, 3, 4, 5]));
}

#[test]
fn a_silent_owner_loses_its_lock_to_one_with_a_larger_token() {
    let Some(server) = server() else { return };
    let config = json!({ "url": url(server), "name": "silent", "ttl_ms": 500, "wait_ms": 20_000 });
    let second = config.clone();
    // The whole library stands still with it, so nothing keeps the first lock alive: as after SIGSTOP.
    let first = testing::stage::<PostgresLock>(config).rest(move |fields| {
        let first = fields.json()["fencing_token"].as_u64();
        let second = second.clone();
        let other = std::thread::spawn(move || elsewhere(&second)).join().expect("it ends");
        assert!(other > first, "{other:?} {first:?}");
        Ok(Value::Null)
    });
    let done = first.run();
    assert!(done.went_on_with.len() == 1, "{done:?}");
}

/// The fencing token that another process gets.
fn elsewhere(config: &Value) -> Option<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = serde_json::from_value(config.clone()).expect("configs");
        let lock = PostgresLock::of(config).await.expect("opened");
        let (_owner, token) = pype_plugin::lock::Lock::acquire(&lock, "silent").await.expect("the lock");
        Some(token)
    })
}

#[test]
fn a_lock_that_is_held_or_whose_session_ends_is_an_error_that_may_be_tried_again() {
    let Some(server) = server() else { return };
    let lock = |name: &str| {
        testing::stage::<PostgresLock>(json!({ "url": url(server), "name": name, "ttl_ms": 300, "wait_ms": 0 }))
    };
    let inner = lock("held");
    let held = lock("held").rest_later({
        let inner = Mutex::new(Some(inner));
        move |_| {
            let inner = inner.lock().expect("nobody panics with it").take().expect("once");
            async move {
                let held = tokio::task::spawn_blocking(|| std::thread::spawn(|| inner.run()).join()).await;
                held.expect("ran").expect("ended").result
            }
        }
    });
    let held = held.run().result.expect_err("it is another's");
    assert_eq!((held.code.as_str(), held.retryable), ("lock-held", true));
    let ended = lock("ended").rest_later({
        let url = url(server);
        move |_| {
            let url = url.clone();
            async move {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
                let connection = tokio::spawn(connection);
                let end = "SELECT pg_terminate_backend(pid) FROM pg_locks
                    WHERE locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('ended', 0)";
                client.batch_execute(end).await.expect("ended");
                drop(client);
                connection.await.expect("ran").expect("ended");
                std::future::pending().await
            }
        }
    });
    let ended = ended.run().result.expect_err("it may be another's");
    assert_eq!((ended.code.as_str(), ended.retryable), ("lock-lost", true));
}

#[test]
fn a_server_that_is_away_is_refused_without_its_password() {
    let config = json!({ "url": "postgres://me:secret@127.0.0.1:1/x", "name": "a" });
    let away = testing::stage::<PostgresLock>(config).run().result.expect_err("nobody is there");
    assert_eq!((away.kind, away.retryable), (ErrorKind::Unavailable, true));
    assert!(!format!("{away:?}").contains("secret"), "{away:?}");
}

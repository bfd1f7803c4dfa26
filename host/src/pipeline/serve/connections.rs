//! Connections: a task each, none of which waits for ever for a request.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// When no more connections can be had, nobody is accepted for so long.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Answers requests until `stop` fires, and then those whose head has come; who takes longer than `patience` for that, is hung up.
pub(super) async fn serve(listener: TcpListener, router: Router, patience: Duration, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone(), patience, stop.clone()))),
                Err(error) if is_of_one(&error) => {}
                // There are no descriptors left, say.
                Err(error) => {
                    tracing::error!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, router: Router, patience: Duration, stop: CancellationToken) {
    // An answer is written at once: there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection is slower than it might be: {error}");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection has ended: {error}");
    }
}

/// Whether an error is of the connection that was to be accepted.
fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(200);

    async fn started(stop: &CancellationToken) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let slow = get(|| async {
            tokio::time::sleep(PATIENCE).await;
            "done"
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let server = tokio::spawn(serve(listener, Router::new().route("/", slow), PATIENCE, stop.clone()));
        (TcpStream::connect(address).await.expect("it listens"), server)
    }

    async fn read(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE * 20, stream.read_to_string(&mut text)).await;
        read.expect("the server hangs up").expect("text");
        text
    }

    #[tokio::test]
    async fn who_does_not_finish_the_head_of_a_request_is_hung_up() {
        let stop = CancellationToken::new();
        let (mut stream, server) = started(&stop).await;
        let began = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("it is read");
        assert_eq!(read(&mut stream).await, "");
        assert!(began.elapsed() >= PATIENCE);
        stop.cancel();
        server.await.expect("it ends");
    }

    #[tokio::test]
    async fn who_has_asked_before_the_end_is_answered() {
        let stop = CancellationToken::new();
        let (mut stream, server) = started(&stop).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
        tokio::time::sleep(PATIENCE / 2).await;
        stop.cancel();
        assert!(read(&mut stream).await.ends_with("done"));
        server.await.expect("it ends");
    }
}

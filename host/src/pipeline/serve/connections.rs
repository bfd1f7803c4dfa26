//! Connections: a task each, none of which waits for ever for a request, or for somebody to read its answer. There are only so many.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// When no more connections can be had, nobody is accepted for so long.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// So many at a time; the others wait for one to end. A process may have 1024 descriptors, where nobody has changed that.
const CONNECTIONS: usize = 512;

/// Answers requests until `stop` fires, and then those whose head has come; who takes longer than `patience` for that, or reads
/// nothing of an answer for so long, is hung up.
pub(super) async fn serve(listener: TcpListener, router: Router, patience: Duration, stop: CancellationToken) {
    let (mut connections, room) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept(&listener, &room) => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), patience, stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
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

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, io::Result<(TcpStream, SocketAddr)>) {
    let permit = room.clone().acquire_owned().await.expect("nobody closes it");
    (permit, listener.accept().await)
}

async fn connection(stream: TcpStream, router: Router, patience: Duration, stop: CancellationToken) {
    // An answer is written at once: there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection is slower than it might be: {error}");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience);
    let serving = http.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
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
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_secs(60);

    struct Started {
        stream: TcpStream,
        server: JoinHandle<()>,
        asked: Arc<Notify>,
        answer: Arc<Notify>,
        stop: CancellationToken,
    }

    async fn started(patience: Duration) -> Started {
        let (asked, answer, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
        let (tell, wait) = (asked.clone(), answer.clone());
        let held = get(move || {
            let (tell, wait) = (tell.clone(), wait.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
                "done"
            }
        });
        let router = Router::new().route("/", held).route("/much", get(|| async { "x".repeat(1 << 20) }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let server = tokio::spawn(serve(listener, router, patience, stop.clone()));
        let stream = TcpStream::connect(address).await.expect("it listens");
        Started { stream, server, asked, answer, stop }
    }

    async fn read(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(LATE, stream.read_to_string(&mut text)).await;
        read.expect("the server hangs up").expect("text");
        text
    }

    #[tokio::test]
    async fn who_does_not_finish_the_head_of_a_request_is_hung_up() {
        let mut one = started(SOON).await;
        let began = Instant::now();
        one.stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("it is read");
        assert_eq!(read(&mut one.stream).await, "");
        assert!(began.elapsed() >= SOON);
        one.stop.cancel();
        one.server.await.expect("it ends");
    }

    #[tokio::test]
    async fn who_reads_no_answer_is_hung_up() {
        let mut one = started(SOON).await;
        let ask = b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n";
        // Sooner or later nobody takes any more, and then there is nobody.
        let hung_up = async { while one.stream.write_all(&ask.repeat(100)).await.is_ok() {} };
        tokio::time::timeout(LATE, hung_up).await.expect("the server hangs up");
        one.stop.cancel();
        one.server.await.expect("it ends");
    }

    #[tokio::test]
    async fn who_has_asked_before_the_end_is_answered() {
        let mut one = started(LATE).await;
        one.stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is read");
        one.asked.notified().await;
        one.stop.cancel();
        one.answer.notify_one();
        assert!(read(&mut one.stream).await.ends_with("done"));
        one.server.await.expect("it ends");
    }
}

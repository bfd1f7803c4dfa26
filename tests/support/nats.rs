//! As much of the NATS protocol as a test needs: publishing, and asking JetStream.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// A connection.
pub struct Nats {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Nats {
    /// Connects to `127.0.0.1:PORT`.
    pub fn connect(address: &str) -> Self {
        let writer = TcpStream::connect(address).expect("the server listens");
        writer.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let reader = BufReader::new(writer.try_clone().expect("a second handle"));
        let mut nats = Self { writer, reader };
        assert!(nats.line().starts_with("INFO "));
        nats.send(b"CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n");
        nats
    }

    /// Publishes a message.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.send(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
        self.send(payload);
        self.send(b"\r\n");
    }

    /// What JetStream's API answers: `STREAM.INFO.NAME`.
    pub fn ask(&mut self, request: &str, payload: &Value) -> Value {
        let payload = payload.to_string();
        self.send(format!("PUB $JS.API.{request} answers {}\r\n{payload}\r\n", payload.len()).as_bytes());
        loop {
            let line = self.line();
            let Some(message) = line.strip_prefix("MSG ") else { continue };
            let length = message.split(' ').next_back().expect("a length").parse().expect("a number");
            let mut answer = vec![0; length];
            self.reader.read_exact(&mut answer).expect("the answer");
            return serde_json::from_slice(&answer).expect("JSON");
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).expect("the server takes it");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the server speaks");
        if line == "PING\r\n" {
            self.send(b"PONG\r\n");
        }
        line.trim_end().to_owned()
    }
}

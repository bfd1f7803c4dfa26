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
        nats.send(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB answers 1\r\n");
        nats
    }

    /// Publishes a message with an id: JetStream keeps the first of those with the same.
    pub fn publish(&mut self, subject: &str, id: &str, payload: &[u8]) {
        self.publish_for(subject, "", id, payload);
    }

    /// Publishes a message, and waits until JetStream has it, and so all that were published before.
    pub fn publish_and_wait(&mut self, subject: &str, id: &str, payload: &[u8]) {
        self.publish_for(subject, "answers ", id, payload);
        let answer = self.answer();
        assert!(answer.get("error").is_none(), "{answer}");
    }

    fn publish_for(&mut self, subject: &str, answers: &str, id: &str, payload: &[u8]) {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let all = headers.len() + payload.len();
        let mut message = format!("HPUB {subject} {answers}{} {all}\r\n{headers}", headers.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        self.send(&message);
    }

    /// What JetStream's API answers: `STREAM.INFO.NAME`.
    pub fn ask(&mut self, request: &str, payload: &Value) -> Value {
        let payload = payload.to_string();
        self.send(format!("PUB $JS.API.{request} answers {}\r\n{payload}\r\n", payload.len()).as_bytes());
        self.answer()
    }

    fn answer(&mut self) -> Value {
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

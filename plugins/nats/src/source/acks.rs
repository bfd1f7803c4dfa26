//! Says what became of messages, and waits until the server has heard it.
//!
//! All answers come to one subscription, each under its number; so that a thousand acknowledgements cost one round trip.

use std::sync::Arc;

use async_nats::{StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use pype_plugin::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use crate::connection::Connection;

const DOING: &str = "acknowledge records";
/// So many are under way at a time; their answers have room in the subscription.
const WINDOW: usize = 4096;

pub(crate) struct Acks {
    connection: Arc<Connection>,
    inbox: String,
    // Held by one caller until its answers have come: those of another would be among them.
    answers: Mutex<Answers>,
}

struct Answers {
    subscriber: Subscriber,
    /// The number of the next acknowledgement.
    next: u64,
}

/// What the server has heard.
#[derive(Default)]
pub(crate) struct Heard {
    /// In the order of what was said.
    pub(crate) confirmed: Vec<bool>,
    failed: Option<Error>,
}

impl Acks {
    pub(crate) async fn open(connection: Arc<Connection>) -> Result<Self> {
        let client = connection.client();
        let inbox = client.new_inbox();
        let subscriber = connection.step("listen for answers", client.subscribe(format!("{inbox}.*"))).await?;
        Ok(Self { connection, inbox, answers: Mutex::new(Answers { subscriber, next: 0 }) })
    }

    /// Says each of these to its subject. It returns when all of it was heard, or cannot be any more.
    pub(crate) async fn say(&self, all: &[(Subject, Bytes)]) -> Heard {
        let mut heard = Heard { confirmed: vec![false; all.len()], failed: None };
        let mut answers = self.answers.lock().await;
        for (said, confirmed) in all.chunks(WINDOW).zip(heard.confirmed.chunks_mut(WINDOW)) {
            let window = self.window(said, confirmed, &mut answers);
            if let Err(error) = self.connection.within(DOING, window).await.and_then(|done| done) {
                heard.failed = Some(error);
                break;
            }
        }
        heard
    }

    async fn window(&self, said: &[(Subject, Bytes)], confirmed: &mut [bool], answers: &mut Answers) -> Result<()> {
        let first = answers.next;
        answers.next += said.len() as u64;
        let client = self.connection.client();
        for ((subject, what), number) in said.iter().zip(first..) {
            let sent = client.publish_with_reply(subject.clone(), format!("{}.{number}", self.inbox), what.clone());
            sent.await.map_err(|cause| self.connection.failed(DOING, &cause))?;
        }
        let mut missing = said.len();
        while missing > 0 {
            let answer = answers.subscriber.next().await.ok_or_else(|| self.connection.unreachable(DOING))?;
            let number = answer.subject.rsplit('.').next().and_then(|number| number.parse::<u64>().ok());
            let at = number.and_then(|number| usize::try_from(number.checked_sub(first)?).ok());
            // Others are late, of a call that has given up on them.
            if let Some(confirmed) = at.and_then(|at| confirmed.get_mut(at)).filter(|confirmed| !**confirmed) {
                missing -= 1;
                // Where nobody listens, there is no such consumer any more.
                *confirmed = answer.status != Some(StatusCode::NO_RESPONDERS);
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Whether all of it was.
    pub(crate) fn outcome(self, stream: &str) -> Result<()> {
        let missing = self.confirmed.iter().filter(|confirmed| !**confirmed).count();
        if missing == 0 {
            return Ok(());
        }
        let all = self.confirmed.len();
        let message = format!("of {all} acknowledgements of records of `{stream}`, {missing} were not confirmed");
        let error = Error::new(ErrorKind::Unavailable, "unconfirmed", message).retryable(true);
        let error = error.hint("nothing is lost: the records come again");
        Err(match self.failed {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }
}

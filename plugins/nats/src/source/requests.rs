//! What the server was asked for, and has not answered yet.

use std::collections::VecDeque;

use tokio::time::Instant;

/// What the server was asked for, oldest first, which is the order that it serves them in.
#[derive(Default)]
pub(super) struct Requests {
    open: VecDeque<Request>,
    /// The number of the last one.
    last: u64,
}

pub(super) struct Request {
    number: u64,
    left: usize,
    /// Whether a message has come for it.
    pub(super) has_some: bool,
    until: Instant,
}

impl Requests {
    pub(super) fn add(&mut self, count: usize, until: Instant) -> u64 {
        self.last += 1;
        self.open.push_back(Request { number: self.last, left: count, has_some: false, until });
        self.last
    }

    /// How many messages may still come.
    pub(super) fn left(&self) -> usize {
        self.open.iter().map(|request| request.left).sum()
    }

    pub(super) fn delivered(&mut self) {
        if let Some(oldest) = self.open.front_mut() {
            oldest.left -= 1;
            oldest.has_some = true;
            if oldest.left == 0 {
                self.open.pop_front();
            }
        }
    }

    pub(super) fn end(&mut self, number: u64) -> Option<Request> {
        let at = self.open.iter().position(|request| request.number == number)?;
        self.open.remove(at)
    }

    /// They went with their connection, or with their consumer.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// Those whose time is over are forgotten by the server too.
    pub(super) fn forget_late(&mut self, now: Instant) {
        self.open.retain(|request| now < request.until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIME: Duration = Duration::from_secs(5);

    #[test]
    fn messages_are_of_the_oldest_request_and_forgotten_ones_make_room() {
        let (now, mut requests) = (Instant::now(), Requests::default());
        let first = requests.add(2, now + TIME);
        let second = requests.add(3, now + TIME * 2);
        requests.delivered();
        assert_eq!(requests.left(), 4);
        assert!(requests.end(first).expect("open").has_some);
        assert!(requests.end(first).is_none());
        requests.delivered();
        assert_eq!((second, requests.left()), (2, 2));
        requests.forget_late(now + TIME);
        assert_eq!(requests.left(), 2);
        requests.forget_late(now + TIME * 2);
        assert_eq!(requests.left(), 0);
        requests.delivered();
    }
}

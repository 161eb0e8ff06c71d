//! How an upstream misbehaves when a request's query asks it to: slow, failing, or with only so many places.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::now_ns;

/// What a query asks for. Times in microseconds.
///
/// `?d=5000` takes 5 ms; `s=100000` takes 100 ms instead on the first port; `f=1` answers 500 on the first port, `f=all` 503 on
/// every one; `c=16` works on 16 requests of a port at once, the others wait in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// How long the work takes, in nanoseconds.
    pub takes_ns: u64,
    /// The status, when it is not 200.
    pub status: Option<u16>,
    /// Requests at once.
    pub places: Option<usize>,
}

impl Behaviour {
    /// Reads a target's query; `first`: the request came to the first port.
    pub fn of(target: &[u8], first: bool) -> Self {
        let text = std::str::from_utf8(target).unwrap_or_default();
        let Some((_, query)) = text.split_once('?') else { return Self::default() };
        let mut own = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let micros = || value.parse::<u64>().unwrap_or(0) * 1000;
            match name {
                "d" => own.takes_ns = micros(),
                "s" if first => own.takes_ns = micros(),
                "f" if value == "all" => own.status = Some(503),
                "f" if first => own.status = Some(500),
                "c" => own.places = value.parse().ok(),
                _ => {}
            }
        }
        own
    }
}

/// A request that is not answered at once.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The connection.
    pub fd: usize,
    /// Which request, since the connection's number may be used again.
    pub serial: u64,
    /// What it asks for.
    pub behaviour: Behaviour,
}

/// The requests that one upstream works on, and those that wait.
#[derive(Default)]
pub struct Jobs {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    /// Under way, by serial. Few enough to be looked through.
    under_way: Vec<(u64, usize, Job)>,
    busy: Vec<usize>,
    waiting: Vec<VecDeque<Job>>,
    next: u64,
}

impl Jobs {
    /// A number for a new request.
    pub fn serial(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Begins a request of the listener with this number, or lets it wait for a place.
    pub fn begin(&mut self, listener: usize, job: Job) {
        if self.busy.len() <= listener {
            self.busy.resize(listener + 1, 0);
            self.waiting.resize_with(listener + 1, VecDeque::new);
        }
        match job.behaviour.places {
            Some(places) if self.busy[listener] >= places => self.waiting[listener].push_back(job),
            _ => self.start(listener, job),
        }
    }

    fn start(&mut self, listener: usize, job: Job) {
        self.busy[listener] += 1;
        self.due.push(Reverse((now_ns() + job.behaviour.takes_ns, job.serial)));
        self.under_way.push((job.serial, listener, job));
    }

    /// A connection has gone: what it waited for is not done, what is under way is stopped.
    pub fn gone(&mut self, fd: usize) {
        for queue in &mut self.waiting {
            queue.retain(|job| job.fd != fd);
        }
        while let Some(at) = self.under_way.iter().position(|(_, _, job)| job.fd == fd) {
            self.end(at);
        }
    }

    fn end(&mut self, at: usize) -> Job {
        let (_, listener, job) = self.under_way.swap_remove(at);
        self.busy[listener] -= 1;
        if let Some(next) = self.waiting[listener].pop_front() {
            self.start(listener, next);
        }
        job
    }

    /// How long the loop may sleep; `None`: nothing is under way.
    pub fn wait_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due, _))| due.saturating_sub(now_ns()))
    }

    /// A request whose work is done.
    pub fn done(&mut self) -> Option<Job> {
        loop {
            let Reverse((due, serial)) = *self.due.peek()?;
            if due > now_ns() {
                return None;
            }
            self.due.pop();
            // One that was stopped is not there any more.
            if let Some(at) = self.under_way.iter().position(|(known, _, _)| *known == serial) {
                return Some(self.end(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_how_to_behave() {
        let of = |target: &str, first| Behaviour::of(target.as_bytes(), first);
        assert_eq!(of("/agents/1/run", true), Behaviour::default());
        assert_eq!(of("/a?d=5000&s=100000", false).takes_ns, 5_000_000);
        assert_eq!(of("/a?d=5000&s=100000", true).takes_ns, 100_000_000);
        assert_eq!((of("/a?f=1", true).status, of("/a?f=1", false).status), (Some(500), None));
        assert_eq!((of("/a?f=all", false).status, of("/a?c=16", false).places), (Some(503), Some(16)));
    }

    #[test]
    fn no_more_are_done_at_once_than_there_are_places_and_those_who_left_give_theirs_back() {
        let mut jobs = Jobs::default();
        let behaviour = Behaviour { takes_ns: 0, status: None, places: Some(1) };
        for fd in 1..=3 {
            let serial = jobs.serial();
            jobs.begin(0, Job { fd, serial, behaviour });
        }
        jobs.gone(2);
        assert_eq!(jobs.done().map(|job| job.fd), Some(1));
        assert_eq!(jobs.done().map(|job| job.fd), Some(3));
        assert!(jobs.done().is_none());
    }
}

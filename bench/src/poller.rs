//! Level-triggered epoll with a nanosecond timeout: the least that a load generator needs.
//!
//! The load generator and the upstream share one core with each other and must cost less than any
//! proxy that they measure, so there is no runtime underneath them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// How many events one wait returns at most.
const BATCH: usize = 512;

/// What is ready: the descriptor's number and whether it can be read or written.
#[derive(Clone, Copy)]
pub struct Ready {
    /// The descriptor's number.
    pub fd: usize,
    /// Bytes, an end or an error wait to be read.
    pub readable: bool,
    /// There is room in the socket's send buffer.
    pub writable: bool,
}

/// An epoll instance whose events carry the descriptor's number.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

fn data(fd: &impl AsFd) -> EventData {
    EventData::new_u64(fd.as_fd().as_raw_fd() as u64)
}

impl Poller {
    /// Makes an empty instance.
    ///
    /// # Errors
    /// When the kernel refuses another descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches for input.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, fd: &impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, data(fd), EventFlags::IN)?)
    }

    /// Watches for output as well as input, or for input alone again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn want_output(&self, fd: &impl AsFd, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, data(fd), flags)?)
    }

    /// Waits for at most `timeout_ns` (`None`: until something happens) and appends what is ready to `ready`.
    ///
    /// # Errors
    /// When the kernel refuses; an interrupted wait is an empty one.
    pub fn wait(&mut self, timeout_ns: Option<u64>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout_ns
            .map(|ns| Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 });
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                fd: event.data.u64() as usize,
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

//! What the demo asks the calling agent to do, and what it reports back: one JSON document a line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where a call goes and what it says about itself. The rules of the mesh see nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Target {
    /// The `x-request-id`, by which the sidecar's access log is joined.
    pub id: String,
    /// The `Host` header.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// Further headers, in order.
    pub headers: Vec<(String, String)>,
    /// POST, without a body, instead of GET.
    #[serde(default)]
    pub post: bool,
    /// Asked once more when its connection is cut: by a quarantine, say, that reaches one sidecar after the other.
    #[serde(default)]
    pub again: bool,
}

/// One piece of work for the calling agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Job {
    /// Make every later call through this sidecar's outbound listener. Reports nothing.
    UseSidecar {
        /// Where it listens for its agent.
        outbound: SocketAddr,
    },
    /// One request, its answer read to the end; the arrival of each piece is timed.
    Ask {
        /// Where to.
        target: Target,
    },
    /// One request whose answer is a stream: tells of its first piece, and later of its end, whatever that is.
    Listen {
        /// Where to.
        target: Target,
    },
    /// Open a WebSocket, send each text once the one before came back, close.
    WebSocket {
        /// Where to.
        target: Target,
        /// The texts.
        say: Vec<String>,
    },
    /// Ask over and over on several connections, reporting every 250 ms, until [`Job::StopLoad`].
    Load {
        /// Where to; the id gets a number appended.
        target: Target,
        /// How many connections.
        connections: usize,
        /// The rest after each answer, per connection, in milliseconds.
        pause_millis: u64,
    },
    /// Ends the load, once what is in flight was answered.
    StopLoad,
}

/// What an agent of the demo says about itself in every answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// Which process answered, e.g. `nlp-v1-a`.
    pub agent: String,
    /// Which version it is, e.g. `v1`.
    pub version: String,
}

/// What the calling agent reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "got", rename_all = "kebab-case")]
pub enum Report {
    /// A request was answered, by an agent or by the sidecar.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The `pilotfish-reason` header: the sidecar itself refused.
        reason: Option<String>,
        /// Who answered; empty when the sidecar refused.
        who: Whoami,
        /// From the first byte sent to the last byte received, in microseconds.
        micros: u64,
        /// When each piece of the body arrived, in microseconds after sending.
        arrivals: Vec<u64>,
        /// The number of the booking that was made.
        booking: Option<String>,
    },
    /// The first piece of a stream is there.
    Begun,
    /// A stream is over.
    Over {
        /// How many pieces came.
        pieces: usize,
        /// It was cut off: its sender did not end it.
        cut: bool,
    },
    /// A WebSocket conversation ended well.
    Echo {
        /// The HTTP status of the handshake.
        status: u16,
        /// The round trip of each text, in microseconds.
        round_trips: Vec<u64>,
        /// True when the other side answered the close frame.
        clean_close: bool,
    },
    /// A quarter of a second of load.
    Tick {
        /// Milliseconds since the load began.
        at_millis: u64,
        /// Answers by version `v1` since the last tick.
        v1: u64,
        /// Answers by version `v2` since the last tick.
        v2: u64,
        /// Anything else since the last tick.
        failed: u64,
        /// The median time to an answer since the last tick, in microseconds.
        micros: u64,
        /// The first thing that was not an answer by an agent, ever.
        first_failure: Option<String>,
    },
    /// The load is over; nothing more comes for this job.
    LoadOver,
    /// The job could not be done: no connection, a broken answer.
    Failed {
        /// What happened.
        what: String,
    },
}

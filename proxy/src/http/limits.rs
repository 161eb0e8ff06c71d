//! What the engine allows a peer: sizes, counts and times.

use std::time::Duration;

/// The limits of one listener or one upstream. Defaults follow Envoy's list for an edge proxy unless said otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a head: start line and header section. 64 KiB; never more than that (offsets rely on it).
    pub max_head: usize,
    /// Bytes of the request line; longer is 414. 32 KiB.
    pub max_request_line: usize,
    /// Header fields in one head; more is 431. 128 (Envoy's is 100, browsers and gateways stay under 60).
    pub max_fields: usize,
    /// From the first byte of a head (or from the accept) to its end. 10 s.
    pub head_timeout: Duration,
    /// How long a keep-alive connection may be idle between requests. 1 h, Envoy's default.
    pub idle_timeout: Duration,
    /// How long a request body may stall in the middle. 5 min, Envoy's stream idle timeout.
    pub body_timeout: Duration,
    /// How long a peer that does not read may block a write. 60 s, nginx's `send_timeout`.
    pub write_timeout: Duration,
    /// Unread request body that is read and dropped so that the connection can be kept. 64 KiB.
    pub max_drain: usize,
    /// How long a closing connection is read so that the last answer is not lost to a reset. 2 s (nginx's lingering_close is 5).
    pub linger: Duration,
    /// How long a tunnel (Upgrade, CONNECT) may be silent both ways. 1 h, the idle timeout of Envoy's TCP proxy.
    pub tunnel_idle: Duration,
    /// How long the upstream may leave an `Expect: 100-continue` unanswered before the body is sent anyway. 1 s (curl's).
    pub continue_wait: Duration,
    /// HTTP/2 streams that a peer may have open at once. 100.
    pub h2_max_streams: u32,
    /// HTTP/2 window of one stream, bytes. 64 KiB.
    pub h2_stream_window: u32,
    /// HTTP/2 window of the connection, bytes. 1 MiB.
    pub h2_connection_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_head: 64 * 1024,
            max_request_line: 32 * 1024,
            max_fields: 128,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
            body_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            max_drain: 64 * 1024,
            linger: Duration::from_secs(2),
            tunnel_idle: Duration::from_secs(3600),
            continue_wait: Duration::from_secs(1),
            h2_max_streams: 100,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 1024 * 1024,
        }
    }
}

//! A call with a key is done once: what the receiving sidecar remembers, and what the calling sidecar may repeat.

mod calling;
mod receiving;

use std::time::Duration;

/// Waits until something is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    let late = tokio::time::Instant::now() + Duration::from_secs(15);
    while !is() {
        assert!(tokio::time::Instant::now() < late, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

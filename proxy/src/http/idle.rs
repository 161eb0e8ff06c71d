//! Calls on which nothing moves: noticed by one look of the worker at all of them, four times a second, instead of by a timer for
//! each, which would be armed for five minutes and cancelled after milliseconds.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time between two looks: a silence is noticed so much later than it should be, at most.
const LOOK: Duration = Duration::from_millis(250);

thread_local! {
    static WATCHED: RefCell<Watched> = const { RefCell::new(Watched::new()) };
}

/// The calls of this thread that wait.
#[derive(Debug)]
struct Watched {
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
    /// Whether the task that looks is running.
    looking: bool,
}

#[derive(Debug)]
struct Call {
    limit: Duration,
    /// When something had moved at the last look; `None`: since then.
    since: Option<Instant>,
    silent: bool,
    waker: Waker,
}

impl Watched {
    const fn new() -> Self {
        Watched { calls: Vec::new(), free: Vec::new(), looking: false }
    }

    fn add(&mut self, call: Call) -> usize {
        if let Some(at) = self.free.pop() {
            self.calls[at] = Some(call);
            return at;
        }
        self.calls.push(Some(call));
        self.calls.len() - 1
    }

    fn remove(&mut self, at: usize) {
        self.calls[at] = None;
        self.free.push(at);
    }

    /// Marks and wakes what has been silent for too long; whether anything is left to look at.
    fn look(&mut self, now: Instant) -> bool {
        for call in self.calls.iter_mut().flatten() {
            let since = *call.since.get_or_insert(now);
            if !call.silent && now.duration_since(since) >= call.limit {
                call.silent = true;
                call.waker.wake_by_ref();
            }
        }
        self.free.len() < self.calls.len()
    }
}

/// The task that looks; dropping it in the midst, with its runtime, lets another be started.
struct Looking;

impl Drop for Looking {
    fn drop(&mut self) {
        let _ = WATCHED.try_with(|watched| watched.borrow_mut().looking = false);
    }
}

async fn look() {
    let _looking = Looking;
    loop {
        sleep(LOOK).await;
        let now = Instant::now();
        if !WATCHED.with_borrow_mut(|watched| watched.look(now)) {
            return;
        }
    }
}

/// How long nothing may move on one call. It costs nothing until the call waits for the first time.
#[derive(Debug, Default)]
pub struct Idle {
    limit: Option<Duration>,
    place: Option<usize>,
    seen: u64,
}

impl Idle {
    /// `None`: for ever.
    pub fn set(&mut self, limit: Option<Duration>) {
        self.limit = limit;
        self.leave();
    }

    /// Ready when nothing has moved for the limit. To be polled last, when the call is about to wait; `moved` is a count that
    /// grows with whatever moves.
    pub fn poll_silent(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        let Some(limit) = self.limit else { return Poll::Pending };
        let Some(at) = self.place else {
            self.seen = moved;
            self.enter(limit, cx.waker().clone());
            return Poll::Pending;
        };
        let has_moved = std::mem::replace(&mut self.seen, moved) != moved;
        WATCHED.with_borrow_mut(|watched| {
            let Some(Some(call)) = watched.calls.get_mut(at) else { return Poll::Pending };
            if has_moved {
                call.since = None;
                call.silent = false;
            } else if call.silent {
                return Poll::Ready(());
            }
            call.waker.clone_from(cx.waker());
            Poll::Pending
        })
    }

    fn enter(&mut self, limit: Duration, waker: Waker) {
        let start = WATCHED.with_borrow_mut(|watched| {
            self.place = Some(watched.add(Call { limit, since: None, silent: false, waker }));
            !std::mem::replace(&mut watched.looking, true)
        });
        if start {
            tokio::task::spawn_local(look());
        }
    }

    fn leave(&mut self) {
        if let Some(at) = self.place.take() {
            // A thread that ends has nothing to look at any more.
            let _ = WATCHED.try_with(|watched| watched.borrow_mut().remove(at));
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Waits until it is silent; `moved` grows every `gap` for `times` times. Gives the seconds that it took.
    async fn silent_after(limit: Option<Duration>, gap: Duration, times: u64) -> f64 {
        let start = Instant::now();
        let mut idle = Idle::default();
        idle.set(limit);
        let mut moved = 0;
        let mut tick = tokio::time::interval(gap);
        tick.tick().await;
        poll_fn(|cx| {
            while moved < times && tick.poll_tick(cx).is_ready() {
                moved += 1;
            }
            idle.poll_silent(cx, moved)
        })
        .await;
        start.elapsed().as_secs_f64()
    }

    #[test]
    fn silence_counts_from_the_last_movement() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let five = Some(Duration::from_secs(5));
            let one = silent_after(five, Duration::from_secs(1), 0).await;
            assert!((5.0..5.6).contains(&one), "{one}");
            let moving = silent_after(five, Duration::from_secs(4), 10).await;
            assert!((45.0..45.6).contains(&moving), "{moving}");
            let never = tokio::time::timeout(
                Duration::from_secs(1_000_000),
                silent_after(None, Duration::from_secs(1), 0),
            );
            assert!(never.await.is_err());
            // Several at once, each with its own limit.
            let (short, long) = tokio::join!(
                silent_after(five, Duration::from_secs(1), 0),
                silent_after(Some(Duration::from_secs(50)), Duration::from_secs(1), 0)
            );
            assert!((5.0..5.6).contains(&short) && (50.0..50.6).contains(&long), "{short} {long}");
            tokio::time::sleep(LOOK * 2).await;
            WATCHED.with_borrow(|watched| {
                assert!(!watched.looking && watched.free.len() == watched.calls.len(), "{watched:?}");
            });
        });
    }
}

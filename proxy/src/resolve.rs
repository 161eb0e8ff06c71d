//! Names to addresses, in the background: each name that the configuration uses is looked up again when its TTL is
//! over, and keeps its last addresses while look-ups fail. Workers ask here too, for names that only a request knows.

mod system;
mod table;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::telemetry::log;
pub use system::SystemLookup;
use table::Table;

/// Look-ups under way at a time.
const AT_A_TIME: usize = 32;

/// Questions of workers that may wait.
const QUESTIONS: usize = 1024;

/// What names resolve to. A name that never resolved is not in it.
pub use pilotfish_filters::compile::cluster::Resolved as Answers;

/// One successful look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At least one address.
    pub addresses: Vec<IpAddr>,
    /// How long they are good.
    pub ttl: Duration,
}

/// Asks once. Tests have a scripted one.
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of `name` now, or why there are none, for the log.
    fn lookup(&self, name: &str) -> impl Future<Output = Result<Answer, String>> + Send;
}

/// Why a worker got no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved(pub Arc<str>);

/// The way to the resolver's task.
#[derive(Debug)]
pub struct Dns {
    questions: mpsc::Sender<Question>,
    answers: Mutex<Arc<Answers>>,
}

/// The resolver's end of [`Dns`].
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

#[derive(Debug)]
enum Question {
    /// These names, and no others, are to be kept up to date; say so when each was tried.
    Follow(Vec<Box<str>>, std::sync::mpsc::Sender<()>),
    /// The addresses of a name that a request brought.
    Once(Box<str>, oneshot::Sender<Result<Arc<[IpAddr]>, Unresolved>>),
}

impl Dns {
    /// A handle, and what [`run`] needs to serve it.
    pub fn new() -> (Self, Questions) {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        (Dns { questions, answers: Mutex::default() }, Questions(asked))
    }

    /// What the followed names resolve to now.
    pub fn answers(&self) -> Arc<Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows `names` from now on, instead of those followed before. Blocks until each new one was tried once, at
    /// most `limit`; so not for a thread with a runtime.
    pub fn follow(&self, names: &[Box<str>], limit: Duration) {
        let (tried, wait) = std::sync::mpsc::channel();
        if self.questions.blocking_send(Question::Follow(names.to_vec(), tried)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }

    /// The addresses of `name`, from memory while their TTL lasts. An address is its own answer.
    ///
    /// # Errors
    /// The name does not resolve, or too many questions wait.
    pub async fn lookup(&self, name: &str) -> Result<Arc<[IpAddr]>, Unresolved> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = literal.parse() {
            return Ok(Arc::new([address]));
        }
        let (reply, answer) = oneshot::channel();
        let question = Question::Once(name.to_ascii_lowercase().into(), reply);
        self.questions
            .try_send(question)
            .map_err(|_| Unresolved("too many names are being looked up".into()))?;
        answer.await.unwrap_or_else(|_| Err(Unresolved("the resolver has stopped".into())))
    }

    fn publish(&self, answers: Answers) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(answers);
    }
}

/// Serves the questions until the process ends. `changed` is called when a followed name has other addresses.
pub async fn run<L: Lookup>(lookup: L, dns: Arc<Dns>, mut questions: Questions, changed: impl Fn()) {
    let lookup = Arc::new(lookup);
    let mut table = Table::default();
    let mut running: JoinSet<(Box<str>, Result<Answer, String>)> = JoinSet::new();
    loop {
        for name in table.start_due(Instant::now(), AT_A_TIME.saturating_sub(running.len())) {
            let lookup = lookup.clone();
            running.spawn(async move {
                let result = lookup.lookup(&name).await;
                (name, result)
            });
        }
        let full = running.len() >= AT_A_TIME;
        let due = table.next_due().filter(|_| !full);
        tokio::select! {
            biased;
            Some(done) = running.join_next() => {
                // A look-up that panicked leaves its name marked as under way; that is a defect of ours, not of DNS.
                let Ok((name, result)) = done else { continue };
                if let Err(why) = &result && table.worked(&name) {
                    log::warn!("cannot resolve, the last answer stays", name = name, why = why);
                }
                if table.finish(Instant::now(), &name, result) {
                    dns.publish(table.answers());
                    changed();
                }
            }
            question = questions.0.recv() => match question {
                Some(Question::Follow(names, tried)) => {
                    if table.follow(Instant::now(), names, tried) {
                        dns.publish(table.answers());
                    }
                }
                Some(Question::Once(name, reply)) => table.ask(Instant::now(), name, reply),
                None => return,
            },
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

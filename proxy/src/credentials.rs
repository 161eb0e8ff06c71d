//! Secrets that the sidecar shows on its agent's behalf: obtained, exchanged, renewed, read from files. Never in a log.
//!
//! | file | what |
//! |---|---|
//! | [`file`](self) | what files have, read anew when they change |
//! | `flight` | a token: obtained once for all who wait for it, renewed ahead, with patience after a failure |
//! | `endpoint` | what a token endpoint is asked, and what its answer means |
//! | `assertion` | the token by which a client proves itself with a private key |
//! | `exchanged` | tokens on behalf of others, by the token that they were exchanged for |
//!
//! They outlive a configuration: a document that stays as it is keeps its token.

mod assertion;
mod endpoint;
mod exchanged;
mod file;
mod flight;
mod report;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_config::model::{KeyPlace, Secret};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::credentials::{Credential, SubjectToken};
use pilotfish_filters::plan::Plan;
use zeroize::Zeroizing;

use crate::server::Shared;
use crate::telemetry::log;
use exchanged::Exchanged;
use file::OfFile;
use flight::Flight;
pub use report::{collect, render};

/// Where all of RFC 6749, RFC 6750 and RFC 7617 show what they show.
const AUTHORIZATION: &str = "authorization";

/// What is shown: the whole value of a header, or of a parameter as a query has it.
pub struct Value {
    text: Zeroizing<String>,
    /// When it is not good any more; `None`: nobody said.
    ends: Option<Micros>,
    /// When another is obtained ahead.
    renew: Option<Micros>,
    /// Which one of its credential it is.
    number: u64,
}

impl Value {
    /// It itself.
    pub fn expose(&self) -> &str {
        &self.text
    }

    fn is_good(&self, now: Micros) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

/// One credential and what is known of it now.
#[derive(Debug)]
pub struct Live {
    /// What its document says.
    pub credential: Arc<Credential>,
    how: How,
    /// Calls that carried it.
    pub shown: AtomicU64,
    /// Calls that were refused because it was not there.
    pub missed: AtomicU64,
    /// Calls to its hosts that were led elsewhere by a rule, so they did not carry it.
    pub elsewhere: AtomicU64,
    /// Tunnels to its hosts, in which nothing can be shown.
    pub tunnels: AtomicU64,
    told_of_tunnels: AtomicBool,
}

#[derive(Debug)]
enum How {
    File(OfFile),
    Own(Arc<Flight>),
    Exchanged(Exchanged),
}

impl Live {
    fn new(credential: Arc<Credential>) -> Live {
        let how = match &credential.secret {
            Secret::Key { .. } | Secret::Basic { .. } => How::File(OfFile::default()),
            Secret::Client(_) => How::Own(Arc::default()),
            Secret::Exchange(..) => How::Exchanged(Exchanged::default()),
        };
        if let How::File(file) = &how {
            file.look(&credential);
        }
        Live {
            credential,
            how,
            shown: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
            told_of_tunnels: AtomicBool::new(false),
        }
    }

    /// Where it is shown.
    pub fn place(&self) -> Place<'_> {
        match &self.credential.secret {
            Secret::Key { place: KeyPlace::Header(name), .. } => Place::Header(name),
            Secret::Key { place: KeyPlace::Query(name), .. } => Place::Query(name),
            _ => Place::Header(AUTHORIZATION),
        }
    }

    /// What is shown now. Waits only for a token that is not there yet. `subject`: the token of the inbound call, for
    /// [`Credential::is_for_another`].
    ///
    /// # Errors
    /// It cannot be had: why, without secrets.
    pub async fn value(
        &self,
        shared: &Arc<Shared>,
        subject: Option<&Arc<SubjectToken>>,
    ) -> Result<Arc<Value>, String> {
        let now = shared.clock.now();
        match (&self.how, &self.credential.secret) {
            (How::File(file), _) => file.value(),
            (How::Own(flight), Secret::Client(_)) => {
                let credential = &self.credential;
                flight.value(shared, now, &credential.name, || endpoint::client(shared, credential)).await
            }
            (How::Exchanged(table), Secret::Exchange(..)) => {
                let flight = table.of(subject.map(Arc::as_ref), now);
                let credential = &self.credential;
                let ask = || endpoint::exchange(shared, credential, subject.cloned());
                flight.value(shared, now, &credential.name, ask).await
            }
            _ => Err("it is of another kind".into()),
        }
    }

    /// The host did not take it (401): a token is not shown again, though not more often than now and then.
    pub fn refused(&self, now: Micros, value: &Value, subject: Option<&SubjectToken>) {
        match &self.how {
            How::File(_) => {}
            How::Own(flight) => flight.drop_value(now, value),
            How::Exchanged(table) => table.of(subject, now).drop_value(now, value),
        }
    }

    /// The agent opens a tunnel to one of its hosts; said once.
    pub fn tunnelled(&self, host: &str) {
        self.tunnels.fetch_add(1, Relaxed);
        if !self.told_of_tunnels.swap(true, Relaxed) {
            log::warn!(
                "the agent tunnels to a host that a credential is for; in a tunnel nothing can be shown: it has to call http:// \
                 and leave TLS to the sidecar",
                credential = self.credential.name,
                host = host
            );
        }
    }
}

/// A valid token, to be exchanged for others.
pub fn subject(token: &str) -> Arc<SubjectToken> {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
    Arc::new(SubjectToken::new(token, digest))
}

/// Where a secret is shown.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In this header.
    Header(&'a str),
    /// In this parameter of the query.
    Query(&'a str),
}

/// The credentials of a plan, in its order.
#[derive(Debug, Default)]
pub struct LiveSet(Box<[Arc<Live>]>);

impl LiveSet {
    /// That of a place in the plan's list.
    pub fn get(&self, at: usize) -> Option<&Arc<Live>> {
        self.0.get(at)
    }
}

/// What there is at present.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<Present>);

#[derive(Debug, Default)]
struct Present {
    all: Vec<Arc<Live>>,
    watched: bool,
}

impl Credentials {
    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.present().all.clone()
    }
}

/// Those of a new plan; one whose document is as it was goes on. Reads files.
pub fn follow(shared: &Arc<Shared>, plan: &Plan) -> LiveSet {
    let wanted = plan.credentials().all();
    let before = shared.credentials.all();
    if wanted.is_empty() && before.is_empty() {
        return LiveSet::default();
    }
    let live = |credential: &Arc<Credential>| {
        let known = before.iter().find(|live| live.credential == *credential);
        known.cloned().unwrap_or_else(|| Arc::new(Live::new(credential.clone())))
    };
    let all: Vec<_> = wanted.iter().map(live).collect();
    let mut present = shared.credentials.present();
    present.all.clone_from(&all);
    let has_files = all.iter().any(|live| matches!(live.how, How::File(_)));
    if has_files
        && !present.watched
        && let Some(background) = shared.asks.background()
    {
        present.watched = true;
        background.spawn(file::watch(shared.clone()));
    }
    LiveSet(all.into())
}

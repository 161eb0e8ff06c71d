//! The sidecar's side of the control plane: it joins, keeps its identity fresh, follows the stream of updates, says
//! how its agent is, and keeps all of that on disk so that it starts without the control plane too.
//!
//! | file | what |
//! |---|---|
//! | [`join`] | an identity by token, and each further one by the one before |
//! | [`connect`] | a connection to a control plane, and proof that it is one |
//! | [`stream`] | the one long-lived stream: hello, updates, heartbeats, reports |
//! | [`set`] | what updates add up to; [`crate::source::control`] publishes it |
//! | [`disk`] | what outlives the process |
//! | [`workload_api`] | an identity from elsewhere: SPIRE |

pub mod connect;
pub mod disk;
pub mod idle;
pub mod join;
mod limits;
pub mod member;
pub mod reports;
pub mod set;
pub mod stream;
pub mod workload_api;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;

use crate::server::Shared;
use crate::source::Publisher;
use crate::source::control::ControlSource;
use crate::source::file::Event;
use crate::telemetry::log;
use disk::StateDir;
use join::NoIdentity;
use member::Member;
use set::Set;

/// Why a sidecar cannot become a member of its mesh.
#[derive(Debug)]
pub enum NoMember {
    /// The control plane refuses it: another token is needed.
    Refused(String),
    /// Something here is wrong: flags, files, folder.
    Unusable(String),
}

impl fmt::Display for NoMember {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoMember::Refused(why) | NoMember::Unusable(why) => out.write_str(why),
        }
    }
}

impl From<NoIdentity> for NoMember {
    fn from(none: NoIdentity) -> Self {
        match none {
            NoIdentity::Refused(why) => NoMember::Refused(why),
            NoIdentity::Unusable(why) => NoMember::Unusable(why),
        }
    }
}

impl From<io::Error> for NoMember {
    fn from(error: io::Error) -> Self {
        NoMember::Unusable(error.to_string())
    }
}

/// Becomes a member of the mesh, and goes on being one in tasks of the current runtime. Returns when a configuration
/// serves: at once when the disk has one, else as soon as a control plane has sent one.
///
/// # Errors
/// The join is refused, or what this sidecar was given is no use.
pub async fn start(
    shared: &Arc<Shared>,
    inbound: SocketAddr,
    configuration: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
) -> Result<(), NoMember> {
    let settings = &shared.settings;
    let disk = StateDir::open(&settings.control.state_dir(&settings.namespace, &settings.agent))?;
    let member = Member::new(shared.clone(), disk, inbound);
    // Files or the Workload API may have given one, which renew it too.
    if member.identity().load().credentials.is_none() {
        join::obtain(&member).await?;
        tokio::spawn(join::keep_fresh(member.clone()));
    }
    let kept = kept(&member);
    let mut progress = member.progress.subscribe();
    let resume = start_configuration(&member, kept, events).await?;
    tokio::spawn(stream::follow_progress(member.clone()));
    tokio::spawn(crate::health::run(shared.clone()));
    tokio::spawn(stream::Stream::new(member, configuration, resume).run());
    // The sender lives as long as its thread, so waiting fails only when that has died.
    let first = progress.wait_for(|progress| progress.accepted > 0).await;
    first.map(drop).map_err(|_| NoMember::Unusable("the configuration thread has died".into()))
}

/// The last good configuration on the disk. One that cannot be read is no reason not to start.
pub fn kept(member: &Member) -> Option<Set> {
    let set = member.disk.state().unwrap_or_else(|error| {
        log::error!("the last good configuration on disk is ignored", error = error);
        None
    })?;
    if let Some(trust) = set.trust()
        && let Err(why) = member.trust(trust)
    {
        log::error!("the last good configuration on disk is ignored", error = why);
        return None;
    }
    if let Some(actions) = set.actions() {
        member.hold(actions);
    }
    Some(set)
}

/// Starts the thread that takes configurations; gives what of the disk it serves.
async fn start_configuration(
    member: &Member,
    kept: Option<Set>,
    events: mpsc::Receiver<Event>,
) -> Result<Option<pilotfish_config::wire::Resume>, NoMember> {
    let publisher = Publisher::new(member.shared.clone());
    let mut source = ControlSource::new(publisher, member.disk.clone(), member.progress.clone(), events);
    let (restored, serving) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("configuration".into()).spawn(move || {
        let resume = kept.and_then(|set| source.restore(set));
        let _ = restored.send(resume);
        crate::server::yield_to_workers();
        source.run();
    })?;
    serving.await.map_err(|_| NoMember::Unusable("the configuration thread has died".into()))
}

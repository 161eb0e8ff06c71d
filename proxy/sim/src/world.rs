//! What all hosts of one run share. A run has a thread of its own, so there are no locks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_control::store::memory::Memory;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::journal::Journal;
use crate::network::Wires;
use crate::scenario::Scenario;
use crate::sidecar::Live;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// One run.
#[derive(Debug)]
pub struct World {
    /// What is to happen.
    pub scenario: Scenario,
    /// What happened.
    pub journal: RefCell<Journal>,
    /// What became of each call.
    pub calls: RefCell<BTreeMap<u32, Fate>>,
    /// The documents, as they are now.
    pub documents: RefCell<String>,
    /// Rung when they change.
    pub changed: Notify,
    /// The control plane's store: what would be on its disk.
    pub store: Arc<Memory>,
    /// The sidecars' folders.
    pub folder: TempDir,
    /// Every open connection of a sidecar.
    pub wires: Wires,
    /// The sidecars that run, by name.
    pub sidecars: RefCell<BTreeMap<&'static str, Live>>,
    /// What is wrong, as far as the hosts themselves noticed.
    pub wrong: RefCell<Vec<String>>,
    /// Whether everything is healed: agents fail no more.
    pub healed: Cell<bool>,
}

/// What became of one call.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// Where its head arrived, in order.
    pub arrived: Vec<&'static str>,
    /// Where it was executed, in order.
    pub executed: Vec<&'static str>,
    /// When it was sent.
    pub sent: Option<Duration>,
    /// When the caller knew its end, and what that was.
    pub ended: Option<(Duration, End)>,
}

/// How a call ended for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A whole answer, and the sidecar's reason if it is a refusal.
    Answered(u16, Option<String>),
    /// The connection ended before a whole answer.
    Broken,
    /// The caller went away itself.
    Left,
}

impl World {
    /// A world in which nothing has happened.
    ///
    /// # Errors
    /// There is no place for the sidecars' folders.
    pub fn new(scenario: Scenario) -> std::io::Result<Rc<World>> {
        // Memory, where there is such a folder: what is written there is synced each time.
        let shm = std::path::Path::new("/dev/shm");
        let folder = if shm.is_dir() { TempDir::new_in(shm)? } else { TempDir::new()? };
        let world = Rc::new(World {
            scenario,
            journal: RefCell::default(),
            calls: RefCell::default(),
            documents: RefCell::default(),
            changed: Notify::new(),
            store: Arc::new(Memory::new()),
            folder,
            wires: Wires::default(),
            sidecars: RefCell::default(),
            wrong: RefCell::default(),
            healed: Cell::new(false),
        });
        CURRENT.set(Some(world.clone()));
        Ok(world)
    }

    /// The world of this thread, for what cannot be given one.
    pub fn current() -> Option<Rc<World>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Forgets the world of this thread.
    pub fn leave() {
        CURRENT.set(None);
    }

    /// Notes an event at the simulated time of the running host.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), event);
    }

    /// Notes an event at this simulated time.
    pub fn note_at(&self, at: Duration, event: fmt::Arguments<'_>) {
        self.journal.borrow_mut().note(at, event);
    }

    /// Changes what is known of a call.
    pub fn call(&self, id: u32, change: impl FnOnce(&mut Fate)) {
        change(self.calls.borrow_mut().entry(id).or_default());
    }

    /// Notes that something must not be.
    pub fn wrong(&self, what: String) {
        self.note(format_args!("WRONG {what}"));
        self.wrong.borrow_mut().push(what);
    }
}

//! One run: builds the hosts, lets time pass, makes trouble when it is due, and checks the end.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use pilotfish_proxy::shutdown::Phase;
use turmoil::{Builder, Sim};

use crate::scenario::{Options, Policy, SERVING, Scenario, Trouble};
use crate::world::{End, World};
use crate::{agent, caller, check, control, sidecar};

/// How far the clock of the network moves at a time; hosts see finer time than that.
const TICK: Duration = Duration::from_millis(10);
/// After the last call: until what is left over has ended, timeouts included.
const SETTLE: Duration = Duration::from_secs(4);
/// Between the word that a sidecar drains and the end of its listeners.
const TOLD: Duration = Duration::from_millis(500);
/// Until everything is drained at most; the production default is 45 s.
const DRAIN: Duration = Duration::from_secs(45);
/// No run is longer.
const END: Duration = Duration::from_secs(600);

/// What came of one run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// The hash of its events.
    pub hash: u64,
    /// Its events.
    pub events: Vec<String>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// Calls that were made, and those that were executed.
    pub calls: (usize, usize),
    /// How calls ended, and how often.
    pub ends: BTreeMap<String, usize>,
}

/// Runs a seed. On a thread of its own: buffers and randomness that belong to a thread are those of a fresh process.
pub fn simulate(seed: u64, options: Options) -> Run {
    let run = std::thread::Builder::new().name(format!("seed-{seed}")).spawn(move || run(seed, options));
    match run.map(std::thread::JoinHandle::join) {
        Ok(Ok(run)) => run,
        Ok(Err(_)) => failed(seed, "the run panicked"),
        Err(error) => failed(seed, &error.to_string()),
    }
}

fn failed(seed: u64, why: &str) -> Run {
    Run {
        seed,
        hash: 0,
        events: Vec::new(),
        wrong: vec![why.to_owned()],
        calls: (0, 0),
        ends: BTreeMap::new(),
    }
}

fn run(seed: u64, options: Options) -> Run {
    pilotfish_proxy::net::simulated::enter();
    pilotfish_control::log::silence();
    fastrand::seed(seed);
    if options.bug {
        pilotfish_proxy::net::simulated::plant_a_bug();
    }
    let world = match World::new(Scenario::of_seed(seed)) {
        Ok(world) => world,
        Err(error) => return failed(seed, &error.to_string()),
    };
    let mut stage = Stage::build(&world);
    if let Err(error) = stage.play() {
        // Tokio numbers the tasks of a process, not of a run.
        let why = error.to_string();
        let why = why.trim_start_matches("task ").trim_start_matches(|c: char| c.is_ascii_digit());
        world.wrong(format!("the simulation ended: {why}"));
    }
    drop(stage);
    let mut wrong = world.wrong.take();
    wrong.extend(check::calls(&world));
    let journal = world.journal.borrow();
    let executed = world.calls.borrow().values().filter(|fate| !fate.executed.is_empty()).count();
    World::leave();
    world.sidecars.take();
    Run {
        seed,
        hash: journal.hash(),
        events: journal.lines().to_vec(),
        wrong,
        calls: (world.scenario.calls().count(), executed),
        ends: ends(&world),
    }
}

fn ends(world: &World) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for fate in world.calls.borrow().values() {
        let end = match fate.ended.as_ref().map(|(_, end)| end) {
            Some(End::Answered(_, Some(reason))) => reason.clone(),
            Some(End::Answered(status, None)) => status.to_string(),
            Some(End::Broken) => "connection ended".to_owned(),
            Some(End::Left) => "caller left".to_owned(),
            None => "no end".to_owned(),
        };
        *ends.entry(end).or_default() += 1;
        if fate.arrived.len() > 1 {
            *ends.entry("(arrived more than once, as it may)".to_owned()).or_default() += 1;
        }
    }
    ends
}

/// The hosts, and what is still to happen to them.
struct Stage {
    world: Rc<World>,
    sim: Sim<'static>,
    troubles: VecDeque<(Duration, Trouble)>,
}

impl Stage {
    fn build(world: &Rc<World>) -> Stage {
        let scenario = &world.scenario;
        let mut sim = Builder::new()
            .rng_seed(scenario.seed)
            .tick_duration(TICK)
            .simulation_duration(END)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(scenario.slowest)
            .enable_random_order()
            .build();
        let here = world.clone();
        sim.host(control::HOST, move || control::run(here.clone()));
        for name in SERVING {
            let here = world.clone();
            sim.host(agent::host(name), move || agent::run(here.clone(), name));
            let (here, agent) = (world.clone(), sim.lookup(agent::host(name)));
            sim.host(name, move || sidecar::run(here.clone(), name, Some(agent)));
        }
        let here = world.clone();
        world.documents.replace(documents(&scenario.policy));
        sim.host("a", move || sidecar::run(here.clone(), "a", None));
        sim.client("caller", caller::run(world.clone()));
        Stage { world: world.clone(), sim, troubles: scenario.troubles.iter().cloned().collect() }
    }

    fn play(&mut self) -> turmoil::Result {
        while !self.step()? {}
        self.heal();
        self.pass(SETTLE)?;
        self.judge(false);
        // As a process does after SIGTERM: the mesh is told, then the listeners close.
        self.drain(Phase::Unready);
        self.pass(TOLD)?;
        self.drain(Phase::Closing);
        let until = self.sim.elapsed() + DRAIN;
        while ["a", "b", "c"].into_iter().any(|name| self.sim.is_host_running(name))
            && self.sim.elapsed() < until
        {
            self.sim.step()?;
        }
        self.judge(true);
        Ok(())
    }

    fn drain(&self, phase: Phase) {
        self.world.sidecars.borrow().values().for_each(|live| live.shared.drain.advance(phase));
    }

    /// One tick; whether all calls have ended.
    fn step(&mut self) -> turmoil::Result<bool> {
        let now = self.sim.elapsed();
        while let Some((_, trouble)) = self.troubles.pop_front_if(|(at, _)| *at <= now) {
            self.make(&trouble);
        }
        self.sim.step()
    }

    fn pass(&mut self, time: Duration) -> turmoil::Result {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.sim.step()?;
        }
        Ok(())
    }

    fn judge(&self, drained: bool) {
        for wrong in check::leaks(&self.world, drained) {
            self.world.note_at(self.sim.elapsed(), format_args!("WRONG {wrong}"));
            self.world.wrong.borrow_mut().push(wrong);
        }
    }

    fn make(&mut self, trouble: &Trouble) {
        self.world.note_at(self.sim.elapsed(), format_args!("trouble: {trouble:?}"));
        match trouble {
            Trouble::Hold(side) => self.sim.hold("a", *side),
            Trouble::Release(side) => self.sim.release("a", *side),
            Trouble::Partition(side) => self.sim.partition("a", *side),
            Trouble::Cut(side) | Trouble::Reset(side) => {
                let n = self.world.wires.cut(self.sim.lookup("a"), self.sim.lookup(*side));
                self.world.note_at(self.sim.elapsed(), format_args!("{n} ends of connections are cut"));
            }
            Trouble::Repair(side) => self.sim.repair("a", *side),
            Trouble::Crash(host) => self.sim.crash(host.as_str()),
            Trouble::Restart(host) => self.restart(host),
            Trouble::Reload(policy) => {
                self.world.documents.replace(documents(policy));
                self.world.changed.notify_one();
            }
        }
    }

    fn restart(&mut self, host: &str) {
        if !self.sim.is_host_running(host) {
            self.sim.bounce(host);
        }
    }

    /// What is still to be repaired is repaired, and nothing more goes wrong.
    fn heal(&mut self) {
        self.world.healed.set(true);
        for (_, trouble) in std::mem::take(&mut self.troubles) {
            if matches!(
                trouble,
                Trouble::Release(_) | Trouble::Cut(_) | Trouble::Repair(_) | Trouble::Restart(_)
            ) {
                self.make(&trouble);
            }
        }
    }
}

/// All documents: inbound ports take only callers that prove who they are.
fn documents(policy: &Policy) -> String {
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: { name: default }\n\
                  spec: { mtls: { mode: STRICT } }\n";
    policy.yaml() + strict
}

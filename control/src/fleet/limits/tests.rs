//! The share-out under a manual clock, with the sidecars' real buckets and messages that take their time.

use std::borrow::Cow;
use std::collections::VecDeque;

use pilotfish_config::{Options, load_texts};
use pilotfish_filters::call::{Call, Head};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, compile};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::rate_limit::{Asking, Counts};
use pilotfish_filters::state::State;

use super::*;

const REPORT_EVERY: u64 = 500;
const LOOK_EVERY: u64 = 250;
const PATIENCE: Duration = Duration::from_secs(10);

/// Limits by caller, header and rule are tested where they are; here a call has nothing to tell.
struct Plain;

impl Head for Plain {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn scheme(&self) -> &'static str {
        "http"
    }
    fn authority(&self) -> &'static str {
        "agent"
    }
    fn path(&self) -> &'static str {
        "/"
    }
    fn query(&self) -> Option<&str> {
        None
    }
    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
    fn each_header(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}
}

/// A sidecar with its own clock for reports, as `proxy/src/control/limits.rs` sends them.
struct Sidecar {
    id: Arc<str>,
    plan: Plan,
    _state: State,
    told: Counts,
    at: u64,
    offset: u64,
    /// Calls a second.
    load: f64,
    due: f64,
    down: VecDeque<(u64, (u32, u32))>,
    turn: u32,
    stream: u64,
    up: VecDeque<(u64, LimitUse)>,
    connected: bool,
}

/// Everything, in milliseconds.
struct World {
    rng: fastrand::Rng,
    now: u64,
    split: Split,
    sidecars: Vec<Sidecar>,
    part: u32,
    /// When each call was admitted.
    admitted: Vec<u64>,
    most_delay: u64,
}

impl World {
    fn new(seed: u64, limit: &str, loads: &[f64]) -> World {
        let yaml = format!(
            "apiVersion: pilotfish.dev/v1\nkind: RateLimit\nmetadata: {{name: l}}\nspec: {{direction: inbound, fleet: true, limit: {limit}}}\n"
        );
        let model = load_texts(&[("l.yaml", &yaml)], &Options::default()).model.unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let sidecar = |(number, load): (usize, &f64)| {
            let state = State::with_seed(number as u64);
            let options = CompileOptions { namespace: "default".into(), ..CompileOptions::default() };
            let plan = compile(&model, &options, &Default::default(), &state, Micros(0)).unwrap();
            plan.settle_limits(Micros(0));
            Sidecar {
                id: format!("default/agent/{number}").into(),
                plan,
                _state: state,
                told: Counts::default(),
                at: 0,
                offset: rng.u64(..REPORT_EVERY),
                load: *load,
                due: 0.0,
                down: VecDeque::new(),
                turn: 0,
                stream: 1,
                up: VecDeque::new(),
                connected: true,
            }
        };
        let sidecars = loads.iter().enumerate().map(sidecar).collect();
        World {
            rng,
            now: 0,
            split: Split::new(Duration::ZERO),
            sidecars,
            part: WHOLE,
            admitted: Vec::new(),
            most_delay: 100,
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            for at in 0..self.sidecars.len() {
                self.calls(at);
                self.messages(at);
            }
            if self.now.is_multiple_of(LOOK_EVERY) {
                self.look();
            }
            let slices: u64 = self.slices().iter().map(|share| u64::from(*share)).sum();
            // Before the first word each has a hundredth of its own.
            let first = self.sidecars.len() as u64 * 10_000;
            assert!(
                slices <= u64::from(WHOLE) + if self.now < 5000 { first } else { 0 },
                "{slices} at {}",
                self.now
            );
        }
    }

    fn slices(&self) -> Vec<u32> {
        self.sidecars.iter().map(|sidecar| sidecar.plan.rate_limits()[0].state.share()).collect()
    }

    fn calls(&mut self, at: usize) {
        let sidecar = &mut self.sidecars[at];
        sidecar.due += sidecar.load / 1000.0;
        while sidecar.due >= 1.0 {
            sidecar.due -= 1.0;
            let now = Micros(self.now * 1000 + self.rng.u64(..1000));
            let asking = Asking { head: &Plain, call: &Call::default(), caller: None };
            if sidecar.plan.inbound_limits().admit(now, &asking).is_ok() {
                self.admitted.push(self.now);
            }
        }
    }

    fn messages(&mut self, at: usize) {
        let delay = self.rng.u64(..self.most_delay);
        let sidecar = &mut self.sidecars[at];
        if !sidecar.connected {
            return;
        }
        let mut say = (self.now + sidecar.offset).is_multiple_of(REPORT_EVERY);
        while let Some((_, (share, turn))) = sidecar.down.pop_front_if(|(due, _)| *due <= self.now) {
            sidecar.plan.rate_limits()[0].state.set_share(Micros(self.now * 1000), share);
            (sidecar.turn, say) = (turn, true);
        }
        if say {
            let state = &sidecar.plan.rate_limits()[0].state;
            let counts = state.counts();
            let used = (counts.allowed - sidecar.told.allowed) as u32;
            let limited = (counts.limited - sidecar.told.limited) as u32;
            let over_ms = (self.now - sidecar.at) as u32;
            (sidecar.told, sidecar.at) = (counts, self.now);
            let report = LimitUse {
                name: "default/l".into(),
                used,
                wanted: used + limited,
                over_ms,
                share: state.share(),
                turn: sidecar.turn,
            };
            // A stream keeps the order.
            let due = sidecar.up.back().map_or(0, |(due, _)| *due).max(self.now + delay);
            sidecar.up.push_back((due, report));
        }
        while let Some((_, report)) = sidecar.up.pop_front_if(|(due, _)| *due <= self.now) {
            self.split.report(&sidecar.id, sidecar.stream << 8 | at as u64, &report);
        }
    }

    fn look(&mut self) {
        let expected = self.sidecars.len();
        self.split.share_out(self.part, expected, Duration::from_millis(self.now), PATIENCE);
        for (stream, share, turn) in self.split.tell() {
            // What is sent by a stream that ended is lost.
            let own = |sidecar: &&mut Sidecar| sidecar.connected && sidecar.stream == stream >> 8;
            if let Some(sidecar) =
                self.sidecars.get_mut((stream & 0xff) as usize).as_mut().filter(|one| own(one))
            {
                let down = &mut sidecar.down;
                let due =
                    down.back().map_or(0, |(due, _)| *due).max(self.now + self.rng.u64(..self.most_delay));
                down.push_back((due, (share, turn)));
            }
        }
    }

    /// Cuts a sidecar's stream, or opens a new one.
    fn connect(&mut self, at: usize, connected: bool) {
        let sidecar = &mut self.sidecars[at];
        if sidecar.connected != connected {
            sidecar.connected = connected;
            sidecar.down.clear();
            sidecar.up.clear();
            (sidecar.turn, sidecar.stream) = (0, sidecar.stream + u64::from(connected));
        }
    }

    /// Calls admitted since then.
    fn since(&self, from: u64) -> usize {
        self.admitted.iter().filter(|at| **at > from).count()
    }
}

#[test]
fn a_fleet_is_within_its_limit_while_use_shifts() {
    for seed in 0..12 {
        let mut world = World::new(seed, "{requests: 200, per: 1s, burst: 40}", &[400.0, 30.0, 0.0]);
        world.run(6000);
        let slices = world.slices();
        assert!(slices[0] > 750_000 && slices[1] > 50_000 && slices[2] > 10_000, "seed {seed}: {slices:?}");
        // All of the use moves to the one that had none.
        let shift = world.now;
        for (sidecar, load) in world.sidecars.iter_mut().zip([0.0, 30.0, 400.0]) {
            sidecar.load = load;
        }
        world.run(10_000);
        let slices = world.slices();
        assert!(slices[2] > 750_000 && slices[0] < 60_000, "seed {seed}: {slices:?}");
        for window in [3000, 5000, 10_000] {
            for start in (0..=world.now - window).step_by(250) {
                let count =
                    world.admitted.iter().filter(|at| (start + 1..=start + window).contains(*at)).count();
                let most = 200 * window as usize / 1000;
                // Buckets that are full at its start are the burst, which is allowed once.
                assert!(count <= most + 40 + most / 20, "seed {seed}: {count} in {window} ms from {start}");
            }
        }
        // It does not stand still for long, and then all of the limit is used.
        let (moving, moved) = (world.since(shift) - world.since(shift + 4000), world.since(shift + 4000));
        assert!(moving >= 200 * 4 / 2, "seed {seed}: {moving} of 800 while slices moved");
        assert!((1140..=1260).contains(&moved), "seed {seed}: {moved} of 1200 after that");
    }
}

#[test]
fn random_loads_joins_and_cuts_never_get_more_than_there_is() {
    for seed in 100..120 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let loads: Vec<f64> = (0..rng.usize(2..8)).map(|_| f64::from(rng.u32(..500))).collect();
        let mut world = World::new(seed, "{requests: 300, per: 1s, burst: 30}", &loads);
        world.most_delay = rng.u64(1..1500);
        world.run(5000);
        let start = world.now;
        for _ in 0..12 {
            let at = rng.usize(..world.sidecars.len());
            world.sidecars[at].load = f64::from(rng.u32(..800)) * f64::from(u8::from(rng.bool()));
            let cut = rng.usize(..world.sidecars.len());
            let connected = world.sidecars[cut].connected;
            world.connect(cut, connected ^ (rng.u8(..3) == 0));
            world.run(rng.u64(500..2500));
        }
        let seconds = (world.now - start) as f64 / 1000.0;
        let (count, most) = (world.since(start) as f64, 300.0 * seconds + 30.0);
        assert!(count <= most * 1.01 + 8.0, "seed {seed}: {count} of {most}");
    }
}

#[test]
fn equal_use_gives_equal_slices_and_no_use_too() {
    for loads in [[100.0; 4], [0.0; 4]] {
        let mut world = World::new(1, "{requests: 100, per: 1s}", &loads);
        world.run(5000);
        let slices = world.slices();
        assert!(slices.iter().all(|share| (220_000..=280_000).contains(share)), "{slices:?}");
    }
}

#[test]
fn a_control_plane_that_was_started_anew_gives_nothing_twice() {
    let mut world = World::new(5, "{requests: 100, per: 1s}", &[200.0, 100.0, 10.0]);
    world.run(5000);
    let before = world.slices();
    // It knows nothing; one of the sidecars cannot reach it and keeps its slice.
    world.split = Split::new(Duration::from_millis(world.now));
    world.connect(0, false);
    world.run(3000);
    let after = world.slices();
    assert_eq!(after[0], before[0]);
    assert!(after[1] <= before[1] && after[2] <= before[2], "{before:?} {after:?}");
    world.connect(0, true);
    world.run(4000);
    let slices = world.slices();
    assert!(slices[0] > 550_000 && slices.iter().sum::<u32>() <= WHOLE, "{slices:?}");
}

#[test]
fn a_smaller_part_is_kept_and_one_that_left_leaves_its_slice() {
    let mut world = World::new(9, "{requests: 100, per: 1s}", &[100.0, 100.0]);
    world.run(4000);
    world.part = WHOLE / 2;
    world.run(2000);
    assert!(world.slices().iter().sum::<u32>() <= WHOLE / 2);
    world.part = WHOLE;
    world.run(2000);
    let gone = world.sidecars.pop().unwrap();
    world.split.keep(|id| *id != *gone.id);
    world.run(2000);
    assert_eq!(world.slices(), [WHOLE]);
}

#[test]
fn garbage_gives_nobody_everything() {
    let mut split = Split::new(Duration::ZERO);
    let report = |wanted, over_ms, share| LimitUse {
        name: "default/l".into(),
        used: 0,
        wanted,
        over_ms,
        share,
        turn: 0,
    };
    let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
    for _ in 0..20 {
        split.report(&a, 1, &report(u32::MAX, 1, u32::MAX));
        split.report(&a, 1, &report(u32::MAX, u32::MAX, 0));
        split.report(&b, 2, &report(10, 500, 10_000));
        split.share_out(WHOLE, 2, Duration::from_secs(60), PATIENCE);
    }
    let told = split.tell();
    let sum: u32 = told.iter().map(|(_, share, _)| share).sum();
    assert!(told.iter().all(|(_, share, _)| *share >= 1) && sum <= WHOLE, "{told:?}");
}

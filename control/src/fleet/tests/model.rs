//! Whatever happens in whatever order: who applies its updates holds exactly what a fresh full snapshot gives.

use std::time::Duration;

use pilotfish_config::wire::{Hello, Hold, Status};

use super::world::*;
use crate::fleet::Fleet;

async fn random_step(
    rng: &mut fastrand::Rng,
    world: &World,
    fleet: &std::sync::Arc<Fleet>,
    all: &mut Vec<Sidecar>,
) {
    match rng.u8(..9) {
        0 | 1 => {
            let names = ["ServiceEntry.a", "ServiceEntry.b", "ServiceEntry.c", "ServiceEntry.d"];
            let mut texts: Vec<(&str, String)> = Vec::new();
            for name in names {
                if rng.bool() {
                    texts.push((name, service(&format!("{}{}", &name[13..], rng.u8(..3)))));
                }
            }
            let documents: Vec<(&str, &str)> =
                texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
            world.apply(&documents);
        }
        2 => {
            let number = rng.u32(10..20);
            let status = if rng.bool() { Status::Ready } else { Status::Initializing };
            let hello = Hello { status, ..hello("extra", number) };
            all.push(Sidecar::open(fleet, peer("extra"), hello).await);
        }
        3 if all.len() > 3 => {
            let gone = all.remove(rng.usize(3..all.len()));
            if rng.bool() {
                gone.beat(Status::Draining).await;
            }
        }
        4 | 5 if all.len() > 3 => {
            let status = [Status::Ready, Status::Degraded, Status::Quarantined][rng.usize(..3)];
            all[rng.usize(3..all.len())].beat(status).await;
        }
        6 => world.revoke(if rng.bool() { &["extra"] } else { &[] }),
        7 => match rng.u8(..3) {
            0 => world.hold(&[]),
            1 => world.hold(&[("extra", Hold::Quarantine)]),
            _ => world.hold(&[("extra", Hold::Restrict(vec!["plan".into()]))]),
        },
        _ => {
            // One of the three that stay reads something, or comes back with what it has.
            let at = rng.usize(..3);
            if rng.bool() {
                if let Ok(message) = tokio::time::timeout(Duration::from_millis(1), all[at].next()).await
                    && let Some(pilotfish_config::wire::ToSidecar::Update(update)) = message
                {
                    all[at].held.apply(*update);
                }
            } else {
                let held = all[at].held.clone();
                let number = u32::try_from(at).unwrap();
                let hello = Hello { resume: held.resume.clone(), ..hello("stays", number) };
                all[at] = Sidecar::open(fleet, peer("stays"), hello).await;
                all[at].held = held;
            }
        }
    }
    let beats = rng.u64(..400);
    pass(Duration::from_millis(beats)).await;
    for stays in &all[..3] {
        stays.beat(Status::Ready).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deltas_lead_where_snapshots_are() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let world = World::new();
        let fleet = world.control("c1").await;
        let mut all = Vec::new();
        for number in 0..3 {
            all.push(Sidecar::connect(&fleet, "stays", number).await);
        }
        for _ in 0..60 {
            random_step(&mut rng, &world, &fleet, &mut all).await;
        }
        for sidecar in &mut all[..3] {
            sidecar.settle().await;
            sidecar.beat(Status::Ready).await;
        }
        for _ in 0..3 {
            pass(Duration::from_secs(3)).await;
            for stays in &all[..3] {
                stays.beat(Status::Ready).await;
            }
        }
        for sidecar in &mut all[..3] {
            sidecar.settle().await;
        }
        // An agent that only calls changes nobody's set.
        let fresh = Hello { address: None, ..hello("fresh", 99) };
        let mut fresh = Sidecar::open(&fleet, peer("fresh"), fresh).await;
        fresh.welcome().await;
        assert!(fresh.update().await.full);
        for stays in &all[..3] {
            assert_eq!(stays.held, fresh.held, "seed {seed}");
        }
    }
}

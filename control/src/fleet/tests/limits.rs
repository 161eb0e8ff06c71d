//! Slices of fleet-wide rate limits over streams, from one control plane and from two.

use std::time::Duration;

use pilotfish_config::wire::{Heartbeat, LimitUse, Status, ToControl, ToSidecar};

use super::world::*;

const LIMIT: (&str, &str) =
    ("RateLimit.l", r#"{"direction":"inbound","fleet":true,"limit":{"requests":100,"burst":10}}"#);
const NAME: &str = "default/ratelimit-l";

/// A sidecar that keeps the limit: its slice and the turn of it.
struct Keeper {
    sidecar: Sidecar,
    share: u32,
    turn: u32,
}

impl Keeper {
    async fn connect(fleet: &std::sync::Arc<crate::fleet::Fleet>, agent: &str, number: u32) -> Keeper {
        Keeper { sidecar: Sidecar::connect(fleet, agent, number).await, share: 10_000, turn: 0 }
    }

    /// Half a second of so many calls, and whatever comes then.
    async fn half_a_second(&mut self, wanted: u32) {
        let used = LimitUse {
            name: NAME.into(),
            used: wanted,
            wanted,
            over_ms: 500,
            share: self.share,
            turn: self.turn,
        };
        let beat = Heartbeat { limits: vec![used], ..beat(Status::Ready) };
        self.sidecar.send(ToControl::Heartbeat(beat)).await;
        while let Some(message) = self.sidecar.now().await {
            if let ToSidecar::Shares(shares) = message {
                assert_eq!(shares.shares.len(), 1);
                (self.share, self.turn) = (shares.shares[0].share, shares.shares[0].turn);
                assert_eq!(shares.shares[0].name, NAME);
            }
        }
    }
}

async fn seconds(keepers: &mut [(Keeper, u32)], count: u32) {
    for _ in 0..count * 2 {
        for (keeper, wanted) in keepers.iter_mut() {
            keeper.half_a_second(*wanted).await;
        }
        pass(Duration::from_millis(500)).await;
    }
}

fn slices(keepers: &[(Keeper, u32)]) -> Vec<u32> {
    keepers.iter().map(|(keeper, _)| keeper.share).collect()
}

#[tokio::test(start_paused = true)]
async fn slices_follow_use_and_leases() {
    let world = World::new();
    world.apply(&[LIMIT]);
    let control = world.control("c1").await;
    let mut keepers = Vec::new();
    for (number, wanted) in [(1, 30), (2, 10), (3, 0)] {
        keepers.push((Keeper::connect(&control, "agent", number).await, wanted));
    }
    seconds(&mut keepers, 5).await;
    let first = slices(&keepers);
    assert!((700_000..760_000).contains(&first[0]) && (220_000..280_000).contains(&first[1]), "{first:?}");
    assert!((15_000..18_000).contains(&first[2]), "{first:?}");
    for ((_, wanted), new) in keepers.iter_mut().zip([0, 10, 30]) {
        *wanted = new;
    }
    seconds(&mut keepers, 8).await;
    let moved = slices(&keepers);
    assert!(moved[2] > 650_000 && moved[0] < 60_000 && moved.iter().sum::<u32>() <= 1_000_000, "{moved:?}");
    // One goes without a word: its slice is given to others once its lease has run out, not before.
    let gone = keepers.pop().unwrap();
    drop(gone);
    seconds(&mut keepers, 4).await;
    assert!(slices(&keepers).iter().sum::<u32>() <= 1_000_000 - moved[2], "{:?}", slices(&keepers));
    seconds(&mut keepers, 12).await;
    assert!(slices(&keepers).iter().sum::<u32>() > 990_000, "{:?}", slices(&keepers));
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_not_for_a_sidecar_or_not_the_fleets_get_no_answer() {
    let world = World::new();
    let own = LIMIT.1.replace("\"fleet\":true", "\"fleet\":false");
    let other = LIMIT.1.replace("\"limit\"", "\"selector\":{\"matchLabels\":{\"app\":\"x\"}},\"limit\"");
    world.apply(&[("RateLimit.own", &own), ("RateLimit.other", &other)]);
    let control = world.control("c1").await;
    let mut sidecar = Sidecar::connect(&control, "agent", 1).await;
    let used =
        |name: &str| LimitUse { name: name.into(), used: 1, wanted: 1, over_ms: 500, share: 1, turn: 0 };
    let limits =
        ["default/ratelimit-own", "default/ratelimit-other", "default/absent", "", "/"].map(used).to_vec();
    for _ in 0..4 {
        sidecar.send(ToControl::Heartbeat(Heartbeat { limits: limits.clone(), ..beat(Status::Ready) })).await;
        pass(Duration::from_secs(1)).await;
    }
    while let Some(message) = sidecar.now().await {
        assert!(!matches!(message, ToSidecar::Shares(_)), "{message:?}");
    }
    sidecar
        .send(ToControl::Heartbeat(Heartbeat { limits: vec![used("x"); 1025], ..beat(Status::Ready) }))
        .await;
    assert!(sidecar.refused().await.reason.contains("1024 rate limits"));
}

#[tokio::test(start_paused = true)]
async fn two_control_planes_share_out_what_their_sidecars_are_of_all() {
    let world = World::new();
    world.apply(&[LIMIT]);
    let (first, second) = (world.control("c1").await, world.control("c2").await);
    let mut keepers = Vec::new();
    for (number, control) in [(1, &first), (2, &first), (3, &first), (4, &second)] {
        keepers.push((Keeper::connect(control, "agent", number).await, 20));
    }
    for _ in 0..16 {
        seconds(&mut keepers, 1).await;
        assert!(slices(&keepers).iter().sum::<u32>() <= 1_000_000 + 30_000, "{:?}", slices(&keepers));
    }
    let all = slices(&keepers);
    assert!(all.iter().all(|share| (240_000..=260_000).contains(share)), "{all:?}");
}

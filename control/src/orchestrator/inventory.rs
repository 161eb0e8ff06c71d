//! What nodes say they have: bounded, looked through for what cannot be, and made into machines to place on.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_config::model::{Taint, TaintEffect};
use pilotfish_config::wire::node::{GpuState, Inventory, ReplicaState};

use super::Mark;
use super::records::Assigned;
use crate::placement::world::{Card, Machine, MachineState};

/// Cards of one machine; the largest that are sold have 16, with MIG seven times as many.
const MOST_GPUS: usize = 256;
/// MIG instances of one card; the hardware has 7.
const MOST_SLICES: usize = 16;
/// Bytes of one card: eight times what the largest has.
const LARGEST_CARD: u64 = 2 << 40;
/// Thousandths of a core: 100,000 cores.
const MOST_CPU: u64 = 100_000_000;
/// Bytes of one machine: 1 PiB.
const MOST_MEMORY: u64 = 1 << 50;
/// Replicas of one machine.
pub const MOST_REPLICAS: usize = 10_000;
/// Labels, taints and troubles of one machine.
const MOST_WORDS: usize = 64;
/// Bytes of one of them, and of what a replica says.
const LONGEST: usize = 512;

/// What of an inventory can be, and what is wrong with the rest, for people.
pub fn sane(said: Inventory) -> (Inventory, Vec<String>) {
    let mut wrong = Vec::new();
    let mut inventory = said;
    inventory.locality = inventory.locality.map(|locality| clip(&locality, 256)).filter(|l| !l.is_empty());
    if inventory.labels.len() > MOST_WORDS {
        wrong.push(format!("{} labels; the first {MOST_WORDS} count", inventory.labels.len()));
    }
    let labels = std::mem::take(&mut inventory.labels).into_iter().take(MOST_WORDS);
    inventory.labels = labels.map(|(key, value)| (clip(&key, 317), clip(&value, LONGEST))).collect();
    for list in [&mut inventory.taints, &mut inventory.troubles, &mut inventory.enforces] {
        list.truncate(MOST_WORDS);
        list.iter_mut().for_each(|text| *text = clip(text, LONGEST));
    }
    for text in inventory.taints.iter().filter(|text| taint(text).is_none()) {
        wrong.push(format!("the taint `{text}` is not key=value:Effect; it does not count"));
    }
    if inventory.cpu_milli > MOST_CPU {
        wrong.push(format!("{} cores cannot be; no agent is placed there", inventory.cpu_milli / 1000));
        inventory.cpu_milli = 0;
    }
    if inventory.memory > MOST_MEMORY {
        wrong.push(format!("{} bytes of memory cannot be; no agent is placed there", inventory.memory));
        inventory.memory = 0;
    }
    inventory.most_replicas = inventory.most_replicas.min(MOST_REPLICAS as u32);
    inventory.gpus = cards(std::mem::take(&mut inventory.gpus), &mut wrong);
    (inventory, wrong)
}

fn cards(said: Vec<GpuState>, wrong: &mut Vec<String>) -> Vec<GpuState> {
    if said.len() > MOST_GPUS {
        wrong.push(format!("{} GPUs; the first {MOST_GPUS} count", said.len()));
    }
    let mut ids = BTreeSet::new();
    let mut cards = Vec::new();
    for mut card in said.into_iter().take(MOST_GPUS) {
        card.id = clip(&card.id, 128);
        card.model = clip(&card.model, 128);
        card.driver = card.driver.map(|driver| clip(&driver, 64));
        card.failed = card.failed.map(|failed| clip(&failed, LONGEST));
        card.busy_percent = card.busy_percent.min(100);
        if card.id.is_empty() || !ids.insert(card.id.clone()) {
            wrong.push(format!("two GPUs with the id `{}`; the first counts", card.id));
            continue;
        }
        if card.memory > LARGEST_CARD {
            wrong.push(format!(
                "GPU {} with {} bytes cannot be; nothing is placed there",
                card.id, card.memory
            ));
            card.failed = Some(format!("it says that it has {} bytes", card.memory));
            card.memory = 0;
        }
        let mut slices = BTreeSet::new();
        card.slices.truncate(MOST_SLICES);
        card.slices.retain(|slice| slice.id.len() <= 128 && slices.insert(slice.id.clone()));
        let sum = card.slices.iter().fold(0u64, |sum, slice| sum.saturating_add(slice.memory));
        if sum > card.memory && card.failed.is_none() {
            wrong.push(format!(
                "the slices of GPU {} have more memory than it; nothing is placed there",
                card.id
            ));
            card.failed = Some("its slices have more memory than it".into());
        }
        cards.push(card);
    }
    cards
}

/// The part that is stored, and that placement looks at: not what is in use just now.
pub fn lasting(inventory: &Inventory) -> Inventory {
    let mut lasting = inventory.clone();
    lasting.troubles.clear();
    for card in &mut lasting.gpus {
        (card.used, card.busy_percent) = (0, 0);
    }
    lasting
}

/// A replica's state with bounded texts; nothing for one whose id cannot be.
pub fn bounded(mut state: ReplicaState) -> Option<ReplicaState> {
    state.reason = state.reason.map(|reason| clip(&reason, LONGEST));
    state.generation = clip(&state.generation, 128);
    (state.id.len() <= 256).then_some(state)
}

/// `key=value:Effect`, or `key:Effect`.
pub fn taint(text: &str) -> Option<Taint> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => TaintEffect::NoExecute,
        _ => return None,
    };
    (!key.is_empty()).then(|| Taint { key: key.into(), value: value.into(), effect })
}

/// Region and zone of `region/zone/subzone`.
pub fn region_and_zone(inventory: &Inventory) -> (&str, &str) {
    let mut parts = inventory.locality.as_deref().unwrap_or_default().split('/');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Cards that replicas hold and that the machine does not have any more.
pub fn vanished<'a>(
    inventory: &'a Inventory,
    held: impl Iterator<Item = &'a Assigned>,
) -> std::vec::IntoIter<&'a str> {
    let mut gone: Vec<&str> = held
        .flat_map(|assigned| assigned.gpus.iter().map(|share| share.gpu.as_str()))
        .filter(|id| !inventory.gpus.iter().any(|card| card.id == *id))
        .collect();
    gone.sort_unstable();
    gone.dedup();
    gone.into_iter()
}

/// The machine that placement sees. `declared` is what a Node document of its name adds. A card that replicas hold and that is gone
/// is there as one that failed, so that they move.
pub fn machine(
    name: &str,
    inventory: &Inventory,
    assignments: &[Assigned],
    declared: Option<&Machine>,
    mark: Mark,
    silent: bool,
    lost: bool,
) -> Machine {
    let (region, zone) = region_and_zone(inventory);
    let mut labels: BTreeMap<String, String> = inventory.labels.clone();
    let mut taints: Vec<Taint> = inventory.taints.iter().filter_map(|text| taint(text)).collect();
    let mut closed = silent || mark == Mark::Cordoned;
    if let Some(declared) = declared {
        labels.extend(declared.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        taints.extend(
            declared.taints.iter().filter(|taint| !taints.contains(taint)).cloned().collect::<Vec<_>>(),
        );
        closed |= declared.state == MachineState::Cordoned;
    }
    let mut gpus: Vec<Card> = inventory.gpus.iter().map(card).collect();
    gpus.extend(vanished(inventory, assignments.iter()).map(|id| Card {
        id: id.to_owned(),
        model: String::new(),
        memory: 0,
        healthy: false,
        slices: Vec::new(),
    }));
    Machine {
        name: name.to_owned(),
        region: region.to_owned(),
        zone: zone.to_owned(),
        labels,
        taints,
        cpu_milli: inventory.cpu_milli,
        memory: inventory.memory,
        gpus,
        most_replicas: inventory.most_replicas,
        state: match (lost, mark) {
            (true, _) => MachineState::Lost,
            (false, Mark::Draining) => MachineState::Draining,
            (false, _) if closed => MachineState::Cordoned,
            (false, _) => MachineState::Open,
        },
    }
}

fn card(said: &GpuState) -> Card {
    Card {
        id: said.id.clone(),
        model: said.model.clone(),
        memory: said.memory,
        healthy: said.failed.is_none(),
        slices: said.slices.iter().map(|s| (s.id.clone(), s.profile.clone(), s.memory)).collect(),
    }
}

/// At most so many bytes of a text, without control characters.
pub fn clip(text: &str, most: usize) -> String {
    let mut clipped = String::with_capacity(text.len().min(most));
    for char in text.chars() {
        if clipped.len() + char.len_utf8() > most {
            break;
        }
        clipped.push(if char.is_control() { ' ' } else { char });
    }
    clipped
}

#[cfg(test)]
mod tests {
    use pilotfish_config::wire::node::{GpuShare, SliceState};

    use super::*;
    use crate::placement::world::Need;

    fn gpu(id: &str, memory: u64) -> GpuState {
        GpuState {
            id: id.into(),
            model: "NVIDIA A100".into(),
            memory,
            failed: None,
            driver: None,
            slices: Vec::new(),
            used: 5,
            busy_percent: 250,
        }
    }

    #[test]
    fn a_node_that_lies_is_not_believed_and_it_is_said_why() {
        let mut gpus: Vec<GpuState> = (0..1000).map(|n| gpu(&format!("GPU-{n}"), 80 << 30)).collect();
        gpus.insert(1, gpu("GPU-0", 1 << 30));
        gpus[2].memory = u64::MAX;
        let slice = SliceState { id: "MIG-1".into(), profile: "7g".into(), memory: u64::MAX };
        gpus[3].slices = vec![slice; 100];
        let said = Inventory {
            gpus,
            cpu_milli: u64::MAX,
            memory: u64::MAX,
            most_replicas: u32::MAX,
            taints: vec!["a=b:Nonsense".into(), "gpu=yes:NoSchedule".into()],
            troubles: vec!["x\ny".repeat(10_000); 1000],
            labels: (0..1000).map(|n| (format!("{n}"), "v".repeat(5000))).collect(),
            ..Inventory::default()
        };
        let (inventory, wrong) = sane(said);
        assert_eq!((inventory.cpu_milli, inventory.memory, inventory.most_replicas), (0, 0, 10_000));
        assert_eq!((inventory.gpus.len(), inventory.gpus[0].memory), (255, 80 << 30));
        assert!(inventory.gpus[1].failed.is_some() && inventory.gpus[2].failed.is_some());
        assert_eq!(inventory.gpus[0].busy_percent, 100);
        assert_eq!((inventory.labels.len(), inventory.troubles.len()), (64, 64));
        assert!(inventory.troubles[0].len() <= 512 && !inventory.troubles[0].contains('\n'));
        for part in [
            "1000 labels",
            "Nonsense",
            "1001 GPUs",
            "two GPUs with the id `GPU-0`",
            "GPU-1 with",
            "slices of GPU GPU-2",
        ] {
            assert!(wrong.iter().any(|text| text.contains(part)), "{part}: {wrong:?}");
        }
        assert_eq!(lasting(&inventory).gpus[0].used, 0);
    }

    #[test]
    fn a_card_that_vanished_is_one_that_failed() {
        let inventory = Inventory { gpus: vec![gpu("GPU-0", 1 << 30)], ..Inventory::default() };
        let share = |id: &str| GpuShare { gpu: id.into(), slice: None, memory: 1 };
        let assigned = Assigned {
            replica: "a/b/c".into(),
            group: "a/b".into(),
            generation: String::new(),
            need: Need::default(),
            gpus: vec![share("GPU-0"), share("GPU-9")],
            since: 0,
            replaces: None,
        };
        let machine = machine("n", &inventory, &[assigned], None, Mark::Open, false, false);
        let cards: Vec<_> = machine.gpus.iter().map(|card| (card.id.as_str(), card.healthy)).collect();
        assert_eq!(cards, [("GPU-0", true), ("GPU-9", false)]);
    }
}

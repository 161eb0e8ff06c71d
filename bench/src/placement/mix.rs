//! Machines and replicas of the shape of a published GPU cluster, and the published one itself.
//!
//! The shape is that of Alibaba's `openb` trace (github.com/alibaba/clusterdata, cluster-trace-gpu-v2023): 1,213 machines with
//! 6,212 cards, 8,152 replicas of which 13 % need no card, 38 % a part of one, 48 % one and 1 % two to eight. A card counts as
//! 1,000 MiB here, so a replica's thousandths of a card are MiB.

use std::fs;
use std::io;
use std::path::Path;

use pilotfish_control::placement::world::{Card, Machine, MachineState, Need};

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes of every card.
pub const CARD: u64 = 1000 * MIB;

/// Machines of one kind: how many in a thousand, thousandths of a core, GiB, cards.
const MACHINES: [(u32, u64, u64, usize); 13] = [
    (453, 96_000, 384, 8),
    (319, 104_000, 512, 2),
    (88, 16_000, 120, 2),
    (32, 128_000, 768, 8),
    (23, 32_000, 128, 4),
    (18, 64_000, 256, 2),
    (17, 96_000, 768, 8),
    (16, 8_000, 32, 1),
    (14, 96_000, 384, 4),
    (7, 48_000, 368, 4),
    (6, 64_000, 256, 8),
    (4, 8_000, 60, 2),
    (3, 128_000, 1024, 1),
];

/// Replicas of one kind: how many in ten thousand, cards, thousandths of one card, and what processor (thousandths of a core)
/// and memory (MiB for each core) go with that, from and to.
type Kind = (u32, u32, u64, (u64, u64), (u64, u64));
const REPLICAS: [Kind; 18] = [
    (1335, 0, 0, (8_000, 32_000), (1536, 4588)),
    (91, 1, 160, (4_000, 6_000), (3814, 5722)),
    (38, 1, 110, (4_000, 6_000), (3814, 3815)),
    (172, 1, 230, (4_000, 8_000), (3815, 7629)),
    (82, 1, 220, (4_000, 4_000), (3814, 5722)),
    (402, 1, 320, (4_000, 8_000), (3814, 5722)),
    (74, 1, 370, (1_000, 4_152), (2048, 2553)),
    (920, 1, 470, (8_000, 11_908), (3815, 3956)),
    (182, 1, 460, (6_000, 8_000), (1024, 2048)),
    (92, 1, 590, (3_152, 4_152), (1777, 1777)),
    (88, 1, 550, (3_152, 4_152), (1777, 2553)),
    (310, 1, 650, (8_000, 11_908), (3815, 3956)),
    (1322, 1, 810, (3_152, 3_152), (1777, 1777)),
    (1200, 1, 1000, (3_152, 9_810), (1777, 4222)),
    (3600, 1, 1000, (9_810, 18_708), (2048, 6144)),
    (20, 2, 1000, (14_000, 17_400), (4109, 5323)),
    (18, 4, 1000, (32_000, 60_200), (4096, 5324)),
    (54, 8, 1000, (64_000, 96_000), (3724, 4099)),
];

/// Where replicas arrive, and those that may.
#[derive(Debug)]
pub struct Mix {
    /// What it is, for people.
    pub name: String,
    /// Machines.
    pub nodes: Vec<Machine>,
    /// Drawn from with replacement; none: from the shape.
    pool: Vec<Need>,
}

impl Mix {
    /// The shape, with so many machines.
    pub fn generated(machines: usize) -> Mix {
        let mut rng = fastrand::Rng::with_seed(2023);
        let nodes = (0..machines).map(|index| {
            let kind = drawn(&mut rng, &MACHINES, |kind| kind.0);
            machine(index, kind.1, kind.2 * 1024, kind.3)
        });
        Mix { name: "generated, shape of openb".to_owned(), nodes: nodes.collect(), pool: Vec::new() }
    }

    /// The published files `openb_node_list_gpu_node.csv` and `openb_pod_list_default.csv` in a folder.
    ///
    /// # Errors
    /// They are not there, or not what they were.
    pub fn published(dir: &Path) -> io::Result<Mix> {
        let nodes =
            rows(&dir.join("openb_node_list_gpu_node.csv"), ["cpu_milli", "memory_mib", "gpu", "gpu"])?;
        let pods = rows(
            &dir.join("openb_pod_list_default.csv"),
            ["cpu_milli", "memory_mib", "num_gpu", "gpu_milli"],
        )?;
        let node = |(index, row): (usize, [u64; 4])| machine(index, row[0], row[1], row[2] as usize);
        Ok(Mix {
            name: "published openb".to_owned(),
            nodes: nodes.into_iter().enumerate().map(node).collect(),
            pool: pods.into_iter().map(|[cpu, mib, cards, milli]| need(cpu, mib, cards, milli)).collect(),
        })
    }

    /// The same replicas on other machines.
    pub fn on(&self, nodes: Vec<Machine>) -> Mix {
        Mix { name: self.name.clone(), nodes, pool: self.pool.clone() }
    }

    /// Bytes of all cards.
    pub fn capacity(&self) -> u64 {
        self.nodes.iter().flat_map(|node| &node.gpus).map(|card| card.memory).sum()
    }

    /// One replica by chance.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Need {
        if !self.pool.is_empty() {
            return self.pool[rng.usize(..self.pool.len())].clone();
        }
        let (_, cards, milli, cpu, per_core) = *drawn(rng, &REPLICAS, |kind| kind.0);
        let cpu = rng.u64(cpu.0..=cpu.1);
        need(cpu, cpu * rng.u64(per_core.0..=per_core.1) / 1000, cards.into(), milli)
    }

    /// Replicas until they come to this share of the cards.
    pub fn arrivals(&self, load: f64, rng: &mut fastrand::Rng) -> Vec<Need> {
        let most = self.capacity() as f64 * load;
        let (mut sum, mut all) = (0.0, Vec::new());
        while sum < most {
            let need = self.draw(rng);
            sum += bytes(&need) as f64;
            all.push(need);
        }
        all
    }
}

/// Bytes of cards that a replica takes here, where every card is alike.
pub fn bytes(need: &Need) -> u64 {
    if need.gpus > 0 { u64::from(need.gpus) * CARD } else { need.gpu_memory }
}

fn need(cpu_milli: u64, mib: u64, cards: u64, milli: u64) -> Need {
    let whole = milli >= 1000 || cards > 1;
    Need {
        cpu_milli,
        memory: mib * MIB,
        gpus: if whole { u32::try_from(cards).unwrap_or(u32::MAX) } else { 0 },
        gpu_memory: if whole || cards == 0 { 0 } else { milli * MIB },
        gpu_slice: None,
    }
}

pub fn machine(index: usize, cpu_milli: u64, mib: u64, cards: usize) -> Machine {
    let card = |card: usize| Card {
        id: format!("gpu-{card}"),
        model: "GPU".to_owned(),
        memory: CARD,
        healthy: true,
        slices: Vec::new(),
    };
    Machine {
        name: format!("n{index:04}"),
        region: String::new(),
        zone: String::new(),
        labels: Default::default(),
        taints: Vec::new(),
        cpu_milli,
        memory: mib * MIB,
        gpus: (0..cards).map(card).collect(),
        most_replicas: 1000,
        state: MachineState::Open,
    }
}

fn drawn<'a, T>(rng: &mut fastrand::Rng, kinds: &'a [T], weight: impl Fn(&T) -> u32) -> &'a T {
    let all: u32 = kinds.iter().map(&weight).sum();
    let mut at = rng.u32(..all);
    for kind in kinds {
        match at.checked_sub(weight(kind)) {
            Some(left) => at = left,
            None => return kind,
        }
    }
    &kinds[0]
}

/// Numbers of a CSV file without quotes, by the names of its columns.
fn rows(file: &Path, columns: [&str; 4]) -> io::Result<Vec<[u64; 4]>> {
    let wrong = |what: String| io::Error::other(format!("{}: {what}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let mut at = [0; 4];
    for (at, column) in at.iter_mut().zip(columns) {
        *at = head
            .iter()
            .position(|name| *name == column)
            .ok_or_else(|| wrong(format!("no column {column}")))?;
    }
    let number = |cells: &[&str], at: usize| -> io::Result<u64> {
        let cell = cells.get(at).copied().unwrap_or_default();
        if cell.is_empty() {
            Ok(0)
        } else {
            cell.parse().map_err(|_| wrong(format!("`{cell}` is no number")))
        }
    };
    let mut rows = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let [a, b, c, d] = at;
        rows.push([number(&cells, a)?, number(&cells, b)?, number(&cells, c)?, number(&cells, d)?]);
    }
    Ok(rows)
}

//! Node and GpuPool.

use crate::model::{Gpu, GpuPool, GpuSharing, GpuSlice, Meta, Node, ResourceKey, Taint, TaintEffect};
use crate::raw::{
    EffectWord, GpuPoolSpec, GpuSliceSpec, GpuSpec, Int, NodeSpec, SharingWord, TaintSpec, Text,
};
use crate::yaml::clip_text;

use super::check::{Cx, is_dns_label};
use super::placement;
use super::regions;
use super::runtime;

/// The kubelet's default.
const MOST_REPLICAS: u32 = 110;
/// Machines that one document may stand for, and cards or slices that one entry may.
const MOST_ALIKE: u32 = 10_000;
const MOST_CARDS: u32 = 64;
/// Machines that all documents together may stand for.
const MOST_NODES: usize = 100_000;

/// Reads a Node into as many machines as it stands for.
pub(super) fn node(cx: &mut Cx<'_>, meta: Meta, spec: &NodeSpec<'_>, nodes: &mut Vec<Node>) {
    let cpu_milli = spec.cpu.and_then(|cpu| runtime::cores(cx, cpu)).unwrap_or_default();
    let memory = spec.memory.and_then(|memory| runtime::bytes(cx, memory)).unwrap_or_default();
    let node = Node {
        region: spec.region.map(|region| regions::place(cx, region, "region")),
        zone: spec.zone.map(|zone| regions::place(cx, zone, "zone")),
        cpu_milli,
        memory,
        gpus: gpus(cx, spec),
        taints: spec.taints.iter().flatten().filter_map(|taint| self::taint(cx, taint)).collect(),
        unschedulable: spec.unschedulable.is_some_and(|flag| flag.value),
        most_replicas: spec.max_replicas.map_or(MOST_REPLICAS, |most| {
            placement::number(cx, most, 1, MOST_ALIKE);
            most.value
        }),
        meta,
    };
    let Some(count) = spec.count else { return nodes.push(node) };
    placement::number(cx, count, 1, MOST_ALIKE);
    let count = count.value.min(MOST_ALIKE);
    if nodes.len() + count as usize > MOST_NODES {
        cx.error(spec.node, format!("more than {MOST_NODES} machines in all documents"));
        return;
    }
    nodes.extend((1..=count).map(|number| {
        let mut one = node.clone();
        let key = &node.meta.key;
        one.meta.key = ResourceKey { name: format!("{}-{number}", key.name).into(), ..key.clone() };
        one
    }));
}

fn gpus(cx: &mut Cx<'_>, spec: &NodeSpec<'_>) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = Vec::new();
    for gpu in spec.gpus.iter().flatten() {
        let count = count(cx, gpu.count);
        for number in 0..count {
            let id = name(gpu.id, gpus.len(), number, count);
            if gpus.iter().any(|other| other.id == id) {
                cx.error(
                    gpu.id.map_or(gpu.node, |id| id.node),
                    format!("the card `{}` is there already", clip_text(&id)),
                );
                break;
            }
            // What is wrong with one of several that are alike is said once.
            match number {
                0 => gpus.extend(self::gpu(cx, gpu, id)),
                _ => gpus.extend(gpus.last().cloned().map(|first| alike(first, id))),
            }
        }
        if gpus.len() > MOST_CARDS as usize {
            cx.error(gpu.node, format!("more than {MOST_CARDS} cards"));
            break;
        }
    }
    gpus
}

/// Another card like this one.
fn alike(mut card: Gpu, id: String) -> Gpu {
    for slice in &mut card.slices {
        if let Some(own) = slice.id.strip_prefix(&card.id) {
            slice.id = format!("{id}{own}");
        }
    }
    card.id = id;
    card
}

fn gpu(cx: &mut Cx<'_>, spec: &GpuSpec<'_>, id: String) -> Option<Gpu> {
    let memory = runtime::bytes(cx, spec.memory?)?;
    let mut slices: Vec<GpuSlice> = Vec::new();
    for slice in spec.slices.iter().flatten() {
        let count = count(cx, slice.count);
        for number in 0..count {
            let id = match slice.id {
                Some(_) => name(slice.id, 0, number, count),
                None => format!("{id}/{}", slices.len()),
            };
            if number == 0 && slices.iter().any(|other| other.id == id) {
                cx.error(slice.node, format!("the slice `{}` is there already", clip_text(&id)));
            }
            let Some((profile, memory)) = self::slice(cx, slice, number == 0) else { break };
            slices.push(GpuSlice { id, profile, memory });
        }
    }
    let sum: u64 = slices.iter().map(|slice| slice.memory).sum();
    if sum > memory {
        let (sum, memory) = (sum >> 20, memory >> 20);
        let message = format!("the slices have {sum} MiB together, the card has {memory} MiB");
        cx.error(spec.node.get("slices").unwrap_or(spec.node), message);
    }
    let health = match spec.health.map(|health| health.value) {
        None | Some("ok") => Ok(()),
        Some(why) => Err(why.to_owned()),
    };
    Some(Gpu {
        id,
        model: spec.model.map(|model| cx.not_empty(model)).unwrap_or_default(),
        memory,
        health,
        slices,
        driver: spec.driver.map(|driver| driver.value.to_owned()),
    })
}

/// Profile and bytes.
fn slice(cx: &mut Cx<'_>, spec: &GpuSliceSpec<'_>, first: bool) -> Option<(String, u64)> {
    let profile = spec.profile?;
    let said = if first { spec.memory.and_then(|memory| runtime::bytes(cx, memory)) } else { None };
    let said = said.or_else(|| spec.memory.and_then(|memory| crate::quantity::whole(memory.0.value).ok()));
    let name = if first { runtime::profile(cx, profile) } else { profile.value.to_owned() };
    Some((name, said.or_else(|| runtime::profile_memory(profile.value)).unwrap_or_default()))
}

fn count(cx: &mut Cx<'_>, count: Option<Int<'_>>) -> u32 {
    count.map_or(1, |count| {
        placement::number(cx, count, 1, MOST_CARDS);
        count.value.min(MOST_CARDS)
    })
}

/// What is written, numbered when it stands for several; else the place.
fn name(id: Option<Text<'_>>, place: usize, number: u32, count: u32) -> String {
    match id {
        None => place.to_string(),
        Some(id) if count == 1 => id.value.to_owned(),
        Some(id) => format!("{}-{number}", id.value),
    }
}

fn taint(cx: &mut Cx<'_>, spec: &TaintSpec<'_>) -> Option<Taint> {
    let (node, taint) = match spec {
        TaintSpec::Short(text) => (text.node, Taint::parse(text.value)),
        TaintSpec::Long(table) => {
            let taint = Taint {
                key: table.key?.value.to_owned(),
                value: table.value.map_or(String::new(), |value| value.value.to_owned()),
                effect: effect(table.effect?.value),
            };
            (table.node, taint.check().map(|()| taint))
        }
    };
    taint.map_err(|why| cx.error(node, format!("not a taint: {why}"))).ok()
}

pub(super) fn effect(word: EffectWord) -> TaintEffect {
    match word {
        EffectWord::NoSchedule => TaintEffect::NoSchedule,
        EffectWord::PreferNoSchedule => TaintEffect::PreferNoSchedule,
        EffectWord::NoExecute => TaintEffect::NoExecute,
    }
}

/// Reads a GpuPool.
pub(super) fn gpu_pool(cx: &mut Cx<'_>, meta: Meta, spec: &GpuPoolSpec<'_>) -> GpuPool {
    let selector = spec.selector.as_ref();
    let reserved = spec.reserved.as_ref();
    GpuPool {
        meta,
        models: cx.texts(selector.and_then(|selector| selector.models.as_ref())),
        min_memory: selector
            .and_then(|selector| selector.min_memory)
            .and_then(|least| runtime::bytes(cx, least)),
        node_labels: cx.labels(selector.and_then(|selector| selector.node_labels.as_ref())),
        regions: cx.texts(selector.and_then(|selector| selector.regions.as_ref())),
        sharing: match spec.sharing.map(|word| word.value) {
            None | Some(SharingWord::Exclusive) => GpuSharing::Exclusive,
            Some(SharingWord::Fractional) => GpuSharing::Fractional,
            Some(SharingWord::Slices) => GpuSharing::Slices,
        },
        reserved_percent: reserved
            .and_then(|reserved| reserved.share)
            .and_then(|share| placement::percent(cx, share))
            .unwrap_or_default(),
        reserve_priority: reserved
            .and_then(|reserved| reserved.priority)
            .map_or(1, |priority| priority.value),
        allowed: spec.allowed.iter().flatten().map(|who| allowed(cx, *who)).collect(),
    }
}

fn allowed(cx: &mut Cx<'_>, who: Text<'_>) -> String {
    let (namespace, agent) = who.value.split_once('/').unwrap_or((who.value, "*"));
    let whole = who.value == "*";
    if !whole && !(is_dns_label(namespace) && (agent == "*" || placement::is_agent_name(agent))) {
        let message = format!("`{}` names nobody", clip_text(who.value));
        cx.error_hint(who.node, message, "write `namespace`, `namespace/*`, `namespace/agent` or `*`");
    }
    who.value.to_owned()
}

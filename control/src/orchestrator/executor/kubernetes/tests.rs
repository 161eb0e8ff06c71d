//! What the parts share in their tests.

use pilotfish_config::model::{Disruption, Runtime};

use crate::placement::world::{Group, Need};

/// A group as documents make it.
pub(super) fn group(namespace: &str, agent: &str, region: Option<&str>) -> Group {
    let id = match region {
        Some(region) => format!("{namespace}/{agent}@{region}"),
        None => format!("{namespace}/{agent}"),
    };
    Group {
        id: id.into(),
        namespace: namespace.into(),
        agent: agent.into(),
        cluster: format!("{namespace}/cluster"),
        region: region.map(str::to_owned),
        wanted: 1,
        need: Need::default(),
        priority: 0,
        pool: None,
        node_selector: Default::default(),
        tolerations: Vec::new(),
        affinity: Vec::new(),
        anti_affinity: Vec::new(),
        gang: false,
        disruption: Disruption::default(),
        runtime: Runtime::default(),
        labels: Default::default(),
        generation: String::new(),
    }
}

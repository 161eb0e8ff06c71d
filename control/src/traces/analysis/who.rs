//! Whose time a span is: an agent's, the mesh's, or that of a host that sends no spans.

use super::tree::{At, Tree};
use crate::api::analysis::Part;
use crate::traces::span::{Kind, Span};

/// Whose a span is, and what it stands for.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// Whose own time it is: `namespace/name`, or a host.
    pub(super) agent: String,
    pub(super) part: Part,
    /// The nearest capability that was asked for, at it or above.
    pub(super) capability: Option<String>,
    /// It is a call of an agent, told once however often it was tried.
    pub(super) call: bool,
    /// Calls above it.
    pub(super) depth: usize,
}

/// `namespace/name` of who made a span.
pub(super) fn maker(span: &Span) -> String {
    let resource = &span.resource;
    if resource.namespace.is_empty() {
        resource.service.clone()
    } else {
        format!("{}/{}", resource.namespace, resource.service)
    }
}

/// Of every span.
pub(super) fn of(tree: &Tree<'_>) -> Vec<Who> {
    let mut all: Vec<Option<Who>> = vec![None; tree.nodes.len()];
    for at in &tree.order {
        let above = tree.nodes[*at].parent.and_then(|parent| all[parent].as_ref());
        let own = one(tree, *at, above);
        all[*at] = Some(own);
    }
    let nobody = || Who { agent: String::new(), part: Part::Nobody, capability: None, call: false, depth: 0 };
    all.into_iter().map(|own| own.unwrap_or_else(nobody)).collect()
}

fn one(tree: &Tree<'_>, at: At, above: Option<&Who>) -> Who {
    let span = tree.nodes[at].span;
    let direction = span.text("pilotfish.direction");
    let answered = !tree.children(at).is_empty();
    let (part, agent) = match (direction, span.kind) {
        // A sidecar's, towards or from its agent.
        (Some(_), Kind::Server) => (Part::Mesh, maker(span)),
        // Its agent is behind it.
        (Some("inbound"), Kind::Client) => (Part::Agent, maker(span)),
        // Between it and what answered; or nobody there sends spans.
        (_, Kind::Client) if answered => (Part::Mesh, maker(span)),
        (_, Kind::Client) => outside(span),
        _ => (Part::Agent, maker(span)),
    };
    let capability = span.text("pilotfish.capability").map(str::to_owned);
    let call = match direction {
        Some("outbound") => span.kind == Kind::Server,
        Some(_) => false,
        // An agent's own span of a call that its sidecar tells too is told there.
        None => {
            span.kind == Kind::Client
                && !tree.children(at).iter().any(|child| is_outbound(tree.nodes[*child].span))
        }
    };
    Who {
        agent,
        part,
        capability: capability.or_else(|| above.and_then(|above| above.capability.clone())),
        call,
        depth: above.map_or(0, |above| above.depth) + usize::from(call),
    }
}

fn is_outbound(span: &Span) -> bool {
    span.kind == Kind::Server && span.text("pilotfish.direction") == Some("outbound")
}

/// A call that reached nobody who sends spans: the time is the host's. Without a host nobody was asked.
fn outside(span: &Span) -> (Part, String) {
    let names =
        ["pilotfish.agent", "server.address", "peer.service", "pilotfish.cluster", "gen_ai.provider.name"];
    match names.iter().find_map(|name| span.text(name)) {
        Some(name) => (Part::Outside, name.to_owned()),
        None => (Part::Agent, maker(span)),
    }
}

//! AlertRule: our own kind, when somebody has to look at an agent.

use super::{Bool, Int, Number, One, Raw, Reader, Shape, Text, TextMap, Time, Val, object, words};
use crate::yaml::{Node, Type};

object! {
    /// When somebody has to look. Control planes evaluate it every 5 s, each from what the sidecars report that are
    /// connected to it; sidecars do not see it. One alert for each agent for which it holds. Four rules are there by
    /// default: `error-rate`, `latency`, `saturation` and `agent-unavailable`; a rule of the same name in a root namespace
    /// (`pilotfish-system`, `istio-system`) takes the place of one.
    struct AlertRuleSpec<'n> "AlertRule" {
        /// What is looked at.
        what = "type": One<'n, AlertTypeWord>, required;
        /// The agent that it is about, `name` (of the rule's namespace) or `namespace/name`. Without it: each agent of the
        /// namespace, in a root namespace each agent of the mesh.
        agent = "agent": Text<'n>;
        /// Only calls that this agent makes, `name` or `namespace/name`. For `error-rate` and `latency`.
        from = "from": Text<'n>;
        /// Only calls that ask for this capability. For `error-rate` and `latency`.
        capability = "capability": Text<'n>;
        /// What is too much. `error-rate`: a share of calls, `5%` (the default). `latency`: a time below 10s, `5s` (the default).
        /// `saturation`: calls in flight at each instance, 100 by default. `agent-unavailable`: fewer instances than this may
        /// be chosen, 1 by default.
        threshold = "threshold": Threshold<'n>;
        /// For `latency`: the share of calls that has to be faster, above 0 and below 1 (0.95 by default).
        quantile = "quantile": Number<'n>;
        /// Over which time calls are added up: 10s to 1h (2m by default). For `error-rate` and `latency`.
        window = "window": Time<'n>;
        /// How long it has to hold before the alert fires: 0s to 24h (by default 2m, for `agent-unavailable` 30s).
        hold = "for": Time<'n>;
        /// How long it has to be over before a firing alert is resolved, so that what comes and goes does not flap: 0s to 24h
        /// (1m by default).
        keep = "keepFiringFor": Time<'n>;
        /// `info`, `warning` (the default) or `critical`.
        severity = "severity": One<'n, SeverityWord>;
        /// With fewer calls than this in the window it does not hold: 1 or more (10 by default). For `error-rate` and `latency`.
        min_calls = "minCalls": Int<'n>;
        /// Labels that are added to the alert.
        labels = "labels": TextMap<'n>;
        /// Annotations that are added to the alert. `summary` takes the place of the one that is made from the numbers.
        annotations = "annotations": TextMap<'n>;
        /// It is not evaluated: turns off a rule that is there by default. False by default.
        disabled = "disabled": Bool<'n>;
    }
}

words! {
    /// What is looked at.
    enum AlertTypeWord {
        /// The share of calls that fail.
        ErrorRate = "error-rate",
        /// How long calls take.
        Latency = "latency",
        /// How many calls are in flight at an agent.
        Saturation = "saturation",
        /// Whether an agent may be chosen.
        AgentUnavailable = "agent-unavailable",
    }

    /// How bad it is.
    enum SeverityWord {
        /// Good to know.
        Info = "info",
        /// Should be looked at.
        Warning = "warning",
        /// Has to be looked at now.
        Critical = "critical",
    }
}

/// A number, a share (`5%`) or a time (`5s`); which of them, says the rule's type.
#[derive(Debug, Clone, Copy)]
pub struct Threshold<'n>(pub Val<'n, &'n str>);

impl<'n> Raw<'n> for Threshold<'n> {
    const SHAPE: Shape = Shape::Either(&[Shape::Number, Shape::Text]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        match (node.kind(), node.scalar()) {
            (Type::Text | Type::Number, Some(scalar)) => Some(Threshold(Val { value: scalar.text, node })),
            _ => {
                let message =
                    format!("expected a number, a share or a time, found {}", node.kind().article());
                reader.diagnose.error(node, message, Some("as `5%`, `2s`, `100`".into()));
                None
            }
        }
    }
}

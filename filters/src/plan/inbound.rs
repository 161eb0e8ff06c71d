//! Whether callers must speak mTLS.

use std::collections::BTreeMap;

use pilotfish_config::model::MtlsMode;

use super::Plan;

/// What PeerAuthentication means for one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InboundMtls {
    pub(crate) mode: MtlsMode,
    /// Of single ports.
    pub(crate) ports: BTreeMap<u16, MtlsMode>,
    /// The document that asks for STRICT, with its place.
    pub(crate) strict_by: Option<Box<str>>,
}

impl Default for InboundMtls {
    /// Nobody can: there is no identity.
    fn default() -> Self {
        InboundMtls { mode: MtlsMode::Disable, ports: BTreeMap::new(), strict_by: None }
    }
}

impl Plan {
    /// Whether callers of the agent's `port` must speak mTLS.
    pub fn inbound_mtls(&self, port: u16) -> MtlsMode {
        self.inbound.ports.get(&port).copied().unwrap_or(self.inbound.mode)
    }

    /// The document (`file:line:column: PeerAuthentication namespace/name`) that lets nobody in without mTLS, at one port
    /// at least: a sidecar without an identity must refuse such a plan.
    pub fn strict_by(&self) -> Option<&str> {
        self.inbound.strict_by.as_deref()
    }
}

//! CORS: preflights are answered here, and answers get their headers. The behaviour is that of Envoy's filter `cors`; what is
//! stricter says so.

use std::sync::Arc;

use pilotfish_config::model::{self, Host, StringMatch};

use crate::call::{Caller, Head};
use crate::headers::HeaderMapMut;
use crate::plan::Plan;
use crate::route::block::Block;
use crate::route::split_authority;
use crate::route::text::TextMatch;

/// The cross-origin rules of a rule.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Box<[TextMatch]>,
    /// Values of header fields, ready to be written.
    allow_methods: Option<Box<str>>,
    allow_headers: Option<Box<str>>,
    expose_headers: Option<Box<str>>,
    max_age: Option<Box<str>>,
    allow_credentials: bool,
    forward_unmatched_preflights: bool,
}

/// Cross-origin rules of a VirtualService for calls that come to its workload by no sidecar.
#[derive(Debug)]
pub(crate) struct Arriving {
    pub(crate) hosts: Vec<Host>,
    /// Up to the last that has any; the first that matches holds.
    pub(crate) rules: Vec<(Vec<Block>, Option<Arc<Cors>>)>,
}

impl Plan {
    /// What rules of the workload's own hosts say of scripts that call it past every other sidecar.
    pub fn inbound_cors<H: Head>(&self, head: &H, caller: &Caller) -> Option<&Cors> {
        if self.inbound_cors.is_empty() {
            return None;
        }
        let host = split_authority(head.authority()).0.trim_end_matches('.').to_ascii_lowercase();
        let mut services = self.inbound_cors.iter();
        let service = services.find(|service| service.hosts.iter().any(|own| own.covers(&host)))?;
        let matches = |blocks: &[Block]| blocks.iter().any(|block| block.matches(head, caller));
        service.rules.iter().find(|(blocks, _)| matches(blocks))?.1.as_deref()
    }
}

/// What a call is to the cross-origin rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No script of another origin sent it, or one whose origin is not allowed: it goes on and its answer stays as it is.
    Other,
    /// A script that may read the answer sent it.
    Allowed,
    /// A preflight to be answered here, with the permission when `allowed`.
    Preflight {
        /// Whether its origin is allowed.
        allowed: bool,
    },
}

impl Cors {
    /// What a rule says.
    pub fn new(model: &model::Cors) -> Cors {
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(",").into());
        let origin = |origin: &StringMatch| match origin {
            StringMatch::Exact(text) => TextMatch::Exact(text.as_str().into()),
            StringMatch::Prefix(text) => TextMatch::Prefix(text.as_str().into()),
            StringMatch::Regex(pattern) => TextMatch::Regex(pattern.clone()),
            StringMatch::Presence => TextMatch::Present,
        };
        Cors {
            origins: model.allow_origins.iter().map(origin).collect(),
            allow_methods: list(&model.allow_methods),
            allow_headers: list(&model.allow_headers),
            expose_headers: list(&model.expose_headers),
            max_age: model.max_age.map(|age| age.as_secs().to_string().into()),
            allow_credentials: model.allow_credentials == Some(true),
            forward_unmatched_preflights: model.forward_unmatched_preflights,
        }
    }

    /// What a call is. `origin` is its `origin` header, if it has one.
    pub fn kind<H: Head>(&self, head: &H, origin: Option<&[u8]>) -> Kind {
        let Some(origin) = origin.filter(|origin| !origin.is_empty()) else { return Kind::Other };
        let allowed = self.origins.iter().any(|own| own.matches(origin));
        let asked = || head.header("access-control-request-method").is_some_and(|method| !method.is_empty());
        if head.method() == "OPTIONS" && (allowed || !self.forward_unmatched_preflights) && asked() {
            return Kind::Preflight { allowed };
        }
        if allowed { Kind::Allowed } else { Kind::Other }
    }

    /// What a preflight of an allowed origin is told.
    pub fn permit(&self, origin: &[u8], headers: &mut impl HeaderMapMut) {
        headers.set("access-control-allow-origin", origin);
        let credentials = self.allow_credentials.then_some("true");
        for (name, value) in [
            ("access-control-allow-credentials", credentials),
            ("access-control-allow-methods", self.allow_methods.as_deref()),
            ("access-control-allow-headers", self.allow_headers.as_deref()),
            ("access-control-max-age", self.max_age.as_deref()),
        ] {
            if let Some(value) = value {
                headers.set(name, value.as_bytes());
            }
        }
    }

    /// Lets a script of an allowed origin read an answer. What an agent itself says of origin and credentials is replaced; that its
    /// `access-control-allow-credentials` goes when the rule gives none is stricter than Envoy, where the agent's word for one
    /// origin becomes one for all that the rule allows.
    pub fn expose(&self, origin: &[u8], headers: &mut impl HeaderMapMut) {
        headers.set("access-control-allow-origin", origin);
        if self.allow_credentials {
            headers.set("access-control-allow-credentials", b"true");
        } else {
            headers.remove("access-control-allow-credentials");
        }
        if let Some(names) = &self.expose_headers {
            headers.set("access-control-expose-headers", names.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;

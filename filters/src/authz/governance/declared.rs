//! What documents declare of calls to this workload: permission, resource, class; by rule, by capability, for all.

use std::borrow::Cow;

use pilotfish_config::model::{Host, ResourcePiece, ResourceTemplate};

use super::fit::{self, Fit};
use super::resource::{self, NoResource};
use crate::authz::Asking;
use crate::call::{Call, Protocol, Understood, Unsure};
use crate::normalize::loosest;
use crate::route::block::{Block, Condition};
use crate::route::split_authority;

/// What one place declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Declared {
    pub(crate) permission: Option<Box<str>>,
    pub(crate) resource: Option<ResourceTemplate>,
    /// A place among the levels.
    pub(crate) class: Option<usize>,
}

impl Declared {
    /// Whether it says what a call needs.
    pub(crate) fn says_need(&self) -> bool {
        self.permission.is_some() || self.resource.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.says_need() && self.class.is_none()
    }

    /// Whether what it says hangs on a body.
    pub(crate) fn reads_body(&self) -> bool {
        self.says_need()
            && (self.permission.is_none() || self.resource.as_ref().is_some_and(ResourceTemplate::reads_body))
    }
}

/// A rule of a VirtualService, as calls that it may have sent arrive here.
#[derive(Debug)]
pub(crate) struct DeclaredRule {
    pub(crate) blocks: Vec<Block>,
    /// Whether a call that matches surely came by this rule. Otherwise (the rule asks who calls, or changes the path) the rules after
    /// it count too.
    pub(crate) sure: bool,
    pub(crate) declared: Declared,
}

/// The rules of a VirtualService that is for this workload.
#[derive(Debug)]
pub(crate) struct DeclaredService {
    pub(crate) hosts: Vec<Host>,
    /// Up to the last that differs from `otherwise`.
    pub(crate) rules: Vec<DeclaredRule>,
    /// For every other call.
    pub(crate) otherwise: Declared,
}

/// All that is declared.
#[derive(Debug, Default)]
pub(crate) struct Declarations {
    pub(crate) services: Vec<DeclaredService>,
    /// By capability, in lower case.
    pub(crate) capabilities: Vec<(Box<str>, Declared)>,
    /// For all calls to the agent.
    pub(crate) general: Declared,
}

/// So many places can hold for one call.
const MOST: usize = 16;

/// What holds for one call.
#[derive(Debug)]
pub(crate) struct Holding<'p> {
    places: [Option<&'p Declared>; MOST],
    count: usize,
    /// The highest class.
    pub(crate) class: Option<usize>,
    /// Whether the call needs what its protocol says, too.
    pub(crate) default: bool,
    /// There are more places than can be looked at.
    pub(crate) too_many: bool,
}

impl<'p> Holding<'p> {
    fn new() -> Self {
        Holding { places: [None; MOST], count: 0, class: None, default: false, too_many: false }
    }

    /// Counts the class of a place, and with `need` what it says of needs.
    fn add(&mut self, declared: &'p Declared, need: bool) {
        self.class = self.class.max(declared.class);
        if !need || !declared.says_need() || self.needs().any(|other| other == declared) {
            return;
        }
        match self.places.get_mut(self.count) {
            Some(place) => {
                *place = Some(declared);
                self.count += 1;
            }
            None => self.too_many = true,
        }
    }

    /// What the call needs.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &'p Declared> {
        self.places.iter().take(self.count).copied().flatten()
    }
}

impl Declarations {
    pub(crate) fn reads_body(&self) -> bool {
        // Which capability's skill it is says the body.
        let rules = self
            .services
            .iter()
            .flat_map(|service| service.rules.iter().map(|rule| &rule.declared).chain([&service.otherwise]));
        !self.capabilities.is_empty() || rules.chain([&self.general]).any(Declared::reads_body)
    }

    /// The headers that rules ask for, and that resources are taken from.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        let blocks = self.services.iter().flat_map(|service| &service.rules).flat_map(|rule| &rule.blocks);
        let asked = blocks.flat_map(|block| &block.rest).filter_map(|condition| match condition {
            Condition::Header(name, _) | Condition::NotHeader(name, _) => Some(&**name),
            _ => None,
        });
        let rules = self
            .services
            .iter()
            .flat_map(|service| service.rules.iter().map(|rule| &rule.declared).chain([&service.otherwise]));
        let all = rules.chain(self.capabilities.iter().map(|(_, declared)| declared)).chain([&self.general]);
        let pieces = all.flat_map(|declared| &declared.resource).flat_map(|template| &template.pieces);
        asked.chain(pieces.filter_map(|piece| match piece {
            ResourcePiece::Header(name) => Some(&**name),
            _ => None,
        }))
    }

    /// Whether what holds hangs on more of the head than method and path: hosts, headers, queries.
    pub(crate) fn reads_headers(&self) -> bool {
        let header = |declared: &Declared| {
            let pieces = declared.resource.iter().flat_map(|template| &template.pieces);
            pieces.into_iter().any(|piece| matches!(piece, ResourcePiece::Header(_)))
        };
        let rules = || self.services.iter().flat_map(|service| &service.rules);
        let mut blocks = rules().flat_map(|rule| &rule.blocks);
        let capabilities = self.capabilities.iter().map(|(_, declared)| declared);
        let otherwise = self.services.iter().map(|service| &service.otherwise);
        self.services.len() > 1
            || blocks.any(|block| block.rest.iter().any(|own| !matches!(own, Condition::Method(_))))
            || rules().map(|rule| &rule.declared).chain(otherwise).chain(capabilities).any(header)
            || header(&self.general)
    }

    /// What holds for a call: what its route says, else its capabilities, else what is said for all. Of classes the highest of route
    /// and capabilities, else that for all.
    pub(crate) fn of<'p>(&'p self, asking: &Asking<'_>) -> Holding<'p> {
        let mut holding = Holding::new();
        self.by_route(asking, &mut holding);
        let by_route = holding.count > 0;
        let by_skill = self.by_capability(asking.call, !by_route, &mut holding);
        if holding.class.is_none() {
            holding.add(&self.general, false);
        }
        if by_route {
            return holding;
        }
        if holding.count > 0 {
            // A header alone never replaces what the body says.
            holding.default = !by_skill && named_by_body(asking.call);
            return holding;
        }
        if self.general.says_need() {
            let class = holding.class;
            holding.add(&self.general, true);
            holding.class = class;
        } else {
            holding.default = true;
        }
        holding
    }

    fn by_route<'p>(&'p self, asking: &Asking<'_>, holding: &mut Holding<'p>) {
        if self.services.is_empty() {
            return;
        }
        let host = split_authority(asking.head.authority()).0.trim_end_matches('.');
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let is_for = |service: &&DeclaredService| service.hosts.iter().any(|own| own.covers(&host));
        // A host that no rules are for is no way around them.
        let known = self.services.iter().any(|service| is_for(&service));
        // Neither is a path that the agent may read as another one.
        let loose = loosest(asking.head.path());
        let others = loose.iter().flat_map(|loose| &loose.readings).map(String::as_str);
        for path in std::iter::once(asking.head.path()).chain(others) {
            for service in self.services.iter().filter(|service| !known || is_for(service)) {
                service.hold(path, asking, holding);
            }
        }
    }

    /// Whether what is needed was found by a capability that the body names.
    fn by_capability<'p>(&'p self, call: &Call, need: bool, holding: &mut Holding<'p>) -> bool {
        let find = |name: &str| {
            let name = name.split('@').next().unwrap_or_default().trim();
            self.capabilities.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))
        };
        if let Some(skill) = &call.skill {
            let found = find(skill);
            if let Some((_, declared)) = found {
                holding.add(declared, need);
            }
            return found.is_some_and(|(_, declared)| declared.says_need());
        }
        if !self.capabilities.is_empty() {
            for (_, declared) in call.capabilities.iter().filter_map(|name| find(name)) {
                holding.add(declared, need);
            }
        }
        false
    }
}

impl DeclaredService {
    fn hold<'p>(&'p self, path: &str, asking: &Asking<'_>, holding: &mut Holding<'p>) {
        for rule in &self.rules {
            let fits = fit::of(&rule.blocks, path, asking);
            if fits >= Fit::Perhaps {
                holding.add(&rule.declared, true);
            }
            if fits == Fit::Surely && rule.sure {
                return;
            }
        }
        holding.add(&self.otherwise, true);
    }
}

/// Whether the body itself says what is asked for.
fn named_by_body(call: &Call) -> bool {
    call.body == Understood::Doubtful
        || call.unsure != Unsure::default()
        || matches!(call.protocol, Protocol::Mcp | Protocol::A2a) && call.rpc_method.is_some()
        || call.model.is_some()
}

/// What a call needs without a declaration.
pub(crate) fn default_need<'a>(asking: &Asking<'a>) -> (&'static str, Result<Cow<'a, str>, NoResource>) {
    let (head, call) = (asking.head, asking.call);
    let reads = matches!(head.method(), "GET" | "HEAD" | "OPTIONS");
    let http = if reads { "http:read" } else { "http:write" };
    let named = |kind: &str, text: &Option<Box<str>>, missing| {
        let name = resource::name(text.as_deref().unwrap_or_default(), missing)?;
        Ok(Cow::Owned(format!("{kind}/{name}")))
    };
    if call.body == Understood::Doubtful {
        return (http, Err(NoResource::Doubtful));
    }
    match (call.protocol, call.rpc_method.as_deref()) {
        (Protocol::Mcp, Some("tools/call")) => ("mcp:call", named("tools", &call.tool, "name of a tool")),
        // What goes on with a call of a tool, or ends it.
        (Protocol::Mcp, Some("tasks/cancel" | "tasks/update")) => {
            ("mcp:call", named("mcp", &call.rpc_method, "method"))
        }
        (Protocol::Mcp, Some(_)) => ("mcp:read", named("mcp", &call.rpc_method, "method")),
        (Protocol::A2a, Some(method)) => {
            let permission = if a2a_sends(method) { "a2a:send" } else { "a2a:read" };
            match &call.skill {
                None if call.unsure.skill => (permission, Err(NoResource::Doubtful)),
                Some(_) => (permission, named("skills", &call.skill, "skill")),
                None => (permission, named("a2a", &call.rpc_method, "method")),
            }
        }
        _ if call.unsure.model => ("model:invoke", Err(NoResource::Doubtful)),
        _ if call.model.is_some() => ("model:invoke", named("models", &call.model, "model")),
        _ => (http, resource::of_path(head.path())),
    }
}

/// Whether an A2A method does something: messages, and what changes a task.
fn a2a_sends(method: &str) -> bool {
    matches!(
        method,
        "message/send"
            | "message/stream"
            | "SendMessage"
            | "SendStreamingMessage"
            | "tasks/cancel"
            | "CancelTask"
            | "tasks/pushNotificationConfig/set"
            | "tasks/pushNotificationConfig/delete"
            | "CreateTaskPushNotificationConfig"
            | "SetTaskPushNotificationConfig"
            | "DeleteTaskPushNotificationConfig"
    )
}

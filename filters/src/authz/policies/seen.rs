//! One call as the rules see it: what is compared, in all the ways in which somebody behind the sidecar may read it.
//!
//! What can be read in several ways (a header that is repeated or has commas, a path with `;params` or escaped slashes, a host
//! with a port) is decided for refusal: a condition that leads to a refusal holds when any reading matches ([`Lean::Any`]),
//! one that leads to permission only when all do ([`Lean::All`]). What cannot be known at all counts in the same way.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, Ipv6Addr};

use crate::authz::{Asking, Claims, Principal};
use crate::call::{Call, Protocol, Understood, Unsure};
use crate::normalize::{Loose, loosest};

use super::caller::CallerRules;
use super::index::{CallerHashes, Hashes};
use super::text::Texts;

/// How many readings have to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lean {
    /// One is enough: what is decided here refuses, asks or records.
    Any,
    /// All have to: what is decided here allows.
    All,
}

impl Lean {
    /// What holds for a list that must not match.
    pub(super) fn other(self) -> Lean {
        match self {
            Lean::Any => Lean::All,
            Lean::All => Lean::Any,
        }
    }

    /// The answer where there is none.
    fn unknown(self) -> bool {
        self == Lean::Any
    }
}

/// A call, and what was found out about it so far.
pub(super) struct Seen<'a> {
    pub(super) asking: &'a Asking<'a>,
    /// The path as obliging origins may read it; `None`: as it is.
    loose: OnceCell<Option<Loose>>,
    /// The authority in lower case.
    host: OnceCell<Cow<'a, str>>,
    /// By which the index finds rules.
    hashes: OnceCell<Hashes>,
    caller: OnceCell<CallerHashes>,
    /// Whether something could not be known that was asked for.
    doubt: Cell<bool>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(asking: &'a Asking<'a>) -> Self {
        let (loose, host, hashes, caller) = Default::default();
        Seen { asking, loose, host, hashes, caller, doubt: Cell::new(false) }
    }

    pub(super) fn hashes(&self) -> &Hashes {
        self.hashes.get_or_init(|| Hashes::of(self))
    }

    pub(super) fn caller_hashes(&self) -> &CallerHashes {
        match self.caller_rules() {
            Some(rules) => &rules.hashes,
            None => self.caller.get_or_init(|| CallerHashes::of(self.principal())),
        }
    }

    /// The rules that can be about the caller, when its connection knows them.
    pub(super) fn caller_rules(&self) -> Option<&'a CallerRules> {
        self.asking.who.rules
    }

    /// Whether something was asked for since the last time that could not be known.
    pub(super) fn take_doubt(&self) -> bool {
        self.doubt.replace(false)
    }

    pub(super) fn unknown(&self, lean: Lean) -> bool {
        self.doubt.set(true);
        lean.unknown()
    }

    /// Whether some origin may read another path than this one.
    pub(super) fn has_odd_path(&self) -> bool {
        self.loose().is_some()
    }

    fn loose(&self) -> Option<&Loose> {
        self.loose.get_or_init(|| loosest(self.asking.head.path())).as_ref()
    }

    /// Whether the method is written as nobody should, in lower case.
    pub(super) fn has_odd_method(&self) -> bool {
        self.asking.head.method().bytes().any(|byte| byte.is_ascii_lowercase())
    }

    pub(super) fn path(&self, texts: &Texts, lean: Lean) -> bool {
        let exact = texts.matches(self.asking.head.path().as_bytes());
        let Some(loose) = self.loose() else { return exact };
        let mut readings = loose.readings.iter().map(|reading| texts.matches(reading.as_bytes()));
        match lean {
            Lean::Any => exact || readings.any(|matches| matches),
            // Only by such ways does a path lead out of what was allowed: it may end otherwise, or be another one.
            Lean::All => exact && (!loose.strays || readings.all(|matches| matches)),
        }
    }

    pub(super) fn method(&self, texts: &Texts, lean: Lean) -> bool {
        let method = self.asking.head.method();
        texts.matches(method.as_bytes())
            || (lean == Lean::Any
                && self.has_odd_method()
                && texts.matches(method.to_ascii_uppercase().as_bytes()))
    }

    /// Hosts are compared without regard to case, and with the port when one was sent, as Istio does. Where it leads to a
    /// refusal also without the port and without the root's dot, and whatever way ports and addresses are spelled.
    pub(super) fn host(&self, texts: &Texts, lean: Lean) -> bool {
        let host = self.host.get_or_init(|| {
            let host = self.asking.head.authority();
            if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Cow::Owned(host.to_ascii_lowercase())
            } else {
                Cow::Borrowed(host)
            }
        });
        texts.matches(host.as_bytes()) || (lean == Lean::Any && self.host_otherwise(host, texts))
    }

    fn host_otherwise(&self, host: &str, texts: &Texts) -> bool {
        let after_address = host.rfind(']').map_or(0, |end| end + 1);
        let end = host[after_address..].find(':').map_or(host.len(), |colon| after_address + colon);
        let bare = host[..end].trim_end_matches('.');
        if texts.matches(bare.as_bytes()) {
            return true;
        }
        let address = bare.strip_prefix('[').and_then(|rest| rest.split([']', '%']).next()?.parse().ok());
        let name = address.map_or(Cow::Borrowed(bare), |ip: Ipv6Addr| Cow::Owned(format!("[{ip}]")));
        let port = host[end..].strip_prefix(':').unwrap_or_default();
        if name == host[..end] && !port.starts_with('0') {
            return false;
        }
        texts.matches(name.as_bytes())
            || port.parse::<u16>().is_ok_and(|port| texts.matches(format!("{name}:{port}").as_bytes()))
    }

    pub(super) fn header(&self, name: &str, texts: &Texts, lean: Lean) -> bool {
        let (mut count, mut any, mut all) = (0_u32, false, true);
        let fits = |value: &[u8]| texts.has_presence() || texts.matches_but_presence(value);
        let head = self.asking.head;
        head.each_header(name, &mut |value| {
            count += 1;
            let whole = fits(value);
            all &= whole;
            any |= whole
                || (lean == Lean::Any
                    && value.contains(&b',')
                    && value.split(|byte| *byte == b',').any(|element| fits(element.trim_ascii())));
        });
        match lean {
            Lean::All => count > 0 && all,
            Lean::Any => any || (count > 1 && head.header(name).is_some_and(|joined| fits(&joined))),
        }
    }

    pub(super) fn principal(&self) -> Option<&'a Principal> {
        self.asking.who.principal
    }

    pub(super) fn remote_ip(&self) -> IpAddr {
        self.asking.who.remote_ip.unwrap_or(self.asking.caller.ip)
    }

    pub(super) fn claims(&self) -> Option<&'a Claims> {
        self.asking.who.claims.map(|claims| &**claims)
    }

    /// Asks something of the agent's address.
    pub(super) fn destination(&self, lean: Lean, fits: impl Fn(std::net::SocketAddr) -> bool) -> bool {
        self.asking.who.destination.map_or_else(|| self.unknown(lean), fits)
    }

    /// Asks something that the body may say.
    pub(super) fn body(&self, lean: Lean, fits: impl Fn(&'a Call) -> bool) -> bool {
        match self.asking.call.body {
            Understood::Doubtful => self.unknown(lean),
            Understood::Empty | Understood::Unread | Understood::Whole => fits(self.asking.call),
        }
    }

    /// The same of what may stay unknown although the body is understood.
    pub(super) fn body_if(
        &self,
        lean: Lean,
        unsure: impl Fn(Unsure) -> bool,
        fits: impl Fn(&'a Call) -> bool,
    ) -> bool {
        if unsure(self.asking.call.unsure) {
            return self.unknown(lean);
        }
        self.body(lean, fits)
    }

    /// Whether the call is of a protocol, or may be where that leads to a refusal.
    pub(super) fn is_of(&self, protocol: Protocol, lean: Lean) -> bool {
        let call = self.asking.call;
        call.protocol == protocol || (lean == Lean::Any && call.also == Some(protocol))
    }

    /// Asks something of the method of a protocol. A2A's methods have two names each, by its versions.
    pub(super) fn rpc_method(&self, protocol: Protocol, texts: &Texts, lean: Lean) -> bool {
        self.body(lean, |call| {
            let method = call.rpc_method.as_deref().filter(|_| self.is_of(protocol, lean));
            method.is_some_and(|method| {
                let other = A2A_NAMES.iter().find_map(|(new, old)| match method {
                    _ if protocol != Protocol::A2a => None,
                    _ if method == *new => Some(*old),
                    _ if method == *old => Some(*new),
                    _ => None,
                });
                texts.matches(method.as_bytes()) || other.is_some_and(|name| texts.matches(name.as_bytes()))
            })
        })
    }
}

/// A2A's methods by the names of version 1.0 and of 0.3.
const A2A_NAMES: [(&str, &str); 11] = [
    ("SendMessage", "message/send"),
    ("SendStreamingMessage", "message/stream"),
    ("GetTask", "tasks/get"),
    ("ListTasks", "tasks/list"),
    ("CancelTask", "tasks/cancel"),
    ("SubscribeToTask", "tasks/resubscribe"),
    ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
    ("GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
    ("ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
    ("DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"),
    ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"),
];

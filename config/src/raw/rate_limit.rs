//! RateLimit: our own kind, in Istio's style of keys.

use super::{Bool, Int, List, One, Raw, Reader, SelectorSpec, Shape, Text, Time, object, words};
use crate::yaml::{Node, Type};

object! {
    /// How often something may be called. Limits hold for a whole sidecar, all its workers together; a call that several
    /// limits concern has to be within each. One call over a limit is answered 429 `rate-limited` with `retry-after`.
    struct RateLimitSpec<'n> "RateLimit" {
        /// `outbound` (the default): calls that agents make. `inbound`: calls that agents get.
        direction = "direction": One<'n, LimitDirectionWord>;
        /// The workloads whose sidecars keep the limit; all of the namespace by default, all of the mesh in a root
        /// namespace (`istio-system`, `pilotfish-system`).
        selector = "selector": SelectorSpec<'n>;
        /// What is limited; one bucket for all of them. Outbound it must say something. Inbound without it: every call.
        targets = "targets": List<LimitTargetSpec<'n>>;
        /// What gets a bucket of its own: `caller`, `capability`, `header: NAME`, or several together. None: one bucket for
        /// all calls. A sidecar keeps 10,000 buckets of a limit; what comes when all are in use shares one more.
        by = "by": List<LimitKeySpec<'n>>;
        /// How much.
        limit = "limit": LimitSpec<'n>, required;
        /// The limit is a total of all sidecars that keep it: the control plane hands out slices in proportion to recent
        /// use. False by default: each sidecar has the whole limit.
        fleet = "fleet": Bool<'n>;
        /// Counts what would be refused (`pilotfish_rate_limit_total`, result `would-limit`), and refuses nothing.
        dry_run = "dryRun": Bool<'n>;
    }

    /// What is limited; one of the fields.
    struct LimitTargetSpec<'n> "RateLimitTarget" {
        /// Calls to this host, as the caller names it: a service, a host of VirtualServices, `*.example.com`. A short name is
        /// one of the RateLimit's namespace.
        host = "host": Text<'n>, one_of("target");
        /// Calls that follow this rule: `virtualservice/rule`, `namespace/virtualservice/rule`, or `virtualservice` for all
        /// its rules. A rule without a name is called by its position, from 0.
        route = "route": Text<'n>, one_of("target");
        /// Calls that ask for this capability, by header, by host or by their rule.
        capability = "capability": Text<'n>, one_of("target");
    }

    /// A token bucket: it holds `burst` calls and gets `requests` in each `per`, evenly.
    struct LimitSpec<'n> "RateLimitAmount" {
        /// Calls in each `per`, 1 or more; at most a million a second.
        requests = "requests": Int<'n>, required;
        /// 1ms to 24h (1s by default).
        per = "per": Time<'n>;
        /// Calls at once after a pause, 1 or more (`requests` by default).
        burst = "burst": Int<'n>;
    }

    /// A header whose value gets a bucket of its own.
    struct LimitHeaderSpec<'n> "RateLimitHeader" {
        /// Its name. Calls without it share a bucket.
        header = "header": Text<'n>, required;
    }
}

words! {
    /// Which calls.
    enum LimitDirectionWord {
        /// Calls that agents make.
        Outbound = "outbound",
        /// Calls that agents get.
        Inbound = "inbound",
    }

    /// What a call is told apart by.
    enum LimitKeyWord {
        /// Who calls: the SPIFFE ID of the other sidecar's certificate.
        Caller = "caller",
        /// What capability it asks for.
        Capability = "capability",
    }
}

/// What a call is told apart by: a word, or `header: NAME`.
#[derive(Debug, Clone)]
pub enum LimitKeySpec<'n> {
    /// By a word.
    Word(One<'n, LimitKeyWord>),
    /// By the value of a header.
    Header(LimitHeaderSpec<'n>),
}

impl<'n> Raw<'n> for LimitKeySpec<'n> {
    const SHAPE: Shape =
        Shape::Either(&[<One<'n, LimitKeyWord> as Raw<'n>>::SHAPE, <LimitHeaderSpec<'n> as Raw<'n>>::SHAPE]);
    fn read(node: Node<'n>, reader: &mut Reader) -> Option<Self> {
        if node.kind() == Type::Map {
            return LimitHeaderSpec::read(node, reader).map(LimitKeySpec::Header);
        }
        One::read(node, reader).map(LimitKeySpec::Word)
    }
}

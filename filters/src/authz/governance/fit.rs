//! Whether a call came by a rule, in all the ways in which somebody behind the sidecar may read it: what a rule declares holds also where
//! only one of several values, or another spelling, is what it asks for.

use crate::authz::Asking;
use crate::binding::decoded;
use crate::route::block::{Block, Condition};

/// Whether a call came by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Nobody reads it so.
    No,
    /// Somebody may.
    Perhaps,
    /// Everybody does.
    Surely,
}

/// Whether it came by one of these blocks, if this is its path.
pub(super) fn of(blocks: &[Block], path: &str, asking: &Asking<'_>) -> Fit {
    let of_block = |block: &Block| match block.path.matches(path) {
        true => block.rest.iter().map(|own| of_condition(own, asking)).min().unwrap_or(Fit::Surely),
        false => Fit::No,
    };
    blocks.iter().map(of_block).max().unwrap_or(Fit::No)
}

fn of_condition(condition: &Condition, asking: &Asking<'_>) -> Fit {
    let head = asking.head;
    let plainly = condition.matches(head, asking.caller);
    let (mut several, mut one) = (false, false);
    match condition {
        Condition::Header(name, text) | Condition::NotHeader(name, text) => {
            let wanted = matches!(condition, Condition::Header(..));
            let mut lines = 0_u32;
            head.each_header(name, &mut |value| {
                lines += 1;
                one |=
                    value.split(|byte| *byte == b',').any(|part| text.matches(part.trim_ascii()) == wanted);
            });
            several = lines > 1;
            // It is one value, and no list.
            one &= several || head.header(name).is_some_and(|value| value.contains(&b','));
        }
        Condition::Query(name, text) => {
            let mut times = 0_u32;
            for parameter in head.query().unwrap_or_default().split('&') {
                let (own, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                if decoded(own) == **name {
                    times += 1;
                    one |= text.matches(value.as_bytes()) || text.matches(decoded(value).as_bytes());
                }
            }
            several = times > 1;
        }
        Condition::Method(text) if head.method().bytes().any(|byte| byte.is_ascii_lowercase()) => {
            one = text.matches(head.method().to_ascii_uppercase().as_bytes());
        }
        Condition::Method(_) | Condition::Scheme(_) | Condition::Authority(_) | Condition::Port(_) => {}
    }
    match plainly {
        true if several => Fit::Perhaps,
        true => Fit::Surely,
        false if one => Fit::Perhaps,
        false => Fit::No,
    }
}

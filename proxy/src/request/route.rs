//! route: which rule a call follows, or that it follows none.

use pilotfish_config::model::OutboundMode;
use pilotfish_filters::call::{Call, Caller};
use pilotfish_filters::plan::{Matched, Plan};
use pilotfish_filters::verdict::{Deny, Reason};

use crate::http::{Form, RequestHead};
use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::worker::Worker;

/// Where a call goes, as far as the configuration says.
#[derive(Debug)]
pub enum Way<'p> {
    /// By a rule.
    Rule(Matched<'p>),
    /// Inbound: to the local agent.
    Agent,
    /// To a host that no document names, asked for by `HTTP_PROXY` or `CONNECT`.
    Unknown,
}

/// Finds the rule.
///
/// # Errors
/// `no-route`; `egress-not-allowed` for an unknown host under REGISTRY_ONLY; `quarantined`.
pub fn route<'p>(
    worker: &Worker,
    plan: &'p Plan,
    ctx: &mut Ctx<'p>,
    head: &RequestHead,
    call: &Call,
    caller: &Caller,
) -> Result<Way<'p>, Deny> {
    if ctx.direction == Direction::Inbound {
        return Ok(Way::Agent);
    }
    let by_proxy = matches!(head.form(), Form::Absolute | Form::Authority);
    if by_proxy && call.capabilities.is_empty() && !plan.knows(head.authority()) {
        quarantined(worker, head)?;
        return match plan.egress().mode() {
            OutboundMode::AllowAny => Ok(Way::Unknown),
            OutboundMode::RegistryOnly => Err(Deny::with(
                Reason::EgressNotAllowed,
                format!(
                    "{} is in no ServiceEntry, and the outbound policy is REGISTRY_ONLY",
                    head.authority()
                ),
            )),
        };
    }
    let matched = plan.route(head, call, caller).or_else(|deny| quarantined(worker, head).and(Err(deny)))?;
    ctx.rule = Some(matched.rule);
    ctx.cors = matched.rule.resilience.cors.as_deref();
    Ok(Way::Rule(matched))
}

/// Who is quarantined is in no configuration, but may be found by DNS all the same.
#[cold]
fn quarantined(worker: &Worker, head: &RequestHead) -> Result<(), Deny> {
    match worker.shared.actions.held() {
        Some(held) => held.host(worker.shared.clock.now(), head.authority()),
        None => Ok(()),
    }
}

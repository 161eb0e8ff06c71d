//! fault: delays and aborts that a rule injects, before anything is sent.

use std::pin::pin;

use pilotfish_filters::plan::Rule;

use crate::http::Downstream;
use crate::request::ctx::Ctx;
use crate::request::respond::Failed;
use crate::telemetry::call::Acted;
use crate::worker::Worker;

/// Lets the call meet the faults of its rule, the delay first, as Envoy does.
///
/// # Errors
/// It is aborted; or its caller did not wait for the end of the delay.
pub async fn inject(
    worker: &Worker,
    ctx: &mut Ctx<'_>,
    rule: &Rule,
    down: &mut Downstream<'_>,
) -> Result<(), Failed> {
    let Some(fault) = &rule.resilience.fault else { return Ok(()) };
    if let Some(time) = worker.with_rng(|rng| fault.delay(rng)) {
        worker.metrics.faults_delayed.add(1);
        ctx.call.acted.add(Acted::FAULT_DELAY);
        down.unless_gone(pin!(tokio::time::sleep(time))).await?;
    }
    match worker.with_rng(|rng| fault.abort(rng)) {
        None => Ok(()),
        Some(abort) => {
            worker.metrics.faults_aborted.add(1);
            ctx.call.acted.add(Acted::FAULT_ABORT);
            Err(Failed::Aborted(abort))
        }
    }
}

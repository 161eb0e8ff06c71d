//! fault: delays and aborts that a rule injects, before anything is sent.

use std::pin::pin;

use pilotfish_filters::plan::Rule;

use crate::http::Downstream;
use crate::request::respond::Failed;
use crate::worker::Worker;

/// Lets the call meet the faults of its rule, the delay first, as Envoy does.
///
/// # Errors
/// It is aborted; or its caller did not wait for the end of the delay.
pub async fn inject(worker: &Worker, rule: &Rule, down: &mut Downstream<'_>) -> Result<(), Failed> {
    let Some(fault) = &rule.resilience.fault else { return Ok(()) };
    if let Some(time) = worker.with_rng(|rng| fault.delay(rng)) {
        worker.metrics.faults_delayed.add(1);
        down.unless_gone(pin!(tokio::time::sleep(time))).await?;
    }
    match worker.with_rng(|rng| fault.abort(rng)) {
        None => Ok(()),
        Some(abort) => {
            worker.metrics.faults_aborted.add(1);
            Err(Failed::Aborted(abort))
        }
    }
}

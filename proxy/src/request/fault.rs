//! fault: delays and aborts that a rule injects, before anything is sent.

use std::future::poll_fn;
use std::time::Duration;

use pilotfish_filters::plan::Rule;

use crate::http::{Downstream, Error};
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
        delay(time, down).await?;
    }
    match worker.with_rng(|rng| fault.abort(rng)) {
        None => Ok(()),
        Some(abort) => {
            worker.metrics.faults_aborted.add(1);
            Err(Failed::Aborted(abort))
        }
    }
}

async fn delay(time: Duration, down: &mut Downstream<'_>) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = poll_fn(|cx| down.poll_gone(cx)) => Err(Error::ClientGone),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

//! What traces say.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Asked;
use super::traces::{id, reading, unknown};
use crate::api::analysis::Window;
use crate::server::Control;
use crate::server::answer::{Answer, Denied, json};
use crate::server::route::Query;
use crate::traces::analysis::analyse;
use crate::traces::analysis::compare::{Sample, compare};
use crate::traces::analysis::workflow::Sum;
use crate::traces::store::{Search, TraceStore};

/// Traces of a workflow that are looked at.
const MOST_OF_WORKFLOW: usize = 500;
/// Traces of a window that are looked at.
const MOST_OF_WINDOW: usize = 2_000;
/// Reading ends after this; what was read until then counts.
const LONGEST: Duration = Duration::from_secs(10);
/// The windows of a comparison when nobody says: the last hour, and the same hour a day before.
const WINDOW: Duration = Duration::from_secs(3600);
const AGAINST: Duration = Duration::from_secs(24 * 3600);
/// The longest of either: longer than traces are kept.
const MOST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Of a trace, or of all traces of a workflow.
pub(super) async fn analysis(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["trace", "workflow"])?;
    match (query.get("trace"), query.get("workflow")) {
        (Some(trace), None) => {
            let id = id(trace)?;
            let analysed = reading(control.traces.clone(), move |traces| {
                Ok(traces.trace(id)?.map(|trace| analyse(&trace)))
            });
            json(&analysed.await?.ok_or_else(|| unknown(id))?)
        }
        (None, Some(workflow)) => {
            let wanted = workflow.to_owned();
            let (sum, more) =
                reading(control.traces.clone(), move |traces| of_workflow(traces, &wanted)).await?;
            let analysis = sum.end(more);
            if analysis.traces == 0 {
                let workflow = workflow.escape_debug();
                return Err(Denied::not_found(format!(
                    "no trace of the workflow `{workflow}` is known here"
                )));
            }
            json(&analysis)
        }
        _ => Err(Denied::bad("give one of the parameters `trace` and `workflow`")),
    }
}

fn of_workflow(traces: &TraceStore, workflow: &str) -> std::io::Result<(Sum, bool)> {
    let search =
        Search { workflow: Some(workflow.to_owned()), limit: MOST_OF_WORKFLOW + 1, ..Search::default() };
    let mut sum = Sum::of(workflow);
    let more = each(traces, &search, |trace| sum.add(analyse(&trace)))?;
    Ok((sum, more))
}

/// Reads what a search finds, up to its limit less one; gives whether there is more.
fn each(
    traces: &TraceStore,
    search: &Search,
    mut take: impl FnMut(crate::traces::span::Trace),
) -> std::io::Result<bool> {
    let started = Instant::now();
    let found = traces.search(search)?;
    for (at, summary) in found.iter().enumerate() {
        if at + 1 >= search.limit || started.elapsed() > LONGEST {
            return Ok(true);
        }
        let id = pilotfish_filters::trace::TraceId::parse(&summary.trace);
        // It may have been dropped meanwhile.
        if let Some(trace) = id.map(|id| traces.trace(id)).transpose()?.flatten() {
            take(trace);
        }
    }
    Ok(false)
}

/// Since another time.
pub(super) async fn changes(control: &Control, asked: &Asked) -> Result<Answer, Denied> {
    let query = asked.query(&["window", "since"])?;
    let (window, ago) = (duration(&query, "window", WINDOW)?, duration(&query, "since", AGAINST)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let compared = reading(control.traces.clone(), move |traces| {
        let later = sampled(traces, now.saturating_sub(window), now)?;
        let end = now.saturating_sub(ago);
        let earlier = sampled(traces, end.saturating_sub(window), end)?;
        Ok(compare(later, earlier))
    });
    json(&compared.await?)
}

fn sampled(traces: &TraceStore, from: Duration, to: Duration) -> std::io::Result<(Window, Sample)> {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (from_ns, to_ns) = (nanos(from), nanos(to));
    let search =
        Search { since: Some(from_ns), until: Some(to_ns), limit: MOST_OF_WINDOW + 1, ..Search::default() };
    let mut sample = Sample::default();
    let more = each(traces, &search, |trace| sample.add(&trace))?;
    Ok((Window { from_ns, to_ns, more, ..Window::default() }, sample))
}

fn duration(query: &Query, name: &str, default: Duration) -> Result<Duration, Denied> {
    let Some(text) = query.get(name) else { return Ok(default) };
    match pilotfish_config::units::duration(text) {
        Ok(duration) if !duration.is_zero() && duration <= MOST => Ok(duration),
        Ok(_) => Err(Denied::bad(format!("parameter `{name}` is not above 0 and at most a year"))),
        Err(why) => Err(Denied::bad(format!("parameter `{name}`: {why}"))),
    }
}

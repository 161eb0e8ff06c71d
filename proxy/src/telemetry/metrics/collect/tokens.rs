//! Tokens of callers, and the keys of their issuers.

use super::{Families, Kind, Shared, sum};
use crate::tokens::verify::Refusal;

pub(super) fn collect(page: &mut Families, shared: &Shared) {
    if shared.snapshots.newest().plan.tokens().is_empty() {
        return;
    }
    let workers = &shared.metrics;
    page.family("pilotfish_tokens_total", Kind::Counter, "Calls by what became of their token.");
    page.by("result", "good", sum(workers, |m| &m.tokens.good));
    for why in Refusal::ALL {
        page.by("result", why.word(), sum(workers, |m| &m.tokens.refused[why as usize]));
    }
    let help = "Tokens that had not been seen lately, so that their signature was checked.";
    let looked_at = sum(workers, |m| &m.tokens.looked_at);
    page.single("pilotfish_token_checks_total", Kind::Counter, help, looked_at);
    let help =
        "Looks at issuers' key sets, by their end. While they fail, the last good keys go on being used.";
    page.family("pilotfish_key_set_fetches_total", Kind::Counter, help);
    let [good, failed] = shared.tokens.fetches();
    page.by("result", "good", good);
    page.by("result", "failed", failed);
    let help = "Issuers whose keys could not be taken when they were last looked at.";
    page.single("pilotfish_key_sets_stale", Kind::Gauge, help, shared.tokens.stale());
}

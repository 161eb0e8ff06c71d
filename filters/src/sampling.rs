//! Which traces are kept: the decision at the head of a trace.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Micros;
use crate::route::hash;
use crate::trace::TraceId;

/// How many of the traces that begin here are kept: a share, and besides some each second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// Of all, 0 to 1.
    pub ratio: f64,
    /// Each second, whatever the share says.
    pub per_second: u32,
}

impl Sampling {
    /// What a sidecar does when nobody says otherwise: enough to see something where little happens, and little of much.
    pub const USUAL: Sampling = Sampling { ratio: 0.01, per_second: 10 };

    /// Whether this share of all traces has the trace: the rule of OpenTelemetry's `TraceIdRatioBased`, by which every
    /// service with the same share keeps the same traces. It compares the last 63 bits of the id.
    pub fn has(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.0;
        self.has_number(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1)
    }

    /// The same by a text, which calls of several traces may have in common (`x-request-id`).
    pub fn has_text(self, text: &[u8]) -> bool {
        self.has_number(hash::key(text) >> 1)
    }

    /// `number` has 63 bits.
    fn has_number(self, number: u64) -> bool {
        const ALL: f64 = (1u64 << 63) as f64;
        self.ratio >= 1.0 || number < (self.ratio * ALL) as u64
    }
}

impl FromStr for Sampling {
    type Err = String;

    /// Reads `off`, `5%`, `10/s`, `10/s+1%`.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected off, a share as in 5%, so many a second as in 10/s, or both as in 10/s+1%";
        let text = text.trim();
        if text.eq_ignore_ascii_case("off") {
            return Ok(Sampling::default());
        }
        let (mut share, mut rate) = (None, None);
        for part in text.split('+').map(str::trim) {
            if let Some(number) = part.strip_suffix('%') {
                let percent: f64 = number.trim().parse().map_err(|_| EXPECTED)?;
                if !(0.0..=100.0).contains(&percent) {
                    return Err(format!("{part}: a share is 0% to 100%"));
                }
                if share.replace(percent / 100.0).is_some() {
                    return Err("there are two shares".into());
                }
            } else if let Some(number) = part.strip_suffix("/s") {
                let number: u32 = number
                    .trim()
                    .parse()
                    .map_err(|_| format!("{part}: a rate is a whole number a second, as in 10/s"))?;
                if number > MOST_PER_SECOND {
                    return Err(format!(
                        "{part}: a rate is at most {MOST_PER_SECOND}/s; a share is for more"
                    ));
                }
                if rate.replace(number).is_some() {
                    return Err("there are two rates".into());
                }
            } else {
                return Err(EXPECTED.into());
            }
        }
        Ok(Sampling { ratio: share.unwrap_or(0.0), per_second: rate.unwrap_or(0) })
    }
}

/// The highest rate: its interval is a microsecond.
const MOST_PER_SECOND: u32 = 1_000_000;

/// How a process decides where no document does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Traces that begin here.
    pub roots: Sampling,
    /// What the caller decided holds.
    pub follows_parent: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Setting { roots: Sampling::USUAL, follows_parent: true }
    }
}

impl Setting {
    /// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say.
    ///
    /// # Errors
    /// A sampler that nobody here knows, or a share that is none.
    pub fn from_otel(sampler: &str, argument: Option<&str>) -> Result<Setting, String> {
        let (name, follows_parent) = match sampler.trim().strip_prefix("parentbased_") {
            Some(name) => (name, true),
            None => (sampler.trim(), false),
        };
        let ratio = match name {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match argument.map(str::trim).filter(|argument| !argument.is_empty()) {
                // OpenTelemetry's default.
                None => 1.0,
                Some(argument) => {
                    argument.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or_else(|| {
                        format!("OTEL_TRACES_SAMPLER_ARG: {argument:?} is no share from 0 to 1")
                    })?
                }
            },
            _ => {
                return Err(format!(
                    "OTEL_TRACES_SAMPLER: {sampler:?} is not known here; always_on, always_off, traceidratio are, each also \
                     as parentbased_..."
                ));
            }
        };
        Ok(Setting { roots: Sampling { ratio, per_second: 0 }, follows_parent })
    }
}

/// Hands out so many places a second, of all workers together.
#[derive(Debug, Default)]
pub struct PerSecond {
    /// When the places that were handed out are used up, microseconds (generic cell rate algorithm).
    until: AtomicU64,
}

impl PerSecond {
    /// Takes a place; at most `rate` at once, and so many a second. Where there is none nothing is written.
    pub fn take(&self, rate: u32, now: Micros) -> bool {
        if rate == 0 {
            return false;
        }
        let each = 1_000_000 / u64::from(rate);
        let taken = self.until.fetch_update(Relaxed, Relaxed, |until| {
            let next = until.max(now.0) + each;
            (next <= now.0 + 1_000_000).then_some(next)
        });
        taken.is_ok()
    }
}

/// Decides which traces that begin in this process are kept.
#[derive(Debug, Default)]
pub struct Sampler {
    /// What holds where no document says otherwise.
    pub setting: Setting,
    rate: PerSecond,
}

/// What a decision may know.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    /// The trace.
    pub trace: TraceId,
    /// What a document says of it.
    pub policy: Option<Sampling>,
    /// `x-request-id`, if that decides (`useRequestIdForTraceSampling`) and there is one.
    pub request_id: Option<&'a [u8]>,
}

impl Sampler {
    /// By a setting.
    pub fn new(setting: Setting) -> Sampler {
        Sampler { setting, rate: PerSecond::default() }
    }

    /// Whether a trace is kept. `said` is what the caller decided, if it did.
    pub fn decide(&self, said: Option<bool>, root: &Root<'_>, now: Micros) -> bool {
        if let Some(sampled) = said.filter(|_| self.setting.follows_parent) {
            return sampled;
        }
        let sampling = root.policy.unwrap_or(self.setting.roots);
        let share = match root.request_id {
            Some(id) => sampling.has_text(id),
            None => sampling.has(root.trace),
        };
        share || self.rate.take(sampling.per_second, now)
    }
}

#[cfg(test)]
mod tests;

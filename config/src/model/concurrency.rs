//! Calls at once, and those that wait: what the annotations `max-concurrency`, `adaptive-concurrency` and `queue` say.

use std::time::Duration;

use super::Meta;
use crate::units;

/// Calls at once at most, whatever is written: more is a slip.
const MOST_CALLS: u32 = 100_000;
/// Calls in a queue at most: each holds a connection or a stream and its request.
const MOST_WAITING: u32 = 10_000;
/// A caller that waits longer has given up.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// `pilotfish.dev/adaptive-concurrency`: between which numbers the limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// At least; 2 by default.
    pub min: u32,
    /// At most; 1000 by default (Envoy's).
    pub max: u32,
}

/// `pilotfish.dev/queue`: who waits when the limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Calls that wait at most; 100 by default.
    pub size: u32,
    /// How long a call of the default priority waits at most; 1 s by default.
    pub wait: Duration,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        AdaptiveConcurrency { min: 2, max: 1000 }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        QueueLimits { size: 100, wait: Duration::from_secs(1) }
    }
}

/// What the annotations of a resource say about calls at once. Values that are wrong were reported when they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Concurrency {
    /// The fixed limit.
    pub max: Option<u32>,
    /// The bounds of the one that is found.
    pub adaptive: Option<AdaptiveConcurrency>,
    /// Those who wait.
    pub queue: Option<QueueLimits>,
}

impl Concurrency {
    /// Reads them.
    pub fn of(meta: &Meta) -> Concurrency {
        Concurrency {
            max: meta.annotation("max-concurrency").and_then(|text| max_concurrency(text).ok()),
            adaptive: meta.annotation("adaptive-concurrency").and_then(|text| adaptive(text).ok()).flatten(),
            queue: meta.annotation("queue").and_then(|text| queue(text).ok()),
        }
    }
}

/// A number of calls, at least 1.
///
/// # Errors
/// What is wrong with it.
pub fn max_concurrency(text: &str) -> Result<u32, String> {
    number(text, 1, MOST_CALLS)
}

/// `on`, `off` (`None`), or `max=200,min=2`.
///
/// # Errors
/// What is wrong with it.
pub fn adaptive(text: &str) -> Result<Option<AdaptiveConcurrency>, String> {
    let mut bounds = AdaptiveConcurrency::default();
    match text.trim() {
        "on" => return Ok(Some(bounds)),
        "off" => return Ok(None),
        _ => {}
    }
    pairs(text, &mut |key, value| {
        match key {
            "min" => bounds.min = number(value, 1, MOST_CALLS)?,
            "max" => bounds.max = number(value, 1, MOST_CALLS)?,
            _ => return Err(format!("has the unknown key `{key}`")),
        }
        Ok(())
    })?;
    if bounds.min > bounds.max {
        return Err(format!("has a min of {} above its max of {}", bounds.min, bounds.max));
    }
    Ok(Some(bounds))
}

/// `size=100,wait=1s`.
///
/// # Errors
/// What is wrong with it.
pub fn queue(text: &str) -> Result<QueueLimits, String> {
    let mut limits = QueueLimits::default();
    pairs(text, &mut |key, value| {
        match key {
            "size" => limits.size = number(value, 0, MOST_WAITING)?,
            "wait" => limits.wait = wait(value)?,
            _ => return Err(format!("has the unknown key `{key}`")),
        }
        Ok(())
    })?;
    Ok(limits)
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = units::duration(text).map_err(|why| format!("has a wait of `{text}`, {why}"))?;
    if wait < Duration::from_millis(1) || wait > LONGEST_WAIT {
        return Err(format!("has a wait of {text}, which is not between 1ms and 60s"));
    }
    Ok(wait)
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("does not fit: `{}` is no whole number from {least} to {most}", text.trim())),
    }
}

fn pairs(text: &str, take: &mut dyn FnMut(&str, &str) -> Result<(), String>) -> Result<(), String> {
    for pair in text.split(',') {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("has `{}`, which is no key=value", pair.trim()))?;
        take(key.trim(), value.trim())?;
    }
    Ok(())
}

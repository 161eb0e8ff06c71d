//! The grammars of `pilotfish.dev/circuit-breaker` and `pilotfish.dev/health-check`.

use std::time::Duration;

use crate::model::{CheckMethod, CircuitBreaker, HealthCheck, Meta, Wish};
use crate::raw::nearest;
use crate::units;
use crate::yaml::clip_text;

use super::annotations::Wrong;

/// No time in these annotations may be longer: a day.
const LONGEST: Duration = Duration::from_secs(86_400);

const BREAKER: &str =
    "`on`, `off`, or parts such as \"consecutive=7,success-rate=0.8,window=10s,min-requests=5,open=1s..60s\"";
const CHECK: &str = "`off`, or such as \"http:/healthz\", \"grpc:my.Service\" or \"tcp\", then perhaps \
                     \",interval=10s,timeout=2s,healthy=2,unhealthy=3,jitter=10%,port=8080,credential=on\"";

/// What an annotation of a document says; wrong values were reported by [`super::annotations::check`].
pub(super) fn wish<T>(meta: &Meta, name: &str, read: fn(&str) -> Result<Wish<T>, Wrong>) -> Wish<T> {
    meta.annotation(name).and_then(|text| read(text).ok()).unwrap_or_default()
}

/// `on`, `off`, or `key=value` parts, each of which has a default.
pub(super) fn circuit_breaker(text: &str) -> Result<Wish<CircuitBreaker>, Wrong> {
    let mut breaker = CircuitBreaker::default();
    match text.trim() {
        "on" => return Ok(Wish::On(breaker)),
        "off" => return Ok(Wish::Off),
        "" => return Err(Wrong::new("says nothing", BREAKER)),
        _ => {}
    }
    let known = ["consecutive", "success-rate", "window", "min-requests", "open"];
    for (key, value) in parts(text, &known, BREAKER)? {
        match key {
            "consecutive" => breaker.consecutive = or_off(value, |value| count(key, value))?,
            "success-rate" => breaker.success_rate = or_off(value, success_rate)?,
            "window" => breaker.window = window(value)?,
            "min-requests" => breaker.min_requests = count(key, value)?,
            _ => (breaker.open, breaker.longest) = open(value)?,
        }
    }
    if breaker.consecutive.is_none() && breaker.success_rate.is_none() {
        return Err(Wrong::new("never opens", "keep `consecutive` or `success-rate`, or write `off`"));
    }
    Ok(Wish::On(breaker))
}

/// `off`, or a method and then `key=value` parts.
pub(super) fn health_check(text: &str) -> Result<Wish<HealthCheck>, Wrong> {
    let text = text.trim();
    if text == "off" {
        return Ok(Wish::Off);
    }
    let (method, rest) = text.split_once(',').unwrap_or((text, ""));
    let (word, what) = method.split_once(':').unwrap_or((method, ""));
    let method = match word.trim() {
        "http" => CheckMethod::Http(path(what.trim())?),
        "grpc" => CheckMethod::Grpc(what.trim().to_owned()),
        "tcp" if what.is_empty() => CheckMethod::Tcp,
        word => {
            let near = nearest(word, ["http", "grpc", "tcp", "off"]);
            let hint = near.map_or_else(|| CHECK.to_owned(), |near| format!("did you mean `{near}`?"));
            return Err(Wrong::new("is not a health check", hint));
        }
    };
    let mut check = HealthCheck::by(method);
    if rest.trim().is_empty() {
        return Ok(Wish::On(check));
    }
    let known = ["interval", "timeout", "healthy", "unhealthy", "jitter", "port", "credential"];
    for (key, value) in parts(rest, &known, CHECK)? {
        match key {
            "interval" => check.interval = time(key, value, Duration::from_millis(100))?,
            "timeout" => check.timeout = time(key, value, Duration::from_millis(10))?,
            "healthy" => check.healthy = count(key, value)?,
            "unhealthy" => check.unhealthy = count(key, value)?,
            "jitter" => check.jitter = jitter(value)?,
            "credential" => {
                let wrong =
                    || Wrong::new(bad(key, value, "is neither `on` nor `off`"), "`credential=on` or `off`");
                check.credential =
                    ["off", "on"].iter().position(|word| *word == value).ok_or_else(wrong)? == 1;
            }
            _ => {
                let number = value.parse().ok().filter(|port| *port != 0);
                let wrong = || Wrong::new(bad(key, value, "is not a port"), "ports are 1 to 65535");
                check.port = Some(number.ok_or_else(wrong)?);
            }
        }
    }
    if check.credential && (check.port.is_some() || !matches!(check.method, CheckMethod::Http(_))) {
        let hint = "by HTTP, at the port that calls go to, whose TLS is verified";
        return Err(Wrong::new("shows a credential where it cannot be shown", hint));
    }
    Ok(Wish::On(check))
}

/// `key=value` parts, each known and there once.
fn parts<'t>(
    text: &'t str,
    known: &[&'static str],
    form: &str,
) -> Result<Vec<(&'static str, &'t str)>, Wrong> {
    let mut found: Vec<(&'static str, &str)> = Vec::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (key.trim(), value.trim());
        let Some(key) = known.iter().copied().find(|own| *own == key) else {
            let near = nearest(key, known.iter().copied());
            let hint = near.map_or_else(|| form.to_owned(), |near| format!("did you mean `{near}`?"));
            return Err(Wrong::new(format!("has the unknown part `{}`", clip_text(key)), hint));
        };
        if value.is_empty() {
            return Err(Wrong::new(format!("gives `{key}` no value"), form));
        }
        if found.iter().any(|(other, _)| *other == key) {
            return Err(Wrong::new(format!("has `{key}` twice"), "keep one of them"));
        }
        found.push((key, value));
    }
    Ok(found)
}

fn bad(key: &str, value: &str, what: &str) -> String {
    format!("is wrong at `{key}`: `{}` {what}", clip_text(value))
}

fn or_off<T>(value: &str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Result<Option<T>, Wrong> {
    if value == "off" { Ok(None) } else { read(value).map(Some) }
}

fn count(key: &str, value: &str) -> Result<u32, Wrong> {
    let number = value.parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or_else(|| Wrong::new(bad(key, value, "is not such a number"), "a whole number, 1 to 1000000"))
}

fn share(value: &str) -> Option<f64> {
    let (number, unit) = value.strip_suffix('%').map_or((value, 1.0), |number| (number, 100.0));
    number.trim().parse::<f64>().ok().map(|number| number / unit)
}

fn success_rate(value: &str) -> Result<f64, Wrong> {
    let rate = share(value).filter(|rate| *rate > 0.0 && *rate <= 1.0);
    rate.ok_or_else(|| {
        Wrong::new(
            bad("success-rate", value, "is not a share of successes that calls can fall below"),
            "above 0 and at most 1, such as 0.8 or 80%; or `off`",
        )
    })
}

fn jitter(value: &str) -> Result<f64, Wrong> {
    let share = share(value).filter(|share| (0.0..=0.5).contains(share));
    share.ok_or_else(|| Wrong::new(bad("jitter", value, "is not a share of the interval"), "0% to 50%"))
}

fn time(key: &str, value: &str, least: Duration) -> Result<Duration, Wrong> {
    let time = units::duration(value).map_err(|why| Wrong::new(bad(key, value, "is not a duration"), why))?;
    if time < least {
        return Err(Wrong::new(bad(key, value, "is too short"), format!("at least {least:?}")));
    }
    if time > LONGEST {
        return Err(Wrong::new(bad(key, value, "is too long"), "at most 24h"));
    }
    Ok(time)
}

fn window(value: &str) -> Result<Duration, Wrong> {
    time("window", value, Duration::from_millis(100))
}

/// `1s..60s`, or the first time alone.
fn open(value: &str) -> Result<(Duration, Duration), Wrong> {
    let least = Duration::from_millis(10);
    let Some((first, longest)) = value.split_once("..") else {
        let first = time("open", value, least)?;
        return Ok((first, first.max(CircuitBreaker::default().longest)));
    };
    let (first, longest) = (time("open", first.trim(), least)?, time("open", longest.trim(), least)?);
    if first > longest {
        let hint = "the first time, then the longest, such as 1s..60s";
        return Err(Wrong::new(bad("open", value, "ends before it begins"), hint));
    }
    Ok((first, longest))
}

fn path(text: &str) -> Result<String, Wrong> {
    let sane = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    match sane {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new("has no path to ask for", "such as \"http:/healthz\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(text: &str) -> CircuitBreaker {
        match circuit_breaker(text) {
            Ok(Wish::On(breaker)) => breaker,
            _ => panic!("{text}"),
        }
    }

    #[test]
    fn breakers_are_read_with_defaults_for_what_is_not_written() {
        assert_eq!(breaker("on"), CircuitBreaker::default());
        assert_eq!(
            breaker("consecutive=7,success-rate=0.8,window=10s,min-requests=5,open=1s..60s"),
            CircuitBreaker::default()
        );
        let own = breaker(" success-rate = 50% , consecutive=off,open=90s");
        assert_eq!((own.success_rate, own.consecutive), (Some(0.5), None));
        assert_eq!((own.open, own.longest), (Duration::from_secs(90), Duration::from_secs(90)));
        assert!(matches!(circuit_breaker("off"), Ok(Wish::Off)));
        for wrong in [
            "",
            "yes",
            "consecutive",
            "consecutive=0",
            "consecutive=-1",
            "success-rate=0",
            "success-rate=1.1",
            "success-rate=101%",
            "success-rate=x",
            "window=0s",
            "window=10",
            "min-requests=0",
            "open=60s..1s",
            "open=0s..1s",
            "open=1s..",
            "on,consecutive=1",
            "consecutive=1,consecutive=2",
            "consecutive=off,success-rate=off",
        ] {
            assert!(circuit_breaker(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn health_checks_are_read_with_defaults_for_what_is_not_written() {
        let check = |text: &str| match health_check(text) {
            Ok(Wish::On(check)) => check,
            _ => panic!("{text}"),
        };
        let http = HealthCheck::by(CheckMethod::Http("/healthz?deep=1".into()));
        assert_eq!(
            check("http:/healthz?deep=1,interval=10s,timeout=2s,healthy=2,unhealthy=3,jitter=10%"),
            http
        );
        assert_eq!(check("grpc:a.b.C"), HealthCheck::by(CheckMethod::Grpc("a.b.C".into())));
        assert_eq!(check("grpc"), HealthCheck::by(CheckMethod::Grpc(String::new())));
        assert_eq!(check("tcp,port=8080").port, Some(8080));
        assert!(check("http:/a,credential=on").credential && !check("http:/a,credential=off").credential);
        assert!(matches!(health_check("off"), Ok(Wish::Off)));
        for wrong in [
            "",
            "http",
            "http:healthz",
            "http:/a b",
            "https:/a",
            "tcp:1",
            "tcp,interval=0s",
            "tcp,interval=-1s",
            "tcp,jitter=60%",
            "tcp,healthy=0",
            "tcp,port=0",
            "tcp,port=65536",
            "tcp,x=1",
            "tcp,credential=on",
            "grpc,credential=on",
            "http:/a,port=1,credential=on",
            "http:/a,credential=yes",
        ] {
            assert!(health_check(wrong).is_err(), "{wrong}");
        }
    }
}

//! Fault injection: a share of the calls is delayed or aborted.

use std::time::Duration;

use pilotfish_config::model;
pub use pilotfish_config::model::Abort;

use crate::grpc;
use crate::share::Share;

/// The faults of a rule. Delay and abort are drawn apart from each other, so a call may meet both, as in Envoy.
#[derive(Debug, Clone)]
pub struct Fault {
    delay: Option<(Share, Duration)>,
    abort: Option<(Share, Abort)>,
}

impl Fault {
    /// What a rule says; `None` when that is nothing.
    pub fn new(model: &model::Fault) -> Option<Fault> {
        let delay = model.delay.map(|(percent, time)| (Share::percent(percent), time));
        let abort = model.abort.map(|(percent, abort)| (Share::percent(percent), abort));
        (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
    }

    /// How long this call has to wait before it is sent.
    pub fn delay(&self, rng: &mut fastrand::Rng) -> Option<Duration> {
        self.delay.filter(|(share, _)| share.draw(rng)).map(|(_, time)| time)
    }

    /// With what this call is aborted.
    pub fn abort(&self, rng: &mut fastrand::Rng) -> Option<Abort> {
        self.abort.filter(|(share, _)| share.draw(rng)).map(|(_, abort)| abort)
    }

    /// What it does, for a person.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let delay = |(share, time): (Share, Duration)| serde_json::json!({"percent": share.as_percent(), "ms": time.as_millis() as u64});
        let abort = |(share, abort): (Share, Abort)| {
            let with = match abort {
                Abort::Http(status) => format!("HTTP {status}"),
                Abort::Grpc(status) => format!("gRPC status {status}"),
                Abort::Http2(code) => format!("HTTP/2 error {code}"),
            };
            serde_json::json!({"percent": share.as_percent(), "with": with})
        };
        serde_json::json!({"delay": self.delay.map(delay), "abort": self.abort.map(abort)})
    }
}

/// The HTTP status of an abort for callers that do not speak gRPC (Envoy's mapping); `None`: there is
/// no answer, the stream is reset.
pub fn http_status(abort: Abort) -> Option<u16> {
    match abort {
        Abort::Http(status) => Some(status),
        Abort::Grpc(status) => Some(grpc::http_status(status.into())),
        Abort::Http2(_) => None,
    }
}

/// The gRPC status of an abort for callers that speak gRPC (gRPC's own mapping, grpc/grpc `doc/http-grpc-status-mapping.md`);
/// `None`: there is no answer, the stream is reset.
pub fn grpc_status(abort: Abort) -> Option<u8> {
    match abort {
        Abort::Grpc(status) => Some(status),
        Abort::Http(status) => Some(match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        }),
        Abort::Http2(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_and_abort_are_drawn_apart_from_each_other() {
        let delay = Some((50.0, Duration::from_secs(1)));
        let fault = Fault::new(&model::Fault { delay, abort: Some((50.0, Abort::Http(503))) }).unwrap();
        let mut rng = fastrand::Rng::with_seed(3);
        let mut met = [0; 4];
        for _ in 0..10_000 {
            let (late, aborted) = (fault.delay(&mut rng).is_some(), fault.abort(&mut rng).is_some());
            met[usize::from(late) * 2 + usize::from(aborted)] += 1;
        }
        assert!(met.iter().all(|count: &u32| count.abs_diff(2500) < 250), "{met:?}");
    }

    #[test]
    fn what_says_nothing_is_no_fault() {
        assert!(Fault::new(&model::Fault::default()).is_none());
    }
}

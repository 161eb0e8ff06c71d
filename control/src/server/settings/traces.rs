//! Flags of traces: how many are kept, who may send and read them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Listener, loopback};
use crate::traces::store::Limits;

const HEADING: &str = "Traces";

/// How traces are kept, taken and read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct TraceSettings {
    /// Disk that traces may take, in the folder `traces` of --data; the oldest go first. A span takes some 400 bytes, and
    /// some 40 bytes of memory.
    #[arg(long, env = "PILOTFISH_TRACES_DISK", value_name = "SIZE", default_value = "1GiB", value_parser = disk)]
    pub traces_disk: u64,

    /// How long traces are kept.
    #[arg(long, env = "PILOTFISH_TRACES_AGE", value_name = "DURATION", default_value = "7d", value_parser = age)]
    pub traces_age: Duration,

    /// Loopback listener for OTLP over gRPC: any program of this machine may add spans there, within limits; `off` for
    /// none. [default: 127.0.0.1:4317, or none when something else listens there]
    #[arg(long, env = "PILOTFISH_OTLP_GRPC", value_name = "ADDR", value_parser = loopback)]
    pub otlp_grpc: Option<Listener>,

    /// The same for OTLP over HTTP. [default: 127.0.0.1:4318, or none when something else listens there]
    #[arg(long, env = "PILOTFISH_OTLP_HTTP", value_name = "ADDR", value_parser = loopback)]
    pub otlp_http: Option<Listener>,

    /// Listener for OTLP, gRPC and HTTP, from other machines: TLS, and a certificate of the mesh or the token of
    /// --otlp-token-file. Sidecars do not need it, they use --listen.
    #[arg(long, env = "PILOTFISH_OTLP_LISTEN", value_name = "ADDR", default_value = "off")]
    pub otlp_listen: Listener,

    /// File with the token that may add spans at --otlp-listen, sent as `Authorization: Bearer`.
    #[arg(long, env = "PILOTFISH_OTLP_TOKEN_FILE", value_name = "FILE")]
    pub otlp_token_file: Option<PathBuf>,

    /// Loopback listener for Jaeger's query API, which Grafana reads; every request needs a token, as
    /// `Authorization: Bearer`. `off` for none. [default: 127.0.0.1:16686, or none when something else listens there]
    #[arg(long, env = "PILOTFISH_JAEGER", value_name = "ADDR", value_parser = loopback)]
    pub jaeger: Option<Listener>,

    /// File with a token that may read traces there, and nothing else; an administrator's token may too.
    #[arg(long, env = "PILOTFISH_JAEGER_TOKEN_FILE", value_name = "FILE")]
    pub jaeger_token_file: Option<PathBuf>,
}

impl TraceSettings {
    /// How much is kept.
    pub fn limits(&self) -> Limits {
        Limits { disk: self.traces_disk, age: self.traces_age }
    }
}

/// The least that makes sense, and the most whose index fits into memory.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 256 << 30;

pub(super) fn disk(text: &str) -> Result<u64, String> {
    let form = "expected a size from 1MiB to 256GiB, such as `512MiB` or `4GiB`";
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
    let found = units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit): (&str, u64) = found.ok_or(form)?;
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(form)?;
    if (LEAST..=MOST).contains(&bytes) { Ok(bytes) } else { Err(form.into()) }
}

fn age(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let age = match days {
        Some(days) => Duration::from_secs(u64::from(days) * 86_400),
        None => pilotfish_config::units::duration(text)
            .map_err(|_| "write a number with a unit, such as `7d`, `12h` or `30m`")?,
    };
    if age < Duration::from_secs(60) || age > Duration::from_secs(3650 * 86_400) {
        return Err("expected 1m to 3650d".into());
    }
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages() {
        for (text, bytes) in
            [("1GiB", 1 << 30), ("512MiB", 512 << 20), ("2048 KiB", 2 << 20), ("1048576", 1 << 20)]
        {
            assert_eq!(disk(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "1GB", "1KiB", "-1GiB", "300GiB", "99999999999999999999GiB"] {
            assert!(disk(text).is_err(), "{text}");
        }
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(age("90m"), Ok(Duration::from_secs(5_400)));
        for text in ["", "d", "1s", "7days", "99999d", "-1d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}

//! The workloads of resilience: what the policies cost, and what they are good for when endpoints fail, are slow, or are asked
//! for more than they can do.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Bench};
use crate::peers::{Mesh, Peer};
use crate::process::pinned;
use crate::work::{Values, Work};

/// Endpoints of the workloads with one bad endpoint among good ones.
pub const ENDPOINTS: usize = 10;
/// What a good endpoint takes for a call, in microseconds, and a slow one: 20 times as long.
const FAST_US: u64 = 5_000;
const SLOW_US: u64 = 100_000;
/// Requests a second with a slow or failing endpoint.
const RATE: f64 = 1500.0;
/// The overloaded agent: calls at once, and how long each takes, in microseconds.
const PLACES: usize = 16;
const WORK_US: u64 = 10_000;
/// Calls a second that it can do.
const CAPACITY: f64 = PLACES as f64 * 1e6 / WORK_US as f64;
/// How much more than that it is asked for.
const OVER: f64 = 3.0;
/// Connections of the overload: enough for whoever waits a second.
const CROWD: usize = 3000;

/// What a sidecar of ours runs with in `work`.
pub fn mesh(work: Work, peer: Peer) -> Mesh {
    match (work, peer) {
        (_, Peer::PilotfishPolicies) => Mesh::Policies,
        (Work::Failing | Work::Slow, _) => Mesh::Careful,
        (Work::Storm, _) => Mesh::Stubborn,
        (Work::Overload, _) => Mesh::Inbound,
        _ => Mesh::Table,
    }
}

impl Bench {
    /// Runs one of these workloads once.
    ///
    /// # Errors
    /// When something could not be started, or ended before its time.
    pub fn policies(&self, work: Work, bed: &Bed) -> io::Result<Vec<(String, Values)>> {
        let secs = self.secs.max(4.0);
        let fast = format!("/agents/0/run?d={FAST_US}");
        match work {
            Work::Failing => {
                let flags = format!("--cold --conns 64 --rate {RATE} --secs {secs} --path {fast}&f=1");
                let (mut values, _) = self.ends(bed, work, &flags)?;
                // The answers that a caller saw fail are what is measured, not a broken run.
                values.insert("errors".into(), 0.0);
                Ok(vec![(String::new(), values)])
            }
            Work::Slow => {
                let conns = "--conns 256 --rate 1500";
                let even = self.ends(bed, work, &format!("{conns} --secs {secs} --path {fast}"))?.0;
                let path = format!("{fast}&s={SLOW_US}");
                let mut one = self.ends(bed, work, &format!("{conns} --secs {secs} --path {path}"))?.0;
                if let (Some(with), Some(without)) = (one.get("p99"), even.get("p99")) {
                    let ratio = with / without;
                    one.insert("p99_over_even".into(), ratio);
                }
                Ok(vec![("all alike".into(), even), ("one slow".into(), one)])
            }
            Work::Storm => {
                let before = count(bed)?;
                let command =
                    self.load("closed", bed.port, &format!("--conns 64 --secs {secs} --path /?f=all"));
                let said = pinned(self.load_place(work), &command).stderr(Stdio::null()).output()?;
                let asked = serde_json::from_slice::<Value>(&said.stdout)?["done"].as_f64().unwrap_or(0.0);
                let arrived = (count(bed)? - before) as f64;
                let extra = 100.0 * (arrived - asked) / asked.max(1.0);
                let values = [("done", asked), ("arrived", arrived), ("extra_pct", extra), ("errors", 0.0)];
                Ok(vec![(String::new(), values.into_iter().map(|(name, v)| (name.into(), v)).collect())])
            }
            Work::Overload => {
                let path = format!("/agents/0/run?d={WORK_US}&c={PLACES}");
                // The limit is found before it is needed: half of the capacity for a while.
                let flags = format!("--conns 64 --rate {} --secs 2 --path {path}", CAPACITY / 2.0);
                self.ends(bed, work, &flags)?;
                let rate = CAPACITY * OVER;
                let flags = format!("--mixed --conns {CROWD} --rate {rate} --secs {secs} --path {path}");
                let (mut values, ends) = self.ends(bed, work, &flags)?;
                let class = |name: &str, of: &str| ends["classes"][name][of].as_f64().unwrap_or(0.0);
                let useful: f64 =
                    ["critical", "default", "sheddable"].iter().map(|c| class(c, "useful")).sum();
                let share = |name: &str| 100.0 * class(name, "useful") / class(name, "asked").max(1.0);
                let goodput = 100.0 * useful / (CAPACITY * secs);
                values.insert("goodput_pct".into(), goodput);
                values.insert("goodput_lost_pct".into(), 100.0 - goodput);
                values.insert("critical_lost_pct".into(), 100.0 - share("critical"));
                for name in ["critical", "default", "sheddable"] {
                    values.insert(format!("{name}_pct"), share(name));
                }
                values.insert("errors".into(), 0.0);
                Ok(vec![(String::new(), values)])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Open loop; what it measured, and how the requests ended.
    fn ends(&self, bed: &Bed, work: Work, flags: &str) -> io::Result<(Values, Value)> {
        sleep(Duration::from_millis(200));
        let command = self.load("rate", bed.port, flags);
        let (mut values, said) = self.measured_with(bed, work, &command)?;
        let ends = said["ends"].clone();
        for name in ["failed_early_pct", "failed_late_pct"] {
            values.extend(ends[name].as_f64().map(|v| (name.to_owned(), v)));
        }
        Ok((values, ends))
    }
}

/// How many requests the upstream got.
fn count(bed: &Bed) -> io::Result<u64> {
    let port = bed.setup.upstreams.first().copied().unwrap_or_default();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /count HTTP/1.1\r\nhost: upstream\r\n\r\n")?;
    let mut buffer = [0; 512];
    let n = stream.read(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..n]);
    let number = text.rsplit("\r\n").next().and_then(|body| body.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("the upstream said: {text}")))
}

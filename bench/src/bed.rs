//! How a workload is run once: a proxy and its upstream, the load, and what was measured.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::authz;
use crate::fleet;
use crate::machine::Since;
use crate::peers::mesh::{self, Ports, Side};
use crate::peers::{Peer, SMALL_TABLE, Setup};
use crate::placement;
use crate::process::{Place, Process, pinned};
use crate::reload;
use crate::start;
use crate::telemetry;
use crate::tokens;
use crate::traces;
use crate::work::{Values, Work};

/// How and where to run.
pub struct Bench {
    /// Our own binary, for upstream and load.
    pub exe: PathBuf,
    /// Scratch folder.
    pub dir: PathBuf,
    /// Seconds of a run.
    pub secs: f64,
    /// A tenth of the fleet.
    pub quick: bool,
    /// First of the ports used: the proxy's; the upstream's begin 100 above.
    pub port: u16,
    /// Run proxy, upstream and load in the real-time class.
    pub real_time: bool,
    /// What the sidecar waits after a file event before it reads, milliseconds.
    pub debounce_ms: f64,
}

const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Connections of the closed-loop workloads.
const CONNS: usize = 64;
/// Handshakes at a time.
const HANDSHAKES: usize = 16;
/// Connections of the 1 MiB workload.
const BODY_CONNS: usize = 16;
/// Requests a second of the open-loop workload.
const RATE: f64 = 8000.0;
/// Streams of the event workload, and the time between two events of one: (label, milliseconds).
const STREAMS: usize = 500;
const PACES: [(&str, f64); 2] = [("25,000/s", 20.0), ("100,000/s", 5.0)];
/// Connections of the idle workload.
const IDLE_CONNS: usize = 5000;

/// A proxy and its upstream, running.
pub struct Bed {
    /// The proxy's processes; none: the upstream alone.
    pub proxies: Vec<Process>,
    upstream: Process,
    /// What takes spans; a sidecar whose time is not counted.
    _beside: Vec<Process>,
    /// The port that the load goes to.
    pub port: u16,
    /// The proxy's setup.
    pub setup: Setup,
}

impl Bench {
    /// Where the load generator runs.
    pub(crate) fn load_place(&self, work: Work) -> Place {
        self.place(LOAD_CORE, work)
    }

    /// A reload is never real-time: its thread asks to run after the workers, which that class would not heed.
    fn place(&self, core: usize, work: Work) -> Place {
        Place { core, real_time: self.real_time && work != Work::Reload }
    }

    fn bed(&self, work: Work, peer: Peer, binary: &Path) -> io::Result<Bed> {
        let setup = work.setup(peer, self.port);
        let dir = self.dir.join(peer.name());
        // A folder of an earlier run may hold a socket or a pid file that is in the way.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let ports = setup.upstreams.len().to_string();
        let first = setup.upstreams.first().copied().unwrap_or_default();
        let exe = self.exe.display().to_string();
        let args = [&exe, "upstream", "--port", &first.to_string(), "--count", &ports].map(str::to_owned);
        let mut upstream = Process::start(self.place(LOAD_CORE, work), &args, &dir.join("upstream.log"))?;
        upstream.wait_for_port(setup.upstreams.last().copied().unwrap_or(first))?;
        if peer == Peer::Direct {
            return Ok(Bed { proxies: Vec::new(), upstream, _beside: Vec::new(), port: first, setup });
        }
        let mut beside = Vec::new();
        if setup.traced {
            beside.push(self.collector(work, &dir)?);
        }
        let mut proxies = Vec::new();
        for (name, port, command) in self.commands(work, peer, binary, &setup, &dir)? {
            let log = dir.join(format!("{name}.log"));
            // The caller's sidecar decides nothing: it stays out of the way of the one that does.
            let beside_it = work == Work::Authz && name == "outbound";
            let core = if beside_it { LOAD_CORE } else { PROXY_CORE };
            let mut proxy = Process::start(self.place(core, work), &command, &log)?;
            proxy.wait_for_port(port).map_err(|e| {
                let said = fs::read_to_string(&log).unwrap_or_default();
                io::Error::other(format!("{e}: {}", said.lines().last().unwrap_or("it said nothing")))
            })?;
            if beside_it { beside.push(proxy) } else { proxies.push(proxy) }
        }
        Ok(Bed { proxies, upstream, _beside: beside, port: setup.listen, setup })
    }

    /// Takes what the proxy tells.
    fn collector(&self, work: Work, dir: &Path) -> io::Result<Process> {
        let port = telemetry::collector(self.port);
        let args = [self.exe.display().to_string(), "collect".into(), "--port".into(), port.to_string()];
        let mut process = Process::start(self.place(LOAD_CORE, work), &args, &dir.join("collector.log"))?;
        process.wait_for_port(port)?;
        Ok(process)
    }

    /// The processes of a proxy in the order of their start: name, port, command line.
    fn commands(
        &self,
        work: Work,
        peer: Peer,
        binary: &Path,
        setup: &Setup,
        dir: &Path,
    ) -> io::Result<Vec<(&'static str, u16, Vec<String>)>> {
        if !matches!(work, Work::Mesh | Work::Handshakes | Work::Authz) {
            return Ok(vec![("proxy", setup.listen, peer.prepare(binary, setup, dir)?)]);
        }
        let (certs, agent) = (self.certs(), setup.upstreams.first().copied().unwrap_or_default());
        if !certs.join("both.pem").exists() {
            mesh::certificates(&certs)?;
        }
        let side = |side, ports: Ports, name: &str| {
            mesh::prepare(peer, binary, side, ports, &dir.join(name), &certs)
        };
        if work == Work::Handshakes {
            let ports = Ports { listen: setup.listen, next: agent };
            return Ok(vec![("inbound", ports.listen, side(Side::Inbound, ports, "inbound")?)]);
        }
        let inward = Ports { listen: setup.listen + 1, next: agent };
        let outward = Ports { listen: setup.listen, next: inward.listen };
        let mut deciding = side(Side::Inbound, inward, "inbound")?;
        if work == Work::Authz {
            let place = dir.join("inbound");
            fs::write(place.join("conf/authz.yaml"), authz::documents(peer))?;
            deciding.extend(authz::flags(peer, &place).split_whitespace().map(str::to_owned));
        }
        Ok(vec![
            ("inbound", inward.listen, deciding),
            ("outbound", outward.listen, side(Side::Outbound, outward, "outbound")?),
        ])
    }

    /// The certificates of the mesh workloads.
    fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// The command line of our own load generator.
    pub(crate) fn load(&self, mode: &str, port: u16, flags: &str) -> Vec<String> {
        let exe = self.exe.display().to_string();
        let line = format!("load {mode} --port {port} {flags}");
        [exe].into_iter().chain(line.split_whitespace().map(str::to_owned)).collect()
    }

    /// Runs one workload once against one proxy: (what it was run at, what was measured).
    ///
    /// # Errors
    /// When something could not be started, or ended before its time.
    pub fn run(&self, work: Work, peer: Peer, binary: &Path) -> io::Result<Vec<(String, Values)>> {
        if let Some(measured) = self.without_proxy(work, binary) {
            return measured.map(|values| vec![(String::new(), values)]);
        }
        let bed = self.bed(work, peer, binary)?;
        let port = bed.port;
        let secs = self.secs;
        let rules = bed.setup.rules;
        let plain = |values| vec![(String::new(), values)];
        match work {
            Work::H1
            | Work::Table
            | Work::Hash
            | Work::Mesh
            | Work::Policies
            | Work::Telemetry
            | Work::Authz => {
                let keys = if work == Work::Hash { 10_000 } else { 0 };
                let flags = format!("--conns {CONNS} --rules {rules} --keys {keys}");
                self.warm(&bed, work, &flags)?;
                let command = self.load("closed", port, &format!("{flags} --secs {secs}"));
                self.measured(&bed, work, &command, from_load).map(plain)
            }
            Work::Handshakes => {
                let flags = format!("--conns {HANDSHAKES} --certs {}", self.certs().display());
                let warm = self.load("handshakes", port, &format!("{flags} --secs 0.5"));
                pinned(self.place(LOAD_CORE, work), &warm).stdout(Stdio::null()).status()?;
                let command = self.load("handshakes", port, &format!("{flags} --secs {secs}"));
                self.measured(&bed, work, &command, from_load).map(plain)
            }
            Work::Body => {
                let flags = format!("--conns {BODY_CONNS} --path /b/1048576");
                self.warm(&bed, work, &flags)?;
                let command = self.load("closed", port, &format!("{flags} --secs {secs}"));
                self.measured(&bed, work, &command, from_load).map(plain)
            }
            Work::H2c => {
                pinned(self.place(LOAD_CORE, work), &h2load(port, "-n 2000"))
                    .stdout(Stdio::null())
                    .status()?;
                let command = h2load(port, &format!("-D {}", secs.ceil()));
                self.measured(&bed, work, &command, from_h2load).map(plain)
            }
            Work::Latency => {
                let flags = format!("--conns {CONNS} --rules {rules}");
                self.warm(&bed, work, &flags)?;
                let command = self.load("rate", port, &format!("{flags} --rate {RATE} --secs {secs}"));
                self.measured(&bed, work, &command, from_load).map(plain)
            }
            Work::Events => {
                self.warm(&bed, work, "--conns 64")?;
                let mut all = Vec::new();
                for (label, interval) in PACES {
                    let flags = format!("--conns {STREAMS} --interval {interval} --secs {secs}");
                    let command = self.load("streams", port, &flags);
                    all.push((label.to_owned(), self.measured(&bed, work, &command, from_load)?));
                    sleep(Duration::from_millis(300));
                }
                Ok(all)
            }
            Work::Failing | Work::Slow | Work::Storm | Work::Overload => self.policies(work, &bed),
            Work::Idle => self.idle(&bed).map(plain),
            // They have no proxy, and were run above.
            Work::Fleet
            | Work::Nodes
            | Work::Start
            | Work::Placement
            | Work::Spans
            | Work::Roles
            | Work::Tokens => Ok(Vec::new()),
            Work::Reload => {
                let load = |flags: &str| {
                    let command = self.load("rate", port, flags);
                    let mut command = pinned(self.place(LOAD_CORE, work), &command);
                    command.stdout(Stdio::piped());
                    command
                };
                self.warm(&bed, work, "--conns 16 --rules 10000")?;
                reload::run(&self.dir.join(peer.name()), &bed.setup, self.debounce_ms, load).map(plain)
            }
        }
    }

    /// A workload of the control plane, run once; none: it is a proxy's.
    fn without_proxy(&self, work: Work, binary: &Path) -> Option<io::Result<Values>> {
        let (place, dir, core) = (self.place(PROXY_CORE, work), &self.dir, (LOAD_CORE, self.quick));
        Some(match work {
            Work::Fleet => fleet::run(binary, dir, self.port, place, core),
            Work::Nodes => fleet::nodes::run(binary, dir, self.port, place, core),
            Work::Start => start::run(binary, &self.exe, dir, self.port, self.quick),
            Work::Placement => placement::measure(&self.exe, self.quick),
            Work::Roles => authz::run(binary, dir, self.port),
            Work::Tokens => tokens::measure(&self.exe),
            Work::Spans => traces::run(binary, dir, self.port, place, core),
            _ => return None,
        })
    }

    /// Half a second of closed loop, so that connections, pools and caches are warm.
    fn warm(&self, bed: &Bed, work: Work, flags: &str) -> io::Result<()> {
        let command = self.load("closed", bed.port, &format!("{flags} --secs 0.5"));
        let said = pinned(self.place(LOAD_CORE, work), &command).output()?;
        match serde_json::from_slice::<Value>(&said.stdout) {
            Ok(v) if v["done"].as_u64() > Some(0) && v["not_2xx"].as_u64() == Some(0) => Ok(()),
            _ => Err(io::Error::other(format!(
                "no good answer through it: {}{}",
                String::from_utf8_lossy(&said.stdout),
                String::from_utf8_lossy(&said.stderr)
            ))),
        }
    }

    /// Runs a load generator and takes the proxy's use of the processor over that time.
    fn measured(
        &self,
        bed: &Bed,
        work: Work,
        command: &[String],
        read: fn(&str) -> Option<Values>,
    ) -> io::Result<Values> {
        self.measured_as(bed, work, command, read).map(|(values, _)| values)
    }

    /// The same for our own load generator, with all that it said.
    pub(crate) fn measured_with(
        &self,
        bed: &Bed,
        work: Work,
        command: &[String],
    ) -> io::Result<(Values, Value)> {
        let (values, text) = self.measured_as(bed, work, command, from_load)?;
        Ok((values, serde_json::from_str(text.trim().lines().last().unwrap_or_default())?))
    }

    fn measured_as(
        &self,
        bed: &Bed,
        work: Work,
        command: &[String],
        read: fn(&str) -> Option<Values>,
    ) -> io::Result<(Values, String)> {
        let cpu = || bed.proxies.iter().map(Process::cpu_ns).sum::<u64>();
        let (proxy, upstream, since) = (cpu(), bed.upstream.cpu_ns(), Since::now());
        let said = pinned(self.place(LOAD_CORE, work), command).stderr(Stdio::null()).output()?;
        let used = cpu() - proxy;
        let upstream_used = bed.upstream.cpu_ns() - upstream;
        let text = String::from_utf8_lossy(&said.stdout);
        let mut values =
            read(&text).ok_or_else(|| io::Error::other(format!("the load generator said: {text}")))?;
        let wall_ns = since.secs() * 1e9;
        let done = values.get("done").copied().unwrap_or(0.0).max(1.0);
        values.insert("cpu_us".into(), used as f64 / 1000.0 / done);
        values.insert("proxy_pct".into(), used as f64 / wall_ns * 100.0);
        values.insert("load_core_pct".into(), since.core_pct(LOAD_CORE));
        values.insert("foreign_pct".into(), since.foreign_pct(used + upstream_used));
        Ok((values, text.into_owned()))
    }

    fn idle(&self, bed: &Bed) -> io::Result<Values> {
        let rss = || bed.proxies.iter().map(Process::rss_kib).sum::<u64>() as f64;
        sleep(Duration::from_millis(700));
        let before = rss();
        let command = self.load("idle", bed.port, &format!("--conns {IDLE_CONNS}"));
        let mut command: Command = pinned(self.place(LOAD_CORE, Work::Idle), &command);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(client.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        sleep(Duration::from_secs(1));
        let with = rss();
        drop(client.stdin.take());
        let mut rest = String::new();
        said.read_to_string(&mut rest)?;
        client.wait()?;
        let value: Value = serde_json::from_str(&rest)?;
        let open = value["still_open"].as_f64().unwrap_or(0.0);
        let wrong = value["errors"].as_f64().unwrap_or(0.0) + value["not_2xx"].as_f64().unwrap_or(0.0);
        Ok(Values::from([
            ("rss_mib".into(), before / 1024.0),
            ("rss_idle_mib".into(), with / 1024.0),
            ("kib_per_conn".into(), (with - before) / open.max(1.0)),
            ("errors".into(), wrong + IDLE_CONNS as f64 - open),
        ]))
    }
}

/// Reads what our own load generator prints.
fn from_load(text: &str) -> Option<Values> {
    let value: Value = serde_json::from_str(text.trim().lines().last()?).ok()?;
    let number = |name: &str| value[name].as_f64().unwrap_or(0.0);
    let mut values = Values::from([
        ("done".into(), value["done"].as_f64()?),
        ("per_sec".into(), number("per_sec")),
        ("errors".into(), number("errors") + number("not_2xx") + number("unanswered")),
    ]);
    for name in ["latency_us", "transit_us"] {
        for q in ["p50", "p90", "p99", "p99.9", "max"] {
            values.extend(value[name][q].as_f64().map(|v| (q.to_owned(), v)));
        }
    }
    values.extend(value["first_us"]["p50"].as_f64().map(|v| ("first_p50".to_owned(), v)));
    Some(values)
}

/// h2load against ten paths, with the same request as our own clients send.
fn h2load(port: u16, extent: &str) -> Vec<String> {
    let line = format!("h2load -t1 -c8 -m8 {extent} --connect-to=127.0.0.1:{port} -H x-hash:k1");
    let paths = (0..SMALL_TABLE).map(|k| format!("http://app.bench.local/agents/{k}/run"));
    line.split(' ').map(str::to_owned).chain(paths).collect()
}

/// Reads what h2load prints.
fn from_h2load(text: &str) -> Option<Values> {
    let line = |start: &str| text.lines().find_map(|l| l.trim().strip_prefix(start));
    let before = |text: &str, word: &str| -> Option<f64> {
        let (head, _) = text.split_once(word)?;
        head.trim().rsplit([' ', ',']).next()?.parse().ok()
    };
    let requests = line("requests:")?;
    let codes = line("status codes:")?;
    let done = before(requests, " succeeded")?;
    let wrong = before(requests, " failed")?
        + before(codes, " 3xx")?
        + before(codes, " 4xx")?
        + before(codes, " 5xx")?;
    Some(Values::from([
        ("done".into(), done),
        ("per_sec".into(), before(line("finished in")?, " req/s")?),
        ("errors".into(), wrong),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_prints_is_read() {
        let text = "finished in 2.00s, 110950.50 req/s, 118.12MB/s\n\
                    requests: 221901 total, 221965 started, 221901 done, 221900 succeeded, 1 failed, 0 errored, 0 timeout\n\
                    status codes: 221899 2xx, 0 3xx, 2 4xx, 0 5xx\n";
        let values = from_h2load(text).unwrap_or_default();
        assert_eq!(values["done"], 221_900.0);
        assert_eq!(values["per_sec"], 110_950.5);
        assert_eq!(values["errors"], 3.0);
    }
}

//! From `pilotfish apply` to the first answer of an agent that did not exist: control plane, node and caller's sidecar as processes,
//! an agent that does nothing but listen, and a caller that asks again every 2 ms. Then agents that are started by the
//! first call, which waits. The agent's own start (until its port accepts) is measured beside it, and taken off.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::control::Control;
use crate::process::{Place, Process};
use crate::work::Values;

/// Agents that are started in each way.
const STARTS: usize = 10;
/// A new agent that has not answered by then never will.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two questions of the caller.
const EVERY: Duration = Duration::from_millis(2);

/// Runs all of it once.
///
/// # Errors
/// Something does not start, or an agent never answers.
pub fn run(binary: &Path, exe: &Path, dir: &Path, port: u16, quick: bool) -> io::Result<Values> {
    let dir = dir.join("start");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let bed = Bed::start(binary, exe, &dir, port)?;
    let measured = bed.measure(if quick { 3 } else { STARTS });
    measured.map_err(|error| {
        io::Error::other(format!("{error}; the node said: {}", last_line(&dir.join("node.log"))))
    })
}

fn last_line(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default().lines().last().unwrap_or("nothing").to_owned()
}

/// Everything that runs before an agent does.
struct Bed {
    control: Control,
    _node: Process,
    _caller: Process,
    exe: PathBuf,
    outbound: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn start(binary: &Path, exe: &Path, dir: &Path, port: u16) -> io::Result<Bed> {
        let (first, second) = (Place { core: 0, real_time: false }, Place { core: 1, real_time: false });
        let control = Control::start(binary, dir, port, first)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let proxy = binary.with_file_name("pilotfish-proxy");
        let (url, outbound) =
            (format!("https://127.0.0.1:{port}"), SocketAddr::from(([127, 0, 0, 1], port + 1)));
        let token = |name: &str, token: String| -> io::Result<String> {
            let path = dir.join(name);
            fs::write(&path, token)?;
            Ok(path.display().to_string())
        };
        let text = |path: &Path| path.display().to_string();
        let node_token = token("node.token", runtime.block_on(control.node_token("bench-node"))?)?;
        let ports = format!("{}-{}", port + 100, port + 400);
        let node: Vec<String> = [
            &text(binary),
            "node",
            "--control",
            &url,
            "--token-file",
            &node_token,
            "--name",
            "bench-node",
            "--data",
            &text(&dir.join("node")),
            "--proxy",
            &text(&proxy),
            "--ports",
            &ports,
            "--advertise",
            "127.0.0.1",
            "--no-nvml",
            "--region",
            "here",
        ]
        .map(str::to_owned)
        .into();
        let node = Process::start(first, &node, &dir.join("node.log"))?;
        let caller_token = token("caller.token", runtime.block_on(control.token("bench", "caller"))?)?;
        let caller: Vec<String> = [
            &text(&proxy),
            "--control",
            &url,
            "--token-file",
            &caller_token,
            "--agent",
            "caller",
            "--namespace",
            "bench",
            "--state-dir",
            &text(&dir.join("caller")),
            "--outbound",
            &outbound.to_string(),
            "--inbound",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
        .into();
        let mut caller = Process::start(second, &caller, &dir.join("caller.log"))?;
        caller.wait_for_port(outbound.port())?;
        std::thread::sleep(Duration::from_secs(2));
        Ok(Bed { control, _node: node, _caller: caller, exe: exe.to_owned(), outbound, runtime })
    }

    fn measure(&self, starts: usize) -> io::Result<Values> {
        let mut own: Vec<f64> = (0..starts).map(|_| self.own_start()).collect::<io::Result<_>>()?;
        let mut first: Vec<f64> =
            (0..starts).map(|number| self.applied(number)).collect::<io::Result<_>>()?;
        let mut called: Vec<f64> =
            (0..starts).map(|number| self.called(number)).collect::<io::Result<_>>()?;
        let (own, first_max) = (median(&mut own), first.iter().copied().fold(0.0, f64::max));
        let (first, called) = (median(&mut first), median(&mut called));
        Ok(Values::from([
            ("own_ms".to_owned(), own),
            ("first_ms".to_owned(), first),
            ("first_max_ms".to_owned(), first_max),
            ("beyond_ms".to_owned(), first - own),
            ("called_ms".to_owned(), called),
            ("called_beyond_ms".to_owned(), called - own),
        ]))
    }

    /// The command of an agent that listens on $PORT.
    fn command(&self) -> String {
        format!("exec {} upstream --port $PORT", self.exe.display())
    }

    /// Milliseconds until the agent's port accepts when a shell starts it.
    fn own_start(&self) -> io::Result<f64> {
        let port = self.outbound.port() + 1;
        let start = Instant::now();
        let mut command = Command::new("sh");
        command
            .args(["-c", &self.command()])
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if start.elapsed() > LIMIT {
                return Err(io::Error::other("the agent does not listen"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let took = start.elapsed();
        child.kill()?;
        child.wait()?;
        Ok(took.as_secs_f64() * 1e3)
    }

    fn document(&self, name: &str, deployment: &str) -> String {
        format!(
            "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {{name: {name}, namespace: bench}}\nspec:\n  \
             agents:\n  - name: {name}\n    replicas: 1\n    capabilities: [{name}]\n    command: [sh, -c, \
             '{}']\n    resources: {{cpu: 10m, memory: 16Mi}}\n{deployment}",
            self.command()
        )
    }

    /// Milliseconds from the start of `pilotfish apply` to the first answer.
    fn applied(&self, number: usize) -> io::Result<f64> {
        let name = format!("applied-{number}");
        let document = self.document(&name, "");
        let start = Instant::now();
        self.runtime.block_on(self.control.apply_at_once(&document))?;
        loop {
            if self.ask(&name)?.starts_with("HTTP/1.1 200") {
                return Ok(start.elapsed().as_secs_f64() * 1e3);
            }
            if start.elapsed() > LIMIT {
                return Err(io::Error::other(format!("{name} never answered")));
            }
            std::thread::sleep(EVERY);
        }
    }

    /// Milliseconds that the first call of an agent takes which is started by it.
    fn called(&self, number: usize) -> io::Result<f64> {
        let name = format!("called-{number}");
        let document = self.document(&name, "    deployment: {strategy: just_in_time}\n");
        self.runtime.block_on(self.control.apply(&document))?;
        let start = Instant::now();
        let said = self.ask(&name)?;
        if !said.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(format!("{name}: {said}")));
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    fn ask(&self, capability: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.outbound)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET / HTTP/1.1\r\nhost: {capability}.capability.mesh\r\nagent-capability: {capability}\r\nconnection: \
             close\r\n\r\n"
        )?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::INFINITY)
}

//! Who runs where, the YAML that every sidecar reads, and the way to the calling agent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::access_log::AccessLog;
use crate::children::{Children, Failure};
use crate::job::{Job, Report};

const RULES: &str = include_str!("../../agent-service-mesh.yaml");
const ENDPOINTS: &str = include_str!("../mesh/endpoints.yaml");
const CAPABILITIES: &str = include_str!("../mesh/capabilities.yaml");
const RULES_FILE: &str = "agent-service-mesh.yaml";

/// The name of the calling agent.
pub const CALLER: &str = "caller";

/// One agent of the demo.
struct Member {
    /// The process.
    name: &'static str,
    version: &'static str,
    /// The AgentCluster agent that it is a replica of.
    agent: &'static str,
    /// The port number in `mesh/endpoints.yaml` that stands for its sidecar's inbound port.
    stands_for: &'static str,
}

const MEMBERS: [Member; 5] = [
    Member { name: "nlp-v1-a", version: "v1", agent: "nlp-agent", stands_for: "25001" },
    Member { name: "nlp-v1-b", version: "v1", agent: "nlp-agent", stands_for: "25002" },
    Member { name: "nlp-v2-a", version: "v2", agent: "nlp-agent-next", stands_for: "25003" },
    Member { name: "nlp-v2-b", version: "v2", agent: "nlp-agent-next", stands_for: "25004" },
    Member { name: "streaming-agent", version: "v1", agent: "streaming-agent", stands_for: "25005" },
];

/// The two programs that the demo starts over and over.
pub struct Programs {
    /// `pilotfish-proxy`.
    pub proxy: PathBuf,
    /// `demo-agent`.
    pub agent: PathBuf,
}

/// Where one sidecar listens, read from its ready line.
#[derive(Debug, Clone)]
struct Sidecar {
    outbound: SocketAddr,
    inbound: SocketAddr,
    admin: SocketAddr,
    admin_socket: String,
}

/// The running mesh, seen from the calling agent.
pub struct Mesh {
    /// Every process.
    pub children: Children,
    /// What the caller's sidecar wrote about each request.
    pub log: AccessLog,
    folder: PathBuf,
    caller: Caller,
    sidecar: Sidecar,
}

struct Caller {
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Mesh {
    /// Writes the YAML into `folder`, starts all agents and their sidecars, the caller's last.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub async fn start(
        programs: &Programs,
        folder: &Path,
        children: Children,
        progress: impl Fn(&str),
    ) -> Result<Mesh, Failure> {
        let mut start = Start { programs, folder, children };
        std::fs::create_dir_all(folder.join("config"))?;
        std::fs::write(folder.join("config").join(RULES_FILE), RULES)?;
        std::fs::write(folder.join("config/capabilities.yaml"), CAPABILITIES)?;
        progress("starting five agents, each with its own pilotfish-proxy");
        let mut endpoints = ENDPOINTS.to_string();
        for member in &MEMBERS {
            let sidecar = start.member(member).await?;
            endpoints = endpoints.replace(member.stands_for, &sidecar.inbound.port().to_string());
        }
        replace_file(folder, "endpoints.yaml", &endpoints)?;
        progress("starting the calling agent and its pilotfish-proxy");
        let (caller, sidecar) = start.caller().await?;
        let log = AccessLog::new(folder.join("access.log"));
        let folder = folder.to_path_buf();
        let mut mesh = Mesh { children: start.children, log, folder, caller, sidecar };
        let outbound = mesh.sidecar.outbound;
        mesh.order(&Job::UseSidecar { outbound }).await?;
        Ok(mesh)
    }

    /// Gives the calling agent a job.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn order(&mut self, job: &Job) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(job).map_err(|error| Failure::new(error.to_string()))?;
        line.push(b'\n');
        self.caller.stdin.write_all(&line).await?;
        Ok(self.caller.stdin.flush().await?)
    }

    /// Waits for the calling agent's next report.
    ///
    /// # Errors
    /// When the job failed or a process ended.
    pub async fn report(&mut self) -> Result<Report, Failure> {
        let Some(line) = self.caller.stdout.next_line().await? else {
            return Err(Failure::of(CALLER, "the calling agent ended"));
        };
        self.children.all_alive()?;
        match serde_json::from_str(&line) {
            Ok(Report::Failed { what }) => Err(Failure::of(
                &sidecar_of(CALLER),
                format!("the calling agent could not do its job: {what}"),
            )),
            Ok(report) => Ok(report),
            Err(error) => Err(Failure::new(format!("the calling agent reported {line:?}: {error}"))),
        }
    }

    /// Rewrites the rules for v1 and v2 with other weights, as an editor would: in the file that the sidecars watch.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_weights(&self, v1: u32, v2: u32) -> Result<(), Failure> {
        let mut weights = [v1, v2].into_iter();
        let edited: String = RULES
            .lines()
            .map(|line| match (line.split_once("weight:"), weights.len()) {
                (Some((indent, _)), 1..) => {
                    format!("{indent}weight: {}\n", weights.next().unwrap_or_default())
                }
                _ => format!("{line}\n"),
            })
            .collect();
        replace_file(&self.folder, RULES_FILE, &edited)
    }

    /// How to send a request by hand, with the ports of this run.
    pub fn instructions(&self) -> String {
        let Sidecar { outbound, admin, admin_socket, .. } = &self.sidecar;
        let config = self.folder.join("config");
        format!(
            "The mesh is still running. In another terminal:\n\n  \
             curl -H 'Host: agent-communication' -H 'agent-type: nlp-agent' http://{outbound}/\n  \
             curl -H 'Host: agent-communication' -H 'agent-type: nlp-agent' -H 'agent-affinity-key: me' http://{outbound}/\n  \
             curl -H 'agent-capability: sentiment_analysis' -d 'where is my refund?' http://{outbound}/\n  \
             curl -N -H 'Host: agent-communication' -H 'communication-pattern: streaming' 'http://{outbound}/stream'\n  \
             curl http://{admin}/metrics\n  \
             curl --unix-socket {admin_socket} http://sidecar/config\n  \
             curl --unix-socket {admin_socket} 'http://sidecar/why?host=agent-communication&header=agent-type:nlp-agent'\n  \
             tail -f {}\n  \
             ${{EDITOR:-vi}} {}    (save, and the next request follows it)\n\n\
             Ctrl-C ends it.",
            self.folder.join("access.log").display(),
            config.join(RULES_FILE).display(),
        )
    }
}

/// What the processes are called in logs and messages.
pub fn sidecar_of(agent: &str) -> String {
    format!("{agent}-sidecar")
}

struct Start<'a> {
    programs: &'a Programs,
    folder: &'a Path,
    children: Children,
}

impl Start<'_> {
    async fn member(&mut self, member: &Member) -> Result<Sidecar, Failure> {
        let mut command = Command::new(&self.programs.agent);
        command.args(["--name", member.name, "--version", member.version, "--until-stdin-ends"]);
        let ready = self.children.start(member.name, command, "demo-agent: listening ").await?;
        self.sidecar(member.name, member.agent, first_word(&ready)).await
    }

    async fn caller(&mut self) -> Result<(Caller, Sidecar), Failure> {
        let mut command = Command::new(&self.programs.agent);
        command.args(["--name", CALLER, "--jobs"]);
        let (ready, stdin, stdout) =
            self.children.start_with_pipes(CALLER, command, "demo-agent: listening ").await?;
        let sidecar = self.sidecar(CALLER, CALLER, first_word(&ready)).await?;
        Ok((Caller { stdin, stdout: BufReader::new(stdout).lines() }, sidecar))
    }

    async fn sidecar(&mut self, name: &str, agent: &str, app: &str) -> Result<Sidecar, Failure> {
        let mut command = Command::new(&self.programs.proxy);
        command.arg("--config").arg(self.folder.join("config"));
        command.args(["--agent", agent, "--namespace", "default", "--app", app, "--workers", "1"]);
        for listener in ["--outbound", "--inbound", "--admin"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.arg("--admin-socket").arg(self.folder.join(format!("{name}.sock")));
        if name == CALLER {
            command.args(["--access-log", "json", "--access-log-file"]).arg(self.folder.join("access.log"));
        }
        let process = sidecar_of(name);
        let ready = self.children.start(&process, command, "pilotfish-proxy: listening ").await?;
        let address = |key: &str| {
            let found = field(&ready, key).and_then(|value| value.parse().ok());
            found.ok_or_else(|| Failure::of(&process, format!("no {key}= in the ready line: {ready}")))
        };
        let admin_socket = field(&ready, "admin-socket").unwrap_or_default().to_string();
        Ok(Sidecar {
            outbound: address("outbound")?,
            inbound: address("inbound")?,
            admin: address("admin")?,
            admin_socket,
        })
    }
}

/// Puts a whole file in place at once, so that no sidecar ever reads half of it.
fn replace_file(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let draft = folder.join(format!("{name}.draft"));
    std::fs::write(&draft, text)?;
    Ok(std::fs::rename(draft, folder.join("config").join(name))?)
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ')
        .filter_map(|word| word.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value)
}

//! Who runs where, the YAML that is pushed to every sidecar, and the way to the calling agent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::access_log::AccessLog;
use crate::children::{Children, Failure};
use crate::control::Control;
use crate::job::{Job, Report};

const RULES: &str = include_str!("../../agent-service-mesh.yaml");
const SERVICES: &str = include_str!("../mesh/services.yaml");
const CAPABILITIES: &str = include_str!("../mesh/capabilities.yaml");
const PLACED: &str = include_str!("../mesh/placed.yaml");
const POLICIES: &str = include_str!("../mesh/policies.yaml");
const GPUS: &str = include_str!("../mesh/gpus.yaml");
const RULES_FILE: &str = "agent-service-mesh.yaml";

const PLACED_FILE: &str = "placed.yaml";
/// The node's name, and that of its process.
const NODE: &str = "demo-node";
/// Sidecars go on for 2 s after SIGTERM, then the agents end.
const DISMISSED: std::time::Duration = std::time::Duration::from_secs(15);

/// The name of the calling agent.
pub const CALLER: &str = "caller";

/// One agent of the demo.
struct Member {
    /// The process.
    name: &'static str,
    version: &'static str,
    /// The agent that its sidecar joins as.
    agent: &'static str,
    /// What it can do besides what `mesh/capabilities.yaml` says.
    capability: Option<&'static str>,
}

const SENTIMENT: Option<&str> = Some("sentiment_analysis");
const MEMBERS: [Member; 5] = [
    Member { name: "nlp-v1-a", version: "v1", agent: "nlp-agent", capability: None },
    Member { name: "nlp-v1-b", version: "v1", agent: "nlp-agent", capability: None },
    Member { name: "nlp-v2-a", version: "v2", agent: "nlp-agent", capability: SENTIMENT },
    Member { name: "nlp-v2-b", version: "v2", agent: "nlp-agent", capability: SENTIMENT },
    Member { name: "streaming-agent", version: "v1", agent: "streaming-agent", capability: None },
];

impl Member {
    /// Where the agent finds its sidecar.
    fn sidecar_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.outbound", self.name))
    }

    fn command(&self, program: &Path, listen: &str, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.args([
            "--name",
            self.name,
            "--version",
            self.version,
            "--listen",
            listen,
            "--until-stdin-ends",
        ]);
        command.arg("--sidecar-file").arg(self.sidecar_file(folder));
        command
    }
}

/// How an agent's ready line begins.
const AGENT_READY: &str = "demo-agent: listening ";

/// How many sidecars there are, the caller's included.
pub const SIDECARS: usize = MEMBERS.len() + 1;

/// The programs that the demo starts.
pub struct Programs {
    /// `pilotfish-proxy`.
    pub proxy: PathBuf,
    /// `pilotfish`.
    pub control: PathBuf,
    /// `demo-agent`.
    pub agent: PathBuf,
}

/// Where one sidecar listens, read from its ready line.
#[derive(Debug, Clone)]
struct Sidecar {
    outbound: SocketAddr,
    admin: SocketAddr,
    admin_socket: String,
}

/// The running mesh, seen from the calling agent.
pub struct Mesh {
    /// Every process.
    pub children: Children,
    /// The control plane.
    pub control: Control,
    /// What the caller's sidecar wrote about each request.
    pub log: AccessLog,
    folder: PathBuf,
    caller: Caller,
    sidecar: Sidecar,
    /// The agents' program, and where each of them listens.
    program: PathBuf,
    proxy: PathBuf,
    agents: BTreeMap<&'static str, String>,
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
        let mut children = children;
        progress("starting the control plane: pilotfish serve");
        let control = Control::start(&programs.control, folder.join("control"), &mut children).await?;
        let mut start = Start { programs, folder, children, control, agents: BTreeMap::new() };
        progress("five agents: a token for each, a pilotfish-proxy beside each, which joins with it");
        for agent in ["nlp-agent", "streaming-agent"] {
            let members: Vec<&Member> = MEMBERS.iter().filter(|member| member.agent == agent).collect();
            let token = start.control.token(agent, members.len()).await?;
            for member in members {
                start.member(member, &token).await?;
            }
        }
        progress("the calling agent and its pilotfish-proxy");
        let token = start.control.token(CALLER, 1).await?;
        let (caller, sidecar) = start.caller(&token).await?;
        let Start { children, control, agents, .. } = start;
        let log = AccessLog::new(folder.join("access.log"));
        let folder = folder.to_path_buf();
        let (program, proxy) = (programs.agent.clone(), programs.proxy.clone());
        let mut mesh = Mesh { children, control, log, folder, caller, sidecar, program, proxy, agents };
        progress("pilotfish apply: the rules, the services, who can do what");
        mesh.apply_all().await?;
        let outbound = mesh.sidecar.outbound;
        mesh.order(&Job::UseSidecar { outbound }).await?;
        Ok(mesh)
    }

    async fn apply_all(&self) -> Result<(), Failure> {
        let documents = self.folder.join("documents");
        std::fs::create_dir_all(&documents)?;
        for (name, text) in
            [(RULES_FILE, RULES), ("services.yaml", SERVICES), ("capabilities.yaml", CAPABILITIES)]
        {
            std::fs::write(documents.join(name), text)?;
        }
        self.control.cli(&["apply", "-f", &documents.display().to_string(), "--wait=30s"]).await?;
        Ok(())
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

    /// The file of the rules, with other weights for v1 and v2.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rules_with_weights(&self, v1: u32, v2: u32) -> Result<String, Failure> {
        let mut weights = [v1, v2].into_iter();
        let edited = RULES.lines().map(|line| match (line.split_once("weight:"), weights.len()) {
            (Some((indent, _)), 1..) => format!("{indent}weight: {}\n", weights.next().unwrap_or_default()),
            _ => format!("{line}\n"),
        });
        self.write("reweighed.yaml", &edited.collect::<String>())
    }

    /// The file of the rules, with reads that are asked for again when an agent breaks off.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rules_with_retries(&self) -> Result<String, Failure> {
        let attempts = "      attempts: 3\n";
        let more = "      attempts: 3\n      retryOn: connect-failure,refused-stream,reset,gateway-error\n";
        self.write("retries.yaml", &RULES.replace(attempts, more))
    }

    /// kill -9 of an agent; its sidecar goes on.
    ///
    /// # Errors
    /// There is no such agent.
    pub async fn kill_agent(&mut self, name: &str) -> Result<(), Failure> {
        let process = self.children.take(name);
        let mut process = process.ok_or_else(|| Failure::new(format!("there is no agent {name}")))?;
        process.kill().await?;
        Ok(())
    }

    /// Starts an agent again where it was.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn restart_agent(&mut self, name: &str) -> Result<(), Failure> {
        let member = MEMBERS.iter().find(|member| member.name == name);
        let (Some(member), Some(listen)) = (member, self.agents.get(name)) else {
            return Err(Failure::new(format!("there is no agent {name}")));
        };
        let command = member.command(&self.program, listen, &self.folder);
        self.children.start(name, command, AGENT_READY).await?;
        Ok(())
    }

    /// Makes this machine a node (with two cards, it says), on which the control plane may start agents.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start_node(&mut self) -> Result<(), Failure> {
        let token = self.control.node_token(NODE).await?;
        let mut command = self.control.command();
        command.args(["node", "--name", NODE, "--no-nvml", "--advertise", "127.0.0.1", "--cgroup", "off"]);
        command.arg("--control").arg(format!("https://{}", self.control.address));
        command.arg("--data").arg(self.folder.join(NODE)).arg("--proxy").arg(&self.proxy);
        command.arg("--gpu-file").arg(self.write("gpus.yaml", GPUS)?).env("PILOTFISH_TOKEN", token);
        self.children.start(NODE, command, "pilotfish: node ").await?;
        Ok(())
    }

    /// Asks for agents that the control plane starts.
    ///
    /// # Errors
    /// They are refused.
    pub async fn apply_placed(&self) -> Result<(), Failure> {
        let program = std::path::absolute(&self.program)?;
        let file =
            self.write(PLACED_FILE, &PLACED.replace("PROGRAM,", &format!("{},", program.display())))?;
        self.control.cli(&["apply", "-f", &file]).await?;
        Ok(())
    }

    /// The file with who may call whom, for `pilotfish apply`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn policies(&self) -> Result<String, Failure> {
        self.write("policies.yaml", POLICIES)
    }

    /// Where everything of this run is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// As paths in what programs say begin with it, so that it can be left out.
    pub fn folder_text(&self) -> String {
        format!("{}/", self.folder.display())
    }

    /// What an agent's sidecar keeps.
    pub fn state_of(&self, name: &str) -> PathBuf {
        self.folder.join("state").join(name)
    }

    /// Lets the agents go that the control plane started: they do not end with their node.
    ///
    /// # Errors
    /// They do not end.
    pub async fn dismiss(&self) -> Result<(), Failure> {
        let file = self.folder.join(PLACED_FILE).display().to_string();
        self.control.cli(&["delete", "-f", &file, "--ignore-not-found"]).await?;
        let begin = std::time::Instant::now();
        loop {
            let text = self.control.cli(&["placement", "-o", "json"]).await?;
            if text.contains("\"replicas\": []") {
                return Ok(());
            }
            if begin.elapsed() > DISMISSED {
                return Err(Failure::of(
                    NODE,
                    format!("not all agents ended that were started there: {text}"),
                ));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// The file of the rules, with a mistake in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rules_with_a_mistake(&self) -> Result<String, Failure> {
        self.write("mistake.yaml", &RULES.replacen("weight: 80", "wieght: 80", 1))
    }

    fn write(&self, name: &str, text: &str) -> Result<String, Failure> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// How to send a request by hand, with the ports of this run.
    pub fn instructions(&self) -> String {
        let Sidecar { outbound, admin, admin_socket } = &self.sidecar;
        let data = self.control.data().display();
        let rules = self.folder.join("documents").join(RULES_FILE);
        format!(
            "The mesh is still running. In another terminal:\n\n  \
             curl -H 'Host: agent-communication' -H 'agent-type: nlp-agent' http://{outbound}/\n  \
             curl -H 'Host: agent-communication' -H 'agent-type: nlp-agent' -H 'agent-affinity-key: me' http://{outbound}/\n  \
             curl -H 'agent-capability: sentiment_analysis' -d 'where is my refund?' http://{outbound}/\n  \
             curl -N -H 'Host: agent-communication' -H 'communication-pattern: streaming' 'http://{outbound}/stream'\n  \
             curl http://{admin}/metrics\n  \
             curl --unix-socket {admin_socket} 'http://sidecar/why?host=agent-communication&header=agent-type:nlp-agent'\n  \
             tail -f {log}\n\n  \
             export PILOTFISH_DATA={data}\n  \
             target/release/pilotfish status --watch\n  \
             target/release/pilotfish agents --capability natural_language_understanding\n  \
             target/release/pilotfish placement explain painter\n  \
             target/release/pilotfish apply -f {policies} --wait     # who may call whom\n  \
             target/release/pilotfish authz matrix\n  \
             target/release/pilotfish audit --denied\n  \
             ${{EDITOR:-vi}} {rules} && target/release/pilotfish apply -f {rules} --wait\n  \
             target/release/pilotfish ui\n\n\
             Ctrl-C ends it.",
            log = self.folder.join("access.log").display(),
            rules = rules.display(),
            policies = self.folder.join("policies.yaml").display(),
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
    control: Control,
    agents: BTreeMap<&'static str, String>,
}

impl Start<'_> {
    async fn member(&mut self, member: &Member, token: &str) -> Result<Sidecar, Failure> {
        let command = member.command(&self.programs.agent, "127.0.0.1:0", self.folder);
        let ready = self.children.start(member.name, command, AGENT_READY).await?;
        self.agents.insert(member.name, first_word(&ready).to_string());
        let mut command = self.sidecar(member.name, member.agent, first_word(&ready), token);
        command.args(["--label", &format!("app={}", member.agent)]);
        command.args(["--label", &format!("version={}", member.version)]);
        command.args(member.capability.iter().flat_map(|capability| ["--capability", capability]));
        let sidecar = self.run(member.name, command).await?;
        std::fs::write(member.sidecar_file(self.folder), sidecar.outbound.to_string())?;
        Ok(sidecar)
    }

    async fn caller(&mut self, token: &str) -> Result<(Caller, Sidecar), Failure> {
        let mut command = Command::new(&self.programs.agent);
        command.args(["--name", CALLER, "--jobs"]);
        let (ready, stdin, stdout) = self.children.start_with_pipes(CALLER, command, AGENT_READY).await?;
        let mut command = self.sidecar(CALLER, CALLER, first_word(&ready), token);
        command.args(["--access-log", "json", "--access-log-file"]).arg(self.folder.join("access.log"));
        let sidecar = self.run(CALLER, command).await?;
        Ok((Caller { stdin, stdout: BufReader::new(stdout).lines() }, sidecar))
    }

    fn sidecar(&self, name: &str, agent: &str, app: &str, token: &str) -> Command {
        let mut command = Command::new(&self.programs.proxy);
        command.arg("--control").arg(format!("https://{}", self.control.address));
        command.env("PILOTFISH_TOKEN", token);
        command.arg("--state-dir").arg(self.folder.join("state").join(name));
        command.args(["--agent", agent, "--namespace", "default", "--app", app, "--workers", "1"]);
        for listener in ["--outbound", "--inbound", "--admin"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        command.arg("--admin-socket").arg(self.folder.join(format!("{name}.sock")));
        command
    }

    async fn run(&mut self, name: &str, command: Command) -> Result<Sidecar, Failure> {
        let process = sidecar_of(name);
        let ready = self.children.start(&process, command, "pilotfish-proxy: listening ").await?;
        let address = |key: &str| {
            let found = field(&ready, key).and_then(|value| value.parse().ok());
            found.ok_or_else(|| Failure::of(&process, format!("no {key}= in the ready line: {ready}")))
        };
        let admin_socket = field(&ready, "admin-socket").unwrap_or_default().to_string();
        Ok(Sidecar { outbound: address("outbound")?, admin: address("admin")?, admin_socket })
    }
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

//! The control plane of the demo: the process, and the command line that talks to it.

use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::Command;

use crate::children::{Children, Failure};

/// The name of the process in logs and messages.
pub const CONTROL: &str = "control-plane";

/// `pilotfish serve`, and `pilotfish` beside it.
pub struct Control {
    program: PathBuf,
    data: PathBuf,
    /// Where sidecars reach it; the same after a restart.
    pub address: String,
    /// Where the page is.
    pub page: String,
}

/// What `pilotfish status -o json` says, as far as the demo looks.
#[derive(Debug, Deserialize)]
pub struct Status {
    /// The newest version of the documents.
    pub documents: u64,
    /// Every sidecar.
    pub sidecars: Vec<SidecarStatus>,
}

/// One sidecar of [`Status`].
#[derive(Debug, Deserialize)]
pub struct SidecarStatus {
    /// Its process.
    pub instance: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// `ready` when all is well.
    pub status: String,
    /// The version of the documents that it serves.
    pub serving: u64,
    /// Seconds since 1970.
    #[serde(default)]
    pub certificate_expires: Option<u64>,
}

impl Control {
    /// Starts it for the first time: it makes its certificate authority.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn start(program: &Path, data: PathBuf, children: &mut Children) -> Result<Control, Failure> {
        let mut control = Control {
            program: program.to_path_buf(),
            data,
            address: "127.0.0.1:0".into(),
            page: "127.0.0.1:0".into(),
        };
        control.run(children).await?;
        Ok(control)
    }

    async fn run(&mut self, children: &mut Children) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--listen", &self.address, "--local", &self.page, "--leaf-ttl", LEAF]);
        let ready = children.start(CONTROL, command, "pilotfish: serving ").await?;
        let field = |key: &str| {
            let found =
                ready.split(' ').filter_map(|word| word.split_once('=')).find(|(name, _)| *name == key);
            let missing = || Failure::of(CONTROL, format!("no {key}= in the ready line: {ready}"));
            found.map(|(_, value)| value.to_owned()).ok_or_else(missing)
        };
        let (address, page) = (field("listen")?, field("local")?);
        (self.address, self.page) = (address, page);
        Ok(())
    }

    /// Kills it with -9.
    ///
    /// # Errors
    /// It is not there.
    pub async fn kill(&self, children: &mut Children) -> Result<(), Failure> {
        let mut process = children.take(CONTROL).ok_or_else(|| Failure::new("there is no control plane"))?;
        if let Some(pid) = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            kill_process(pid, Signal::KILL).map_err(std::io::Error::from)?;
        }
        process.wait().await?;
        Ok(())
    }

    /// Starts it again on the same data and the same address.
    ///
    /// # Errors
    /// It does not get ready.
    pub async fn restart(&mut self, children: &mut Children) -> Result<(), Failure> {
        self.run(children).await
    }

    /// Runs `pilotfish` with these arguments against this control plane.
    ///
    /// # Errors
    /// It cannot be started. How it ended is for the caller to judge.
    pub async fn try_cli(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--data").arg(&self.data).kill_on_drop(true);
        Ok(command.stdin(std::process::Stdio::null()).output().await?)
    }

    /// Runs `pilotfish` and gives its standard output.
    ///
    /// # Errors
    /// It ends with anything but 0.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.try_cli(arguments).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(Failure::of(
            CONTROL,
            format!("pilotfish {} ended with {}: {said}", arguments.join(" "), output.status),
        ))
    }

    /// A join token for as many sidecars as `uses`.
    ///
    /// # Errors
    /// As [`Control::cli`].
    pub async fn token(&self, agent: &str, uses: usize) -> Result<String, Failure> {
        let uses = uses.to_string();
        let arguments = ["token", "create", "--agent", agent, "--namespace", "default", "--uses", &uses];
        Ok(self.cli(&arguments).await?.trim().to_owned())
    }

    /// A join token for a node.
    ///
    /// # Errors
    /// As [`Control::cli`].
    pub async fn node_token(&self, node: &str) -> Result<String, Failure> {
        Ok(self.cli(&["token", "create", "--node", node]).await?.trim().to_owned())
    }

    /// `pilotfish`, to be started as something else.
    pub fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Every sidecar as the control plane knows it.
    ///
    /// # Errors
    /// As [`Control::cli`], or the answer cannot be read.
    pub async fn status(&self) -> Result<Status, Failure> {
        let text = self.cli(&["status", "-o", "json"]).await?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::of(CONTROL, format!("status -o json: {error}: {text}")))
    }

    /// The data folder, for commands that a person types.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// So short that a demo sees certificates being rotated: they are renewed at 50 to 70 % of this.
const LEAF: &str = "30s";

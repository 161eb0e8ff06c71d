//! `pilotfish admin`: certificates for administrators.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use pilotfish_config::wire::Joined;
use pilotfish_identity::{KeyAndRequest, SpiffeId};

use super::client::{Client, Connection};
use super::failed::Failed;
use super::human;
use super::token::days_or_duration;
use crate::api::types::NewAdministrator;

/// Make certificates for administrators.
#[derive(Debug, Args)]
pub struct Admin {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    Create(Create),
}

/// Make a certificate with which an administrator needs no token.
///
/// The key is made here and never leaves this machine. Writes NAME.pem and NAME.key (mode 0600) and replaces neither.
/// The certificate is not renewed: it ends by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish admin create alice --ttl 30d --out ~/.config/pilotfish
  pilotfish status --control https://HOST:15012 --client-cert alice.pem --client-key alice.key")]
struct Create {
    /// The administrator's name, as history and log will show it
    #[arg(value_name = "NAME")]
    name: String,

    /// How long it is valid, at most 90 days
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
    ttl: Duration,

    /// The folder for both files
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    #[command(flatten)]
    connection: Connection,
}

fn ttl(text: &str) -> Result<Duration, String> {
    days_or_duration(text, 90)
}

impl Admin {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        match self.command {
            AdminCommand::Create(create) => create.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), Failed> {
        let client = Client::open(&self.connection).await?;
        let id = format!("spiffe://{}/ns/pilotfish-system/admin/{}", client.server.trust_domain, self.name);
        let id = SpiffeId::parse(&id).map_err(|error| Failed::usage(error.to_string()))?;
        let own = KeyAndRequest::new(&id).map_err(|error| Failed::refused(error.to_string()))?;
        let wanted = NewAdministrator {
            name: self.name.clone(),
            csr: own.csr_pem.clone(),
            ttl_seconds: self.ttl.as_secs(),
        };
        let (certificate, key) =
            (self.out.join(format!("{}.pem", self.name)), self.out.join(format!("{}.key", self.name)));
        // First what can fail here.
        write(&key, own.key_pem.as_bytes())?;
        let made: Result<Joined, _> = client.post("/v1/administrators", &wanted).await;
        let written = made.map_err(Failed::from).and_then(|made| {
            write(&certificate, made.chain.as_bytes())?;
            Ok(made)
        });
        let made = written.inspect_err(|_| {
            let _ = std::fs::remove_file(&key);
        })?;
        eprintln!("{} and {}, until {}", certificate.display(), key.display(), human::date(made.expires));
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failed> {
    let create = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    create().map_err(|error| Failed::refused(format!("cannot write {}: {error}", path.display())))
}

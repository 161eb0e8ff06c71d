//! `pilotfish trust`: the roots that the mesh trusts.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::{Client, Connection, encoded};
use super::failed::Failed;
use super::human;
use super::output::Output;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone, harmless};
use crate::api::types::{Pem, Root, TrustStatus};

/// List, add and remove the roots that the mesh trusts.
///
/// To rotate the root: add the new one, wait until every sidecar has it (`pilotfish status`), let the new authority
/// sign, and remove the old one. No connection is closed until the old root is removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish trust list
  pilotfish trust add new-root.pem
  pilotfish trust remove 3f1c...      # the fingerprint; connections that it vouches for are closed")]
pub struct Trust {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Debug, Subcommand)]
enum TrustCommand {
    /// Show roots, the authority that signs, and revoked identities
    List(Reach),
    /// Trust one more root
    Add {
        /// Its certificate (PEM); `-` reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Trust a root no more
    Remove {
        /// SHA-256 of the certificate, as `trust list` prints it; colons are ignored
        #[arg(value_name = "FINGERPRINT", value_parser = fingerprint)]
        fingerprint: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Args)]
struct Reach {
    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// 64 hexadecimal digits, in lower case; as OpenSSL prints them too (`SHA256 Fingerprint=AB:CD:...`).
pub fn fingerprint(text: &str) -> Result<String, String> {
    let digits = text.rsplit(['=', ' ']).next().unwrap_or(text);
    let digits: String =
        digits.chars().filter(|letter| *letter != ':').collect::<String>().to_ascii_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err("expected the SHA-256 of a certificate: 64 hexadecimal digits".into())
    }
}

impl Trust {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn run(self) -> Result<(), Failed> {
        let (status, output): (TrustStatus, Output) = match self.command {
            TrustCommand::List(reach) => {
                let client = Client::open(&reach.connection).await?;
                (client.get("/v1/trust").await?, reach.output)
            }
            TrustCommand::Add { file, reach } => {
                let pem = read(&file)?;
                let client = Client::open(&reach.connection).await?;
                (client.post("/v1/trust/roots", &Pem { pem }).await?, reach.output)
            }
            TrustCommand::Remove { fingerprint, reach } => {
                let client = Client::open(&reach.connection).await?;
                (client.delete(&format!("/v1/trust/roots/{}", encoded(&fingerprint))).await?, reach.output)
            }
        };
        output.print(&status, |_| text(&status, human::now(), &Terminal::stdout()))
    }
}

/// A certificate, and never a key: somebody might have both in one file.
fn read(file: &PathBuf) -> Result<String, Failed> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| Failed::usage(format!("{}: {error}", file.display())))?;
    if text.contains("PRIVATE KEY-----") {
        return Err(Failed::usage(format!(
            "{} holds a private key; give the certificate alone",
            file.display()
        )));
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failed::usage(format!("{} holds no certificate (PEM)", file.display())));
    }
    Ok(text)
}

fn text(status: &TrustStatus, now: u64, terminal: &Terminal) -> String {
    let mut table = Table::new(&["ROLE", "TRUST-DOMAIN", "EXPIRES", "SUBJECT", "FINGERPRINT"]);
    for root in &status.roots {
        table.row(row("root", root, now));
    }
    table.row(row("issuer", &status.issuer, now));
    for root in &status.federated {
        table.row(row("federated", root, now));
    }
    // Fingerprints are for copying: this table is never cut.
    let whole = Terminal { size: None, ..*terminal };
    let mut text = table.print(&whole);
    for id in &status.revoked {
        let _ = writeln!(text, "revoked: {}", harmless(id, false));
    }
    text
}

fn row(role: &str, root: &Root, now: u64) -> [Cell; 5] {
    let expires = human::expiry(root.expires, now);
    [
        role.into(),
        root.trust_domain.as_str().into(),
        if root.expires <= now { Cell::toned(expires, Tone::Bad) } else { expires.into() },
        root.subject.as_str().into(),
        root.fingerprint.as_str().into(),
    ]
}

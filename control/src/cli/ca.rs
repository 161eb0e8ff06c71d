//! `pilotfish ca`: certificates that are made offline, beside the root key.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use pilotfish_config::units;
use pilotfish_identity::TrustDomain;

use super::failed::Failed;
use crate::ca::{self, TRUST_DOMAIN, YEAR};

/// Make authorities' certificates, offline. Nothing is sent anywhere
#[derive(Debug, Args)]
pub struct Ca {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    IssueIntermediate(IssueIntermediate),
    NewRoot(NewRoot),
}

/// Make an intermediate for one more control plane.
///
/// Each control plane of a fleet signs with an intermediate of its own, and no key is ever shared. Writes `ca.pem` (the
/// intermediate, then the root) and `ca.key` to the folder; start that control plane with --ca-cert and --ca-key.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pilotfish ca issue-intermediate --data /var/lib/pilotfish --out second
  pilotfish serve --data DIR --ca-cert second/ca.pem --ca-key second/ca.key --store etcd://...")]
struct IssueIntermediate {
    /// Data folder of the control plane that made the root, while its root.key is there
    #[arg(long, value_name = "DIR", required_unless_present = "root_cert", conflicts_with = "root_cert")]
    data: Option<PathBuf>,

    /// The root's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "root_key")]
    root_cert: Option<PathBuf>,

    /// The root's key (PEM)
    #[arg(long, value_name = "FILE", requires = "root_cert")]
    root_key: Option<PathBuf>,

    /// The trust domain, for the certificate's subject [default: what --data says, else cluster.local]
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    trust_domain: Option<TrustDomain>,

    /// How long it signs, never longer than the root
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = life)]
    ttl: Duration,

    /// Folder for ca.pem and ca.key; made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Make a root to replace another one with.
///
/// Writes `root.pem` and `root.key` to the folder. Then `pilotfish trust add root.pem`, issue an intermediate with
/// it for each control plane, restart them, and when every sidecar has renewed, `pilotfish trust remove` the old one. Join
/// tokens that were made before carry the old root's fingerprint: make new ones.
#[derive(Debug, Args)]
struct NewRoot {
    /// The trust domain, for the certificate's subject
    #[arg(long, value_name = "NAME", default_value = TRUST_DOMAIN, value_parser = trust_domain)]
    trust_domain: TrustDomain,

    /// Folder for root.pem and root.key; made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

fn life(text: &str) -> Result<Duration, String> {
    let life = units::duration(text)?;
    if life < Duration::from_secs(3600) || life > 10 * YEAR {
        return Err("expected 1h to 87600h".into());
    }
    Ok(life)
}

impl Ca {
    /// Does it.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn run(self) -> Result<(), Failed> {
        let done = match self.command {
            CaCommand::IssueIntermediate(it) => it.run(),
            CaCommand::NewRoot(it) => it.run(),
        };
        done.map_err(|error| Failed::refused(error.to_string()))
    }
}

impl IssueIntermediate {
    fn run(self) -> Result<(), ca::CaError> {
        let offline = match (&self.data, self.root_cert, self.root_key) {
            (Some(data), ..) => ca::offline::Root::of_data(data)?,
            (None, Some(certificate), Some(key)) => ca::offline::Root::read(&certificate, &key)?,
            // clap requires one of them.
            _ => return Ok(()),
        };
        let domain = self.trust_domain.as_ref();
        let files = offline.issue_into(&self.out, domain, SystemTime::now(), self.ttl)?;
        println!("{}\n{}", files.certificates.display(), files.key.display());
        eprintln!(
            "next, on that control plane: pilotfish serve --ca-cert {} --ca-key {} ...",
            files.certificates.display(),
            files.key.display()
        );
        Ok(())
    }
}

impl NewRoot {
    fn run(self) -> Result<(), ca::CaError> {
        let files = ca::offline::new_root_into(&self.out, &self.trust_domain, SystemTime::now())?;
        println!("{}\n{}", files.certificates.display(), files.key.display());
        eprintln!("next: pilotfish trust add {}", files.certificates.display());
        Ok(())
    }
}

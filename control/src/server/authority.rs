//! The authority that signs here, and the certificate that this control plane shows: opened at the start, looked after
//! while it serves.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use pilotfish_identity::{Identity, LiveIdentity, TrustDomain};

use super::data::{DataFolder, host_name};
use super::settings::Settings;
use super::{Control, Failure};
use crate::ca::{self, Authority, CaError, Name, Upkeep};
use crate::log;

/// How often the authority and the own certificate are looked at.
const LOOK: Duration = Duration::from_secs(3600);

fn failure(error: &CaError) -> Failure {
    Failure(format!("cannot use the certificate authority: {error}"))
}

/// Opens the authority of the data folder, or the one that the settings name.
///
/// # Errors
/// It cannot be used; or `others` (the mesh was founded before) and this folder has no authority of it.
pub(super) fn open(
    settings: &Settings,
    data: &DataFolder,
    domain: Option<&TrustDomain>,
    others: bool,
) -> Result<Authority, Failure> {
    if let (Some(certificates), Some(key)) = (&settings.ca_cert, &settings.ca_key) {
        return Authority::bring(data.path(), domain, certificates, key).map_err(|error| failure(&error));
    }
    if others && !data.file("ca/root.pem").exists() {
        return Err(Failure(
            "the mesh of this store has an authority already, and this data folder has none of it: where its root.key \
             is, run `pilotfish ca issue-intermediate`, and start this one with --ca-cert and --ca-key"
                .into(),
        ));
    }
    Authority::open(data.path(), domain).map_err(|error| failure(&error))
}

/// What clients call this control plane by.
pub(super) fn names(settings: &Settings, listen: SocketAddr) -> Vec<Name> {
    let mut names = vec![Name::Dns("localhost".into()), Name::Dns(host_name())];
    let advertised =
        settings.advertise.as_deref().and_then(|text| text.rsplit_once(':')).map(|(host, _)| host);
    if let Some(host) = advertised {
        let host = host.trim_matches(['[', ']']);
        names.push(host.parse().map_or_else(|_| Name::Dns(host.to_owned()), Name::Ip));
    }
    names.push(Name::Ip(IpAddr::from([127, 0, 0, 1])));
    if !listen.ip().is_unspecified() {
        names.push(Name::Ip(listen.ip()));
    }
    names.dedup();
    names
}

/// Makes a new certificate of the own and puts it in force.
///
/// # Errors
/// The authority cannot sign.
pub(super) fn credential(
    authority: &Authority,
    live: &LiveIdentity,
    id: &str,
    names: &[Name],
) -> Result<(), Failure> {
    let credentials = Arc::new(authority.server_credentials(id, names).map_err(|error| failure(&error))?);
    live.update(|identity: &mut Identity| identity.credentials = Some(credentials.clone()));
    Ok(())
}

/// Renews the intermediate and the own certificate in time, for as long as the control plane is there.
pub(super) async fn look_after(control: Weak<Control>, names: Vec<Name>) {
    let mut warned = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(control) = control.upgrade() else { return };
        let renewed = match control.authority.upkeep() {
            Ok(Upkeep::Fine) => false,
            Ok(Upkeep::Renewed) => {
                log::info!("the intermediate certificate was renewed");
                true
            }
            Ok(Upkeep::Warning(what)) => {
                // Once a day is often enough to be heard.
                if warned.is_none_or(|at: std::time::Instant| at.elapsed() >= 24 * LOOK) {
                    warned = Some(std::time::Instant::now());
                    log::warn!("the certificate authority needs attention", what = what);
                }
                false
            }
            Err(error) => {
                log::error!("the intermediate certificate cannot be renewed", why = error);
                false
            }
        };
        if let Err(error) = control.tokens.sweep().await {
            log::warn!("join tokens that have expired cannot be removed", why = error);
        }
        if !renewed && !half_over(&control) {
            continue;
        }
        if let Err(error) = credential(&control.authority, &control.live, &control.id, &names) {
            log::error!("the control plane's own certificate cannot be renewed", why = error);
        }
    }
}

/// Whether less than half of a leaf's usual life is left of the own certificate.
fn half_over(control: &Control) -> bool {
    let identity = control.live.load();
    let left =
        identity.credentials.as_ref().and_then(|own| own.not_after.duration_since(control.live.now()).ok());
    left.unwrap_or_default() < ca::LEAF / 2
}

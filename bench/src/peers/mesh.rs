//! Two processes of each proxy with mutual TLS between them, or the inbound one alone: certificates and configurations.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use super::{Peer, fill};

/// The name that every leaf has as DNS name: HAProxy cannot verify by URI.
const DNS: &str = "app.bench.local";
/// The identity that every leaf has.
const SPIFFE: &str = "spiffe://mesh.local/ns/bench/agent/app";

const HAPROXY: [&str; 2] =
    [include_str!("../../peers/haproxy/mesh-out.cfg"), include_str!("../../peers/haproxy/mesh-in.cfg")];
const ENVOY: [&str; 2] =
    [include_str!("../../peers/envoy/mesh-out.yaml"), include_str!("../../peers/envoy/mesh-in.yaml")];
const NGINX: [&str; 2] =
    [include_str!("../../peers/nginx/mesh-out.conf"), include_str!("../../peers/nginx/mesh-in.conf")];
const PILOTFISH: [&str; 2] =
    [include_str!("../../peers/pilotfish/mesh-out.yaml"), include_str!("../../peers/pilotfish/mesh-in.yaml")];

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Cleartext in, mutual TLS out.
    Outbound,
    /// Mutual TLS in, cleartext to the agent.
    Inbound,
}

/// The ports of one process.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Where it listens.
    pub listen: u16,
    /// Where it sends to: the other side, or the agent.
    pub next: u16,
}

/// Writes `ca.pem`, `cert.pem`, `key.pem` and `both.pem` (certificate and key) into `dir`: one leaf for both sides,
/// ECDSA P-256 as all meshes use it.
///
/// # Errors
/// When they cannot be made or written.
pub fn certificates(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let (ca, cert, key) = make().map_err(io::Error::other)?;
    fs::write(dir.join("ca.pem"), ca)?;
    fs::write(dir.join("cert.pem"), &cert)?;
    fs::write(dir.join("key.pem"), &key)?;
    fs::write(dir.join("both.pem"), cert + &key)
}

fn make() -> Result<(String, String, String), rcgen::Error> {
    // OpenSSL takes a leaf with its issuer's name for self-signed, and both get the same by default.
    let named = |name: &str| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params)
    };
    let mut root = named("bench root")?;
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut leaf = named("bench leaf")?;
    leaf.subject_alt_names = vec![SanType::DnsName(DNS.try_into()?), SanType::URI(SPIFFE.try_into()?)];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok((issuer.pem(), certificate.pem(), key.serialize_pem()))
}

/// Writes the configuration of one side of `peer` into `dir` and returns the command that starts it.
///
/// # Errors
/// When it cannot be written, or the peer has no mesh.
pub fn prepare(
    peer: Peer,
    binary: &Path,
    side: Side,
    ports: Ports,
    dir: &Path,
    certs: &Path,
) -> io::Result<Vec<String>> {
    fs::create_dir_all(dir.join("conf"))?;
    let number = |port: u16| port.to_string();
    let alpn = if peer == Peer::HaproxyH2 { " alpn h2" } else { "" };
    let text = |templates: [&str; 2]| {
        let values = [
            ("listen", number(ports.listen)),
            ("mesh", number(ports.next)),
            ("upstream", number(ports.next)),
            ("certs", certs.display().to_string()),
            ("alpn", alpn.to_owned()),
            ("dir", dir.display().to_string()),
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fill(templates[side as usize], &values)
    };
    let conf = dir.join("conf/proxy.yaml");
    let place = dir.display();
    let (templates, flags) = match peer {
        Peer::Haproxy | Peer::HaproxyH2 => (HAPROXY, format!("-db -f {}", conf.display())),
        Peer::Nginx => (NGINX, format!("-p {place} -e {place}/start.log -c {}", conf.display())),
        Peer::Envoy => {
            (ENVOY, format!("-c {} --concurrency 1 --disable-hot-restart -l error", conf.display()))
        }
        ours if ours.is_sidecar() => (PILOTFISH, pilotfish(side, ports, &place.to_string(), certs)),
        _ => return Err(io::Error::other(format!("{} is in no mesh here", peer.name()))),
    };
    fs::write(&conf, text(templates))?;
    let flags = flags.split(' ').map(str::to_owned);
    Ok([binary.display().to_string()].into_iter().chain(flags).collect())
}

fn pilotfish(side: Side, ports: Ports, place: &str, certs: &Path) -> String {
    let listen = match side {
        Side::Outbound => format!("--outbound 127.0.0.1:{} --inbound 127.0.0.1:0", ports.listen),
        Side::Inbound => format!(
            "--outbound 127.0.0.1:0 --inbound 127.0.0.1:{} --app 127.0.0.1:{}",
            ports.listen, ports.next
        ),
    };
    let certs = certs.display();
    format!(
        "--config {place}/conf --agent app --namespace bench {listen} --admin 127.0.0.1:0 --admin-socket \
         {place}/admin.sock --workers 1 --identity-cert {certs}/cert.pem --identity-key {certs}/key.pem \
         --trust-bundle {certs}/ca.pem"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_completely_and_the_certificates_are_whole() -> io::Result<()> {
        let dir = std::env::temp_dir().join(format!("pilotfish-bench-mesh-{}", std::process::id()));
        certificates(&dir)?;
        assert!(fs::read_to_string(dir.join("both.pem"))?.contains("PRIVATE KEY"));
        let ports = Ports { listen: 1, next: 2 };
        for peer in [Peer::Pilotfish, Peer::Haproxy, Peer::HaproxyH2, Peer::Nginx, Peer::Envoy] {
            for side in [Side::Outbound, Side::Inbound] {
                let command = prepare(peer, Path::new("/bin/proxy"), side, ports, &dir, &dir)?;
                assert_eq!(command[0], "/bin/proxy");
                let text = fs::read_to_string(dir.join("conf/proxy.yaml"))?;
                let code: Vec<_> = text.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
                assert!(!code.iter().any(|l| l.contains("{{")), "{text}");
            }
        }
        fs::remove_dir_all(dir)
    }
}

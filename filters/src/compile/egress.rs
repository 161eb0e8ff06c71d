//! Egress: the mode, and every address that a ServiceEntry names.

use pilotfish_config::model::{Address, Model};

use super::CompileOptions;
use crate::plan::{Egress, NamedAddress};

pub(super) fn compile(model: &Model, options: &CompileOptions) -> Egress {
    let mode = model.outbound_mode(&options.namespace, &options.labels).unwrap_or(options.outbound);
    let mut named = Vec::new();
    for entry in &model.service_entries {
        let ports: Vec<u16> = entry.ports.iter().map(|port| port.number).collect();
        let hosts = entry.hosts.iter().map(|host| host.as_str());
        for text in hosts.chain(entry.addresses.iter().map(String::as_str)) {
            let loopback: &[&str] = if is_localhost(text) { &["127.0.0.1", "::1"] } else { &[] };
            let all = loopback.iter().copied().chain([text]);
            named.extend(all.filter_map(|text| NamedAddress::parse(text, &ports)));
        }
        for workload in model.workloads_of(entry) {
            if let Address::Ip(ip) = workload.address {
                let ports: Vec<u16> =
                    entry.ports.iter().map(|port| entry.endpoint_port(workload, port)).collect();
                named.push(NamedAddress {
                    network: ip,
                    bits: if ip.is_ipv4() { 32 } else { 128 },
                    ports: ports.into(),
                });
            }
        }
    }
    Egress { mode, named }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.starts_with("localhost.")
}

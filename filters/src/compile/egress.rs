//! Egress: the mode, and every address that a ServiceEntry names: by a host that is an address, or by `addresses`. An
//! endpoint's address is not named by being one: it is reached by its host, and by that host's rules.

use pilotfish_config::model::Model;

use super::CompileOptions;
use crate::plan::{Egress, NamedAddress};
use crate::view::View;

pub(super) fn compile(model: &Model, options: &CompileOptions, view: &View<'_>) -> Egress {
    let mode = model.outbound_mode(&options.namespace, &options.labels).unwrap_or(options.outbound);
    let mut named = Vec::new();
    let entries = model.service_entries.iter();
    for entry in entries.filter(|entry| entry.hosts.iter().any(|host| view.sees_service(entry, host))) {
        let ports: Vec<u16> = entry.ports.iter().map(|port| port.number).collect();
        let hosts = entry.hosts.iter().map(|host| host.as_str());
        for text in hosts.chain(entry.addresses.iter().map(String::as_str)) {
            let loopback: &[&str] = if is_localhost(text) { &["127.0.0.1", "::1"] } else { &[] };
            let all = loopback.iter().copied().chain([text]);
            named.extend(all.filter_map(|text| NamedAddress::parse(text, &ports)));
        }
    }
    Egress { mode, named }
}

fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.starts_with("localhost.")
}

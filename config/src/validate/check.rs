//! Checks of single values, shared by all kinds. Each reports what is wrong and gives what can still be used.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::diagnose::Diagnose;
use crate::model::{ExportTo, Host, Pattern, StringMap};
use crate::raw::{Int, List, Number, Signed, Text, TextMap, Time};
use crate::units::print_duration;
use crate::yaml::{Node, clip_text};

/// What validation of one document needs.
pub(crate) struct Cx<'d> {
    /// Where complaints go.
    pub diagnose: &'d mut Diagnose,
    /// The document's namespace.
    pub namespace: std::sync::Arc<str>,
    /// Whether our additions to Istio are off.
    pub strict_istio: bool,
    /// Expressions that were compiled already; large files repeat them.
    patterns: HashMap<String, Option<Pattern>>,
    /// Hosts that were resolved in `namespace` already; large files repeat them too.
    hosts: HashMap<String, Host>,
}

impl<'d> Cx<'d> {
    pub fn new(diagnose: &'d mut Diagnose, strict_istio: bool) -> Self {
        Cx { diagnose, namespace: "".into(), strict_istio, patterns: HashMap::new(), hosts: HashMap::new() }
    }

    /// Goes on with a document of `namespace`.
    pub fn enter(&mut self, namespace: &std::sync::Arc<str>) {
        if self.namespace != *namespace {
            self.namespace = namespace.clone();
            self.hosts.clear();
        }
    }

    pub fn error(&mut self, node: Node<'_>, message: impl Into<String>) {
        self.diagnose.error(node, message.into(), None);
    }

    pub fn error_hint(&mut self, node: Node<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnose.error(node, message.into(), Some(hint.into()));
    }

    pub fn warn(&mut self, node: Node<'_>, message: impl Into<String>, hint: impl Into<String>) {
        self.diagnose.warn(node, message.into(), Some(hint.into()));
    }

    /// A port, 1 to 65535.
    pub fn port(&mut self, port: Int<'_>) -> Option<u16> {
        match u16::try_from(port.value) {
            Ok(number) if number > 0 => Some(number),
            _ => {
                self.error_hint(port.node, format!("{} is not a port", port.value), "ports are 1 to 65535");
                None
            }
        }
    }

    /// A percentage, 0 to 100.
    pub fn percent(&mut self, percent: Number<'_>) -> f64 {
        if !(0.0..=100.0).contains(&percent.value) {
            self.error_hint(
                percent.node,
                format!("{} is not a percentage", percent.value),
                "allowed: 0 to 100",
            );
        }
        percent.value
    }

    /// A percentage, 0 to 100, as a whole number.
    pub fn whole_percent(&mut self, percent: Signed<'_>) -> u8 {
        if !(0..=100).contains(&percent.value) {
            self.error_hint(
                percent.node,
                format!("{} is not a percentage", percent.value),
                "allowed: 0 to 100",
            );
        }
        u8::try_from(percent.value).unwrap_or_default()
    }

    /// A number that may not be negative.
    pub fn not_negative(&mut self, number: Signed<'_>) -> u32 {
        u32::try_from(number.value).unwrap_or_else(|_| {
            self.error(number.node, format!("{} must not be negative", number.value));
            0
        })
    }

    /// A duration of at least 1 ms in whole milliseconds, as Istio asks.
    pub fn duration(&mut self, time: Time<'_>) -> Duration {
        if time.value < Duration::from_millis(1) {
            let text = format!("{} is too short", print_duration(time.value));
            self.error_hint(time.node, text, "at least 1ms");
        } else if !time.value.as_nanos().is_multiple_of(1_000_000) {
            let text = format!("{} is not in whole milliseconds", print_duration(time.value));
            self.error_hint(time.node, text, "Istio allows 1ms at the finest");
        }
        time.value
    }

    /// As [`Cx::duration`], but 0 is allowed and means none.
    pub fn duration_or_zero(&mut self, time: Time<'_>) -> Option<Duration> {
        if time.value.is_zero() { None } else { Some(self.duration(time)) }
    }

    /// A text that must not be empty.
    pub fn not_empty(&mut self, text: Text<'_>) -> String {
        if text.value.is_empty() {
            self.error(text.node, "must not be empty");
        }
        text.value.to_owned()
    }

    /// A regular expression in RE2 syntax.
    pub fn pattern(&mut self, text: Text<'_>) -> Option<Pattern> {
        if text.value.is_empty() {
            self.error(text.node, "the regular expression is empty");
            return None;
        }
        if text.value.len() > 1024 {
            let length = text.value.len();
            self.error_hint(
                text.node,
                format!("the regular expression has {length} bytes"),
                "Istio allows 1024",
            );
            return None;
        }
        if let Some(known) = self.patterns.get(text.value).cloned() {
            if known.is_none() {
                self.error(text.node, "not a valid regular expression, as above");
            }
            return known;
        }
        let pattern = Pattern::new(text.value);
        if let Err(error) = &pattern {
            let hint = "RE2 syntax: no look-around, no back-references";
            self.error_hint(text.node, format!("not a valid regular expression: {error}"), hint);
        }
        self.patterns.insert(text.value.to_owned(), pattern.clone().ok());
        pattern.ok()
    }

    /// A host that may start with a wildcard, resolved in the document's namespace.
    pub fn host(&mut self, text: Text<'_>) -> Host {
        if let Some(host) = self.hosts.get(text.value) {
            return host.clone();
        }
        if let Err(why) = wildcard_domain(text.value) {
            let message = format!("`{}` is not a host name: {why}", clip_text(text.value));
            self.error(text.node, message);
            return Host::resolve(text.value, &self.namespace);
        }
        let host = Host::resolve(text.value, &self.namespace);
        self.hosts.insert(text.value.to_owned(), host.clone());
        host
    }

    /// A DNS label.
    pub fn label(&mut self, text: Text<'_>, what: &str) -> String {
        if !is_dns_label(text.value) {
            let message = format!("`{}` is not a valid {what}", clip_text(text.value));
            self.error_hint(text.node, message, "letters, digits and inner `-`, at most 63");
        }
        text.value.to_owned()
    }

    /// Labels of workloads, as Kubernetes allows them.
    pub fn labels(&mut self, map: Option<&TextMap<'_>>) -> StringMap {
        let mut labels = StringMap::new();
        for (key, value) in map.into_iter().flatten() {
            if !is_label_key(key.value) {
                let message = format!("`{}` is not a valid label name", clip_text(key.value));
                self.diagnose.error_at_key(key.node, message, None);
            }
            if !is_label_value(value.value) {
                let hint = "letters, digits and inner `-`, `_`, `.`, at most 63";
                let message = format!("`{}` is not a valid label value", clip_text(value.value));
                self.error_hint(value.node, message, hint);
            }
            labels.insert(key.value.to_owned(), value.value.to_owned());
        }
        labels
    }

    /// Labels that select workloads: not empty, no wildcards.
    pub fn selector(&mut self, node: Node<'_>, map: Option<&TextMap<'_>>) -> StringMap {
        let mut labels = StringMap::new();
        for (key, value) in map.into_iter().flatten() {
            if key.value.is_empty() {
                self.error(value.node, "a label name must not be empty");
            }
            if key.value.contains('*') || value.value.contains('*') {
                self.error(value.node, "wildcards are not supported in a selector");
            }
            labels.insert(key.value.to_owned(), value.value.to_owned());
        }
        if labels.is_empty() {
            self.warn(node, "selects every workload of the namespace", "write labels if that is not meant");
        }
        labels
    }

    /// An IP address or a CIDR block.
    pub fn subnet(&mut self, text: Text<'_>) -> String {
        if !is_subnet(text.value) {
            let message = format!("`{}` is not an IP address or CIDR block", clip_text(text.value));
            self.error(text.node, message);
        }
        text.value.to_owned()
    }

    /// Texts that must not be empty.
    pub fn texts(&mut self, list: Option<&List<Text<'_>>>) -> Vec<String> {
        list.into_iter().flatten().map(|text| self.not_empty(*text)).collect()
    }

    /// `exportTo`. `nobody`: whether `~` is allowed.
    pub fn export_to(&mut self, list: Option<&List<Text<'_>>>, nobody: bool) -> ExportTo {
        let list = list.map(Vec::as_slice).unwrap_or_default();
        let mut namespaces: Vec<String> = Vec::new();
        for entry in list {
            let name = if entry.value == "." { &*self.namespace } else { entry.value }.to_owned();
            if matches!(&*name, "*") || (name == "~" && nobody) {
                if list.len() > 1 {
                    self.error(entry.node, format!("`{name}` cannot be combined with other entries"));
                }
            } else if !is_dns_label(&name) {
                let message = format!("`{}` is not a namespace", clip_text(&name));
                let hint = if nobody { "allowed: `.`, `*`, `~`, names" } else { "allowed: `.`, `*`, names" };
                self.error_hint(entry.node, message, hint);
            }
            if namespaces.contains(&name) {
                self.error(entry.node, format!("`{}` is in the list already", entry.value));
            }
            namespaces.push(name);
        }
        match namespaces.first().map(String::as_str) {
            None | Some("*") => ExportTo::All,
            Some("~") => ExportTo::Nobody,
            Some(_) => ExportTo::Namespaces(namespaces),
        }
    }
}

/// A DNS label: letters, digits and inner `-`, at most 63.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    !text.is_empty() && text.len() <= 63 && inner && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels separated by dots; the last one may be empty and must not be a number.
pub(crate) fn fqdn(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > 255 {
        return Err("it is longer than 255 bytes".into());
    }
    let labels: Vec<&str> = text.split('.').collect();
    if labels.last().is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("its last part is a number".into());
    }
    for (position, label) in labels.iter().enumerate() {
        let last = position + 1 == labels.len() && position > 0;
        if !(is_dns_label(label) || (label.is_empty() && last)) {
            return Err(format!("`{}` is not a DNS label", clip_text(label)));
        }
    }
    Ok(())
}

/// As [`fqdn`], but the first label may be or start with `*`.
pub(crate) fn wildcard_domain(text: &str) -> Result<(), String> {
    let (first, rest) = text.split_once('.').map_or((text, None), |(first, rest)| (first, Some(rest)));
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > 255 {
        return Err("it is longer than 255 bytes".into());
    }
    let label = first.strip_prefix("*-").or_else(|| first.strip_prefix('*')).unwrap_or(first);
    if !(first == "*" || is_dns_label(label)) {
        return Err(if first.contains('*') {
            "a wildcard is only allowed at the start".into()
        } else {
            format!("`{}` is not a DNS label", clip_text(first))
        });
    }
    rest.map_or(Ok(()), fqdn)
}

/// An IP address or a CIDR block.
pub(crate) fn is_subnet(text: &str) -> bool {
    match text.split_once('/') {
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            _ => false,
        },
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// Kubernetes' label names: perhaps a DNS name and a slash, then letters, digits and inner `-`, `_`, `.`.
pub(crate) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => fqdn(prefix).is_ok() && is_qualified(name),
        None => is_qualified(text),
    }
}

/// Kubernetes' label values.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

fn is_qualified(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    text.len() <= 63 && inner && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::{fqdn, is_label_key, is_subnet, wildcard_domain};

    #[test]
    fn host_names_are_told_from_mistakes() {
        for host in ["a", "a.b.c", "*.a.b", "*", "*-x.a", "*x.a", "istio.io.", "A-1.b"] {
            assert_eq!(wildcard_domain(host), Ok(()), "{host}");
        }
        for host in ["", "a.*.b", "a*.b", "-a.b", "a_b.c", "a..b", "1.2.3.4", "a.b:80", "http://a", "**.a"] {
            assert!(wildcard_domain(host).is_err(), "{host}");
        }
        assert!(fqdn("*.a").is_err());
        assert!(fqdn("").is_err());
    }

    #[test]
    fn subnets_and_labels() {
        for text in ["1.2.3.4", "::1", "10.0.0.0/8", "fe80::/10"] {
            assert!(is_subnet(text), "{text}");
        }
        for text in ["1.2.3", "10.0.0.0/33", "::/129", "a/8", "1.2.3.4/", ""] {
            assert!(!is_subnet(text), "{text}");
        }
        assert!(is_label_key("pilotfish.dev/agent"));
        assert!(!is_label_key("a b"));
        assert!(!is_label_key("@"));
    }
}

//! The route table: from a host to its rules, from a request to the first rule that matches. First host, then path.

pub mod block;
pub(crate) mod hash;
pub(crate) mod host;
pub(crate) mod index;
pub mod text;

use crate::call::{Caller, Head};
use crate::plan::Rule;
use block::Block;
use host::HostTable;
pub use host::split_authority;
use index::RouteIndex;

/// All virtual hosts of a plan.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    names: HostTable,
    hosts: Vec<VirtualHost>,
    peeks_body: bool,
}

/// The rules of one host, or of all hosts of one VirtualService.
#[derive(Debug)]
pub(crate) struct VirtualHost {
    rules: Box<[Rule]>,
    index: RouteIndex,
    peeks_body: bool,
}

impl RouteTable {
    /// Adds a virtual host and gives its number for [`RouteTable::name`].
    pub(crate) fn add(&mut self, host: VirtualHost) -> u32 {
        self.peeks_body |= host.peeks_body;
        self.hosts.push(host);
        (self.hosts.len() - 1) as u32
    }

    /// Lets `name` (a host, `*.suffix` or `*`) be served by a virtual host; the first to claim a name keeps it.
    /// Returns whether it was free.
    pub(crate) fn name(&mut self, name: &str, host: u32) -> bool {
        self.names.insert(name, host).is_none()
    }

    /// The number of the virtual host that serves `name`, an exact name or a pattern.
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.names.find(name)
    }

    /// The virtual host for an authority, whose port does not count.
    pub(crate) fn host(&self, authority: &str) -> Option<&VirtualHost> {
        self.hosts.get(self.names.find(split_authority(authority).0)? as usize)
    }

    /// Whether any rule reads what only the body says.
    pub(crate) fn any_peeks_body(&self) -> bool {
        self.peeks_body
    }

    /// Every virtual host.
    pub(crate) fn hosts(&self) -> &[VirtualHost] {
        &self.hosts
    }

    /// The same, to be completed while a plan is made.
    pub(crate) fn hosts_mut(&mut self) -> &mut [VirtualHost] {
        &mut self.hosts
    }

    /// Every name with the number of its virtual host, in no particular order.
    pub(crate) fn names(&self) -> impl Iterator<Item = (String, u32)> {
        self.names.iter()
    }
}

impl VirtualHost {
    /// Rules and their blocks, in order of precedence; blocks name rules by position.
    pub(crate) fn new(rules: Vec<Rule>, blocks: Vec<Block>) -> Self {
        let peeks_body = rules.iter().any(Rule::peeks_body);
        VirtualHost { rules: rules.into(), index: RouteIndex::new(blocks), peeks_body }
    }

    /// A host whose one rule takes every request.
    pub(crate) fn single(rule: Rule) -> Self {
        let all = Block { rule: 0, path: block::PathMatch::Any, rest: Box::default() };
        VirtualHost::new(vec![rule], vec![all])
    }

    /// The first rule that matches, and the block by which.
    pub(crate) fn route<H: Head>(&self, head: &H, caller: &Caller) -> Option<(&Rule, &Block)> {
        let block = self.index.find(head, caller)?;
        Some((self.rules.get(block.rule as usize)?, block))
    }

    /// Whether a rule reads what only the body says.
    pub(crate) fn peeks_body(&self) -> bool {
        self.peeks_body
    }

    /// The match blocks of all rules, in order.
    pub(crate) fn blocks(&self) -> &[Block] {
        self.index.blocks()
    }

    /// The rules in order.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The same, to be completed while a plan is made.
    pub(crate) fn rules_mut(&mut self) -> &mut [Rule] {
        &mut self.rules
    }
}

/// Feeds arbitrary bytes to the look-up of hosts: it must never panic, and an authority's host must be its beginning.
pub fn fuzz(data: &[u8]) {
    let Ok(authority) = std::str::from_utf8(data) else { return };
    let (host, port) = split_authority(authority);
    assert!(authority.starts_with(host) && (port.is_none() || host.len() < authority.len()));
    let mut names = HostTable::default();
    for (at, name) in ["a.example.com", "*.example.com", "*-x.org", "*"].iter().enumerate() {
        names.insert(name, at as u32);
    }
    let _ = names.find(host);
    let _ = crate::capability::host_capability(authority);
}

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_authorities_from_seeds() {
        let seeds: [&[u8]; 5] = [
            b"a.example.com:80",
            b"[::1]:8080",
            b"nlu.capability.mesh.",
            b"x-x.org",
            "\u{e9}.example.com".as_bytes(),
        ];
        crate::fuzzing::run(&seeds, super::fuzz);
    }
}

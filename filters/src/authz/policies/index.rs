//! The rules of one action, found by who calls, which path and which method.
//!
//! A rule that names principals, namespaces or service accounts, whole paths or beginnings of paths, and methods can only match a
//! call that has one of each: it lies under each such triple in a map. Which kinds of triples there are is known (a caller may be
//! named as a whole or by its namespace, a path as a whole or by its first so many segments), so a call asks the map once for each
//! kind, and then the few rules that it finds. Rules that name nothing lie under the empty triple.
//!
//! Who calls is the same for all calls of a connection, so the rules that can be about a caller are found once ([`Table::of`]). When
//! they are few, as for most callers, they are asked one by one and nothing of the call is hashed.
//!
//! The index only leaves out what cannot match: what it finds is asked in full.

use crate::authz::Principal;
use crate::route::hash::{Fnv, HashedMap, key};

use super::caller::{CallerRules, Few};
use super::condition::{Attribute, Condition, Want};
use super::rule::Rule;
use super::seen::{Lean, Seen};
use super::text::Pattern;

/// A rule lies under at most so many triples; what it names less of is left out then.
const MOST: usize = 256;
/// Beginnings of paths count up to so many segments.
const DEEPEST: usize = 7;
/// So many rules of a caller are asked one by one.
pub(super) const FEW: usize = 8;

/// The rules of one action.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In the order of policies and rules.
    rules: Box<[Rule]>,
    kinds: Box<[Kind]>,
    places: HashedMap<Vec<u32>>,
    /// By who calls alone.
    callers: Box<[Who]>,
    by_caller: HashedMap<Vec<u32>>,
    /// Whether a rule lies where its path or method says.
    by_path: bool,
    by_method: bool,
}

/// One kind of triples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    who: Who,
    path: Path,
    method: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    Principal,
    /// To the slash of this number, the first one counted as 0.
    PrincipalStart(usize),
    Namespace,
    Account,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Any,
    Whole,
    /// To the slash of this number, the first one not counted.
    Start(usize),
}

/// What a call has beside its caller, hashed.
pub(super) struct Hashes {
    whole: u64,
    starts: Starts,
    method: u64,
}

/// What a caller is, hashed.
#[derive(Debug)]
pub(super) struct CallerHashes {
    principal: Option<u64>,
    starts: Starts,
    namespace: Option<u64>,
    account: Option<u64>,
}

/// The hashes of a text up to each of its first slashes.
#[derive(Debug)]
struct Starts {
    /// By the number of the slash.
    hashes: [u64; DEEPEST + 1],
    slashes: usize,
}

impl Starts {
    /// Those of a text, and the hash of all of it.
    fn of(text: &str) -> (Starts, u64) {
        let mut starts = Starts { hashes: [0; DEEPEST + 1], slashes: 0 };
        let mut running = Fnv::START;
        for byte in text.bytes() {
            running = running.extend(&[byte]);
            if byte == b'/' && starts.slashes <= DEEPEST {
                starts.hashes[starts.slashes] = running.finish();
                starts.slashes += 1;
            }
        }
        (starts, running.finish())
    }

    fn get(&self, slash: usize) -> Option<u64> {
        self.hashes[..self.slashes].get(slash).copied()
    }
}

impl Table {
    pub(crate) fn new(rules: Vec<Rule>) -> Table {
        let mut table = Table::default();
        let (mut kinds, mut callers) = (Vec::new(), Vec::new());
        for (number, rule) in rules.iter().enumerate() {
            for (kind, hash) in triples(rule) {
                table.by_path |= kind.path != Path::Any;
                table.by_method |= kind.method;
                lay(&mut table.places, mix(place(&mut kinds, kind), hash), number);
            }
            for (who, hash) in alternatives(rule).flat_map(|conditions| who_calls(&conditions)) {
                lay(&mut table.by_caller, mix(place(&mut callers, who), hash), number);
            }
        }
        Table { rules: rules.into(), kinds: kinds.into(), callers: callers.into(), ..table }
    }

    /// The numbers of the rules that can be about this caller; `None`: more than a few.
    pub(super) fn of(&self, caller: &CallerHashes) -> Few {
        let mut all = Vec::new();
        for (place, who) in self.callers.iter().enumerate() {
            let Some(hash) = caller.hash(*who) else { continue };
            let found = self.by_caller.get(&mix(place, hash)).map(Vec::as_slice).unwrap_or_default();
            if found.len() > FEW {
                return None;
            }
            all.extend_from_slice(found);
        }
        all.sort_unstable();
        all.dedup();
        (all.len() <= FEW).then(|| all.into())
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn reads_body(&self) -> bool {
        self.rules.iter().any(Rule::reads_body)
    }

    /// The first rule that matches. `own` tells the caller's rules of this table, when they are known.
    pub(super) fn find(&self, seen: &Seen<'_>, lean: Lean, own: fn(&CallerRules) -> &Few) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        if let Some(few) = seen.caller_rules().and_then(|rules| own(rules).as_deref()) {
            return few
                .iter()
                .map(|number| &self.rules[*number as usize])
                .find(|rule| rule.matches(seen, lean));
        }
        // Where one reading is enough, the index would have to know them all: such calls are rare, and ask every rule.
        let odd = (self.by_path && seen.has_odd_path()) || (self.by_method && seen.has_odd_method());
        if lean == Lean::Any && odd {
            return self.rules.iter().find(|rule| rule.matches(seen, lean));
        }
        let (hashes, caller) = (seen.hashes(), seen.caller_hashes());
        let mut first = self.rules.len() as u32;
        for (place, kind) in self.kinds.iter().enumerate() {
            let Some(hash) = hashes.triple(caller, *kind) else { continue };
            let found = self.places.get(&mix(place, hash)).map(Vec::as_slice).unwrap_or_default();
            let earlier = found.iter().take_while(|number| **number < first);
            let matching = earlier.copied().find(|number| self.rules[*number as usize].matches(seen, lean));
            first = matching.unwrap_or(first);
        }
        self.rules.get(first as usize)
    }
}

/// The place of a kind among those that are known, which it joins.
fn place<K: PartialEq>(known: &mut Vec<K>, kind: K) -> usize {
    known.iter().position(|own| *own == kind).unwrap_or_else(|| {
        known.push(kind);
        known.len() - 1
    })
}

/// Lays a rule under a hash, once.
fn lay(places: &mut HashedMap<Vec<u32>>, hash: u64, rule: usize) {
    let rules = places.entry(hash).or_default();
    if rules.last() != Some(&(rule as u32)) {
        rules.push(rule as u32);
    }
}

/// One hash of several.
fn mix(place: usize, hash: u64) -> u64 {
    Fnv::START.extend(&[place as u8]).finish().wrapping_add(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn triple(who: u64, path: u64, method: u64) -> u64 {
    who ^ path.rotate_left(21) ^ method.rotate_left(42)
}

fn account(namespace: &str, name: &str) -> u64 {
    Fnv::START.extend(namespace.as_bytes()).extend(b"/").extend(name.as_bytes()).finish()
}

impl CallerHashes {
    pub(super) fn of(principal: Option<&Principal>) -> CallerHashes {
        let namespace = principal.and_then(|own| own.namespace.as_deref());
        let name = principal.and_then(|own| own.name.as_deref());
        let (starts, id) = Starts::of(principal.map_or("", |own| &own.id));
        CallerHashes {
            principal: principal.map(|_| id),
            starts,
            namespace: namespace.map(|namespace| key(namespace.as_bytes())),
            account: namespace.zip(name).map(|(namespace, name)| account(namespace, name)),
        }
    }

    fn hash(&self, who: Who) -> Option<u64> {
        match who {
            Who::Anybody => Some(0),
            Who::Principal => self.principal,
            Who::PrincipalStart(slash) => self.starts.get(slash),
            Who::Namespace => self.namespace,
            Who::Account => self.account,
        }
    }
}

impl Hashes {
    pub(super) fn of(seen: &Seen<'_>) -> Hashes {
        let head = seen.asking.head;
        let (starts, whole) = Starts::of(head.path());
        Hashes { whole, starts, method: key(head.method().as_bytes()) }
    }

    fn triple(&self, caller: &CallerHashes, kind: Kind) -> Option<u64> {
        let who = caller.hash(kind.who)?;
        let path = match kind.path {
            Path::Any => 0,
            Path::Whole => self.whole,
            Path::Start(slash) => self.starts.get(slash)?,
        };
        Some(triple(who, path, if kind.method { self.method } else { 0 }))
    }
}

/// The lists of conditions of which one has to hold as a whole for a rule to match.
fn alternatives(rule: &Rule) -> impl Iterator<Item = Vec<&Condition>> {
    or_none(&rule.from).flat_map(move |source| {
        or_none(&rule.to).map(move |operation| source.iter().chain(operation).chain(&rule.when).collect())
    })
}

/// Every triple under which a rule lies.
fn triples(rule: &Rule) -> Vec<(Kind, u64)> {
    let mut all = Vec::new();
    for conditions in alternatives(rule) {
        let mut who = who_calls(&conditions);
        let mut paths = paths(&conditions);
        let mut methods = methods(&conditions);
        let too_many = |who: &[_], paths: &[_], methods: &[_]| who.len() * paths.len() * methods.len() > MOST;
        if too_many(&who, &paths, &methods) {
            methods = vec![None];
        }
        if too_many(&who, &paths, &methods) && who.len() > 1 && paths.len() > 1 {
            if who.len() < paths.len() {
                who = vec![(Who::Anybody, 0)];
            } else {
                paths = vec![(Path::Any, 0)];
            }
        }
        for (who, caller) in &who {
            for (path, start) in &paths {
                for method in &methods {
                    let kind = Kind { who: *who, path: *path, method: method.is_some() };
                    all.push((kind, triple(*caller, *start, method.unwrap_or(0))));
                }
            }
        }
    }
    all
}

/// The lists, or an empty one that always holds.
fn or_none(lists: &[Box<[Condition]>]) -> impl Iterator<Item = &[Condition]> {
    let none: Option<&[Condition]> = lists.is_empty().then_some(&[]);
    lists.iter().map(|list| &**list).chain(none)
}

/// The values that one of the conditions on `attribute` asks for.
fn wanted<'c>(conditions: &[&'c Condition], attribute: &Attribute) -> Option<&'c Want> {
    conditions.iter().filter(|own| own.attribute == *attribute).find_map(|own| own.any_of.as_ref())
}

fn exact(want: Option<&Want>) -> Option<Vec<u64>> {
    match want? {
        Want::Texts(texts) => Some(texts.all_exact()?.map(key).collect()),
        _ => None,
    }
}

fn who_calls(conditions: &[&Condition]) -> Vec<(Who, u64)> {
    let of = |who: Who, hashes: Vec<u64>| hashes.into_iter().map(|hash| (who, hash)).collect();
    if let Some(all) = principals(wanted(conditions, &Attribute::Principal)) {
        return all;
    }
    if let Some(Want::Accounts(accounts)) = wanted(conditions, &Attribute::ServiceAccount) {
        return of(Who::Account, accounts.iter().map(|(namespace, name)| account(namespace, name)).collect());
    }
    match exact(wanted(conditions, &Attribute::Namespace)) {
        Some(hashes) => of(Who::Namespace, hashes),
        None => vec![(Who::Anybody, 0)],
    }
}

/// Those that are named as a whole, and the beginnings of others; `None`: some are named by neither.
fn principals(want: Option<&Want>) -> Option<Vec<(Who, u64)>> {
    let Want::Texts(texts) = want? else { return None };
    let (whole, patterns) = texts.parts()?;
    let mut all: Vec<(Who, u64)> = whole.map(|id| (Who::Principal, key(id))).collect();
    for pattern in patterns {
        let Pattern::Prefix(prefix) = pattern else { return None };
        let (number, at) = last_slash(prefix)?;
        all.push((Who::PrincipalStart(number), key(&prefix[..=at])));
    }
    Some(all)
}

fn methods(conditions: &[&Condition]) -> Vec<Option<u64>> {
    match exact(wanted(conditions, &Attribute::Method)) {
        Some(hashes) => hashes.into_iter().map(Some).collect(),
        None => vec![None],
    }
}

fn paths(conditions: &[&Condition]) -> Vec<(Path, u64)> {
    let Some(Want::Texts(texts)) = wanted(conditions, &Attribute::Path) else { return vec![(Path::Any, 0)] };
    let Some((whole, patterns)) = texts.parts() else { return vec![(Path::Any, 0)] };
    let mut all: Vec<(Path, u64)> = whole.map(|path| (Path::Whole, key(path))).collect();
    for pattern in patterns {
        match pattern {
            Pattern::Prefix(prefix) => all.push(start(prefix)),
            Pattern::Template(template) => all.push(start(template.start())),
            Pattern::Suffix(_) | Pattern::Glob(_) => return vec![(Path::Any, 0)],
        }
    }
    all
}

/// The segments that a beginning has in full.
fn start(prefix: &[u8]) -> (Path, u64) {
    match last_slash(prefix) {
        // Every path begins with a slash.
        None | Some((0, _)) => (Path::Any, 0),
        Some((number, at)) => (Path::Start(number), key(&prefix[..=at])),
    }
}

/// The number and the place of the last slash that counts.
fn last_slash(text: &[u8]) -> Option<(usize, usize)> {
    let slashes = text.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.take(DEEPEST + 1).enumerate().last()
}

//! Chains that are good, and every way in which one is not.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use pilotfish_filters::delegation::Delegated;
use pilotfish_identity::{Bundles, Credentials, Identity, LiveIdentity, Peer, SpiffeId, TrustDomain, Usage};
use pilotfish_testkit::ca::{Ca, Leaf};

use super::link;
use super::verify::{Verified, seconds, verify, without_scheme};
use super::{ACTED_FOR, LIFETIME, LONGEST, MOST_LINKS, SKEW};

const DOMAIN: &str = "mesh.test";

/// A mesh whose sidecars are here by name.
struct Mesh {
    ca: Ca,
    live: Arc<LiveIdentity>,
    now: u64,
}

/// A sidecar, as itself and as others see it.
struct Agent {
    own: Credentials,
    peer: Peer,
}

impl Agent {
    fn id(&self) -> &str {
        without_scheme(&self.own.id)
    }
}

impl Mesh {
    fn new() -> Mesh {
        let ca = Ca::new(DOMAIN);
        let domain = TrustDomain::parse(DOMAIN).unwrap();
        let bundles = Arc::new(Bundles::from_pem(&BTreeMap::from([(domain, ca.root_pem())])).unwrap());
        let live = LiveIdentity::new(Identity { bundles, ..Identity::default() });
        let now = seconds(live.now());
        Mesh { ca, live, now }
    }

    fn agent(&self, name: &str) -> Agent {
        let issued = self.ca.issue(&Leaf::agent(DOMAIN, "default", name));
        let own = Credentials::from_pem(&issued.chain, &issued.key).unwrap();
        let peer = self.live.verify(&own.chain, Usage::Client).unwrap();
        Agent { own, peer }
    }

    fn verify(&self, text: &str, from: &Agent, to: &Agent) -> Result<Verified, String> {
        self.verify_at(text, from, to, self.now)
    }

    fn verify_at(&self, text: &str, from: &Agent, to: &Agent, now: u64) -> Result<Verified, String> {
        verify(text.as_bytes(), &from.peer, to.id(), &self.live, now).map_err(|why| why.to_string())
    }

    /// The header of the last call, of agents that call one another in this order; and what the last but one acts for.
    fn chain(&self, agents: &[&Agent], origin: &str) -> String {
        let mut acting: Option<Arc<Delegated>> = (!origin.is_empty())
            .then(|| Arc::new(Delegated { origin: origin.into(), ..Delegated::default() }));
        let mut text = String::new();
        for pair in agents.windows(2) {
            let [from, to] = pair else { unreachable!() };
            text = link::write(&from.own, to.id(), acting.as_deref(), self.now).unwrap();
            acting = Some(self.verify(&text, from, to).unwrap().onward);
        }
        text
    }
}

fn names(verified: &Verified) -> Vec<&str> {
    let chain = verified.chain.as_ref();
    chain.iter().flat_map(|chain| chain.agents.iter().filter_map(|agent| agent.name.as_deref())).collect()
}

#[test]
fn a_chain_says_who_asked_whom() {
    let mesh = Mesh::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| mesh.agent(name));
    let direct = mesh.verify(&mesh.chain(&[&a, &b], ""), &a, &b).unwrap();
    assert_eq!(direct.chain, None);
    assert_eq!(direct.onward.agents.len(), 1);
    let third = mesh.verify(&mesh.chain(&[&a, &b, &c], ""), &b, &c).unwrap();
    assert_eq!(names(&third), ["a"]);
    assert_eq!(&*third.chain.as_ref().unwrap().origin, a.id());
    let fourth = mesh.verify(&mesh.chain(&[&a, &b, &c, &d], "iss/anna"), &c, &d).unwrap();
    assert_eq!(names(&fourth), ["a", "b"]);
    assert_eq!(&*fourth.chain.as_ref().unwrap().origin, "iss/anna");
    assert!(!fourth.onward.uncertain);
}

#[test]
fn no_bit_of_it_can_be_changed() {
    let mesh = Mesh::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| mesh.agent(name));
    let text = mesh.chain(&[&a, &b, &c], "iss/anna");
    assert!(mesh.verify(&text, &b, &c).is_ok());
    // Every bit of the newest link, and of every seventh byte of what came before: certificates are long.
    let newest = text.rfind('~').unwrap();
    for at in (0..newest).step_by(7).chain(newest..text.len()) {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let taken = verify(&bytes, &b.peer, c.id(), &mesh.live, mesh.now);
            assert!(taken.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn links_cannot_be_left_out_moved_or_shown_by_others() {
    let mesh = Mesh::new();
    let [a, b, c, d, evil] = ["a", "b", "c", "d", "evil"].map(|name| mesh.agent(name));
    let text = mesh.chain(&[&a, &b, &c, &d], "");
    assert!(mesh.verify(&text, &c, &d).is_ok());
    let links: Vec<&str> = text.split('~').collect();
    let [one, two, three] = links[..] else { panic!("{text}") };
    for cut in [
        three.to_owned(),
        format!("{two}~{three}"),
        format!("{one}~{three}"),
        format!("{two}~{one}~{three}"),
        format!("{one}~{one}~{two}~{three}"),
        format!("{one}~{two}"),
        String::new(),
        format!("{text}~"),
        format!("~{text}"),
    ] {
        assert!(mesh.verify(&cut, &c, &d).is_err(), "{cut}");
    }
    // By another sidecar, to another, and as if it were the call before.
    assert!(mesh.verify(&text, &evil, &d).is_err());
    assert!(mesh.verify(&text, &c, &evil).is_err());
    let before = mesh.chain(&[&a, &b, &c], "");
    assert!(mesh.verify(&before, &c, &d).is_err());
    // A link that somebody else signed in the caller's name.
    let acting = mesh.verify(&before, &b, &c).unwrap().onward;
    let forged = link::write(&evil.own, d.id(), Some(&acting), mesh.now).unwrap();
    let why = mesh.verify(&forged, &c, &d).unwrap_err();
    assert!(why.contains("somebody else"), "{why}");
    assert!(mesh.verify(&forged, &evil, &d).is_err(), "the chain was never handed to it");
    // From another mesh that calls itself the same.
    let other = Mesh::new();
    let stranger = other.agent("c");
    let foreign = other.chain(&[&stranger, &other.agent("d")], "");
    assert!(mesh.verify(&foreign, &c, &d).is_err());
}

#[test]
fn times_hold_with_a_minute_for_clocks() {
    let mesh = Mesh::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| mesh.agent(name));
    let text = mesh.chain(&[&a, &b], "");
    let at = |now: u64| mesh.verify_at(&text, &a, &b, now).map(|_| ());
    assert_eq!(at(mesh.now - SKEW), Ok(()));
    assert!(at(mesh.now - SKEW - 1).is_err());
    assert_eq!(at(mesh.now + LIFETIME + SKEW), Ok(()));
    assert!(at(mesh.now + LIFETIME + SKEW + 1).is_err());
    // A call that takes long: its links outlive their time, as far as they were shown in time.
    let acting = mesh.verify(&text, &a, &b).unwrap().onward;
    let later = mesh.now + ACTED_FOR;
    let slow = link::write(&b.own, c.id(), Some(&acting), later).unwrap();
    assert_eq!(names(&mesh.verify_at(&slow, &b, &c, later).unwrap()), ["a"]);
    assert!(mesh.verify_at(&slow, &b, &c, later + SKEW + 1).is_err());
    // Afterwards it is said, and that nothing proves it.
    let slower = link::write(&b.own, c.id(), Some(&acting), later + 1).unwrap();
    let said = mesh.verify_at(&slower, &b, &c, later + 1).unwrap();
    assert!(!slower.contains('~') && names(&said) == ["a"]);
    let chain = said.chain.unwrap();
    assert!(chain.uncertain && chain.origin.is_empty());
    // A link that was late already when it was shown.
    let acting = Delegated { received: mesh.now + LIFETIME + SKEW + 1, ..(*acting).clone() };
    let late = link::write(&b.own, c.id(), Some(&acting), acting.received).unwrap();
    assert!(mesh.verify_at(&late, &b, &c, acting.received).is_err());
}

#[test]
fn a_chain_through_a_revoked_agent_is_none() {
    let mesh = Mesh::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| mesh.agent(name));
    let text = mesh.chain(&[&a, &b, &c], "");
    let revoked = SpiffeId::parse(&format!("spiffe://{DOMAIN}/ns/default/agent/a")).unwrap();
    mesh.live.update(|identity| identity.revoked = Arc::new(HashSet::from([revoked.clone()])));
    assert!(mesh.verify(&text, &b, &c).unwrap_err().contains("certificate"));
}

#[test]
fn what_is_not_certain_is_said_so() {
    let mesh = Mesh::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| mesh.agent(name));
    let acting = |agent: &Agent| mesh.verify(&mesh.chain(&[agent, &c], ""), agent, &c).unwrap().onward;
    let any = Delegated::any_of([Some(&acting(&a)), Some(&acting(&b)), None]);
    let text = link::write(&c.own, d.id(), any.as_deref(), mesh.now).unwrap();
    let verified = mesh.verify(&text, &c, &d).unwrap();
    assert_eq!(names(&verified), ["a", "b"]);
    assert!(verified.chain.as_ref().unwrap().uncertain && verified.onward.uncertain);
    // It goes on with what follows, signed.
    let e = mesh.agent("e");
    let onward = link::write(&d.own, e.id(), Some(&verified.onward), mesh.now).unwrap();
    let onward = mesh.verify(&onward, &d, &e).unwrap();
    assert_eq!(names(&onward), ["a", "b", "c"]);
    assert!(onward.chain.unwrap().uncertain);
}

#[test]
fn it_stays_within_bounds() {
    let mesh = Mesh::new();
    let all: Vec<Agent> = (0..=MOST_LINKS + 1).map(|number| mesh.agent(&format!("a{number}"))).collect();
    let most: Vec<&Agent> = all.iter().take(MOST_LINKS + 1).collect();
    let text = mesh.chain(&most, "");
    assert!(text.len() <= LONGEST && text.split('~').count() == MOST_LINKS, "{}", text.len());
    let (from, to) = (most[MOST_LINKS - 1], most[MOST_LINKS]);
    let acting = mesh.verify(&text, from, to).unwrap().onward;
    let next = link::write(&to.own, all[MOST_LINKS + 1].id(), Some(&acting), mesh.now).unwrap();
    let verified = mesh.verify(&next, to, &all[MOST_LINKS + 1]).unwrap();
    assert!(verified.chain.unwrap().uncertain && verified.onward.agents.len() == MOST_LINKS + 1);
    assert!(mesh.verify(&"a".repeat(LONGEST + 1), from, to).unwrap_err().contains("longer"));
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let length = rng.usize(..200);
        let garbage: String = (0..length).map(|_| char::from(b"aZ09-_.~="[rng.usize(..9)])).collect();
        assert!(mesh.verify(&garbage, from, to).is_err(), "{garbage}");
    }
}

#[test]
fn a_link_may_bring_its_certificate() {
    let mesh = Mesh::new();
    let [old, b, evil] = ["a", "b", "evil"].map(|name| mesh.agent(name));
    // The same agent, after its certificate was renewed: the connection is from before.
    let new = mesh.agent("a");
    let mut text = link::write(&new.own, b.id(), None, mesh.now).unwrap();
    assert!(mesh.verify(&text, &old, &b).unwrap_err().contains("signature"));
    link::add_certificates(&mut text, &new.own.chain);
    assert!(mesh.verify(&text, &old, &b).is_ok());
    assert!(mesh.verify(&text, &evil, &b).unwrap_err().contains("somebody else"));
}

#[test]
fn a_header_grows_by_a_link_with_its_certificates_and_is_written_once() {
    let mesh = Mesh::new();
    let agents: Vec<Agent> = (0..6).map(|number| mesh.agent(&format!("agent-{number}"))).collect();
    let all: Vec<&Agent> = agents.iter().collect();
    let sizes: Vec<usize> = (2..=6).map(|count| mesh.chain(&all[..count], "").len()).collect();
    // The newest link goes without certificates: most calls are for nobody else, and cost this.
    assert!(sizes[0] <= 360, "{sizes:?}");
    // What a further agent costs is mostly its certificates (this authority's are a leaf and an intermediate).
    let certificates: usize = agents[0].own.chain.iter().map(|der| (der.len() + 2).div_ceil(3) * 4).sum();
    assert!(sizes.windows(2).all(|pair| pair[1] - pair[0] <= certificates + 440), "{certificates} {sizes:?}");
    println!("bytes of a header by links: {sizes:?}, of which certificates {certificates} a link");
}

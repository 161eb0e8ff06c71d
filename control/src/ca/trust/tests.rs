//! Roots and revocations, as every control plane of a store sees them.

use pilotfish_testkit::ca::{Ca, Leaf};

use super::*;
use crate::store::memory::Memory;

struct Plane {
    authority: Authority,
    trust: Arc<Trust>,
    _data: tempfile::TempDir,
}

async fn plane(store: &Arc<Memory>) -> Plane {
    let data = tempfile::tempdir().unwrap();
    let authority = Authority::open(data.path(), None).unwrap();
    let trust = Trust::open(store.clone(), &authority).await.unwrap();
    Plane { authority, trust, _data: data }
}

fn agent(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/agent/{name}")).unwrap()
}

fn roots(trust: &wire::Trust) -> usize {
    trust.bundles["cluster.local"].matches("BEGIN").count()
}

#[tokio::test]
async fn a_revocation_reaches_every_control_plane() {
    let store = Arc::new(Memory::new());
    let (one, two) = (plane(&store).await, plane(&store).await);
    let mut seen = two.trust.watch();
    seen.borrow_and_update();
    one.trust.revoke(&agent("planner")).await.unwrap();
    assert!(one.trust.is_revoked(&agent("planner")) && !one.trust.is_revoked(&agent("coder")));
    seen.wait_for(|trust| trust.revoked == [agent("planner").as_str()]).await.unwrap();
    assert!(two.trust.is_revoked(&agent("planner")));
    two.trust.revoke(&agent("planner")).await.unwrap();
    two.trust.readmit(&agent("planner")).await.unwrap();
    one.trust.watch().wait_for(|trust| trust.revoked.is_empty()).await.unwrap();
    assert!(matches!(two.trust.readmit(&agent("planner")).await, Err(NotTrusted::Unknown(_))));
    let foreign = SpiffeId::parse("spiffe://other.test/ns/default/agent/planner").unwrap();
    let control = SpiffeId::control(two.authority.domain(), "one").unwrap();
    for id in [foreign, control] {
        assert!(matches!(one.trust.revoke(&id).await, Err(NotTrusted::Invalid(_))), "{id}");
    }
}

#[tokio::test]
async fn two_roots_are_trusted_while_one_replaces_the_other() {
    let store = Arc::new(Memory::new());
    let old = plane(&store).await;
    assert_eq!(roots(&old.trust.newest()), 1);
    let next = Ca::new("cluster.local");
    old.trust.add_root(&next.root_pem()).await.unwrap();
    old.trust.add_root(&next.root_pem()).await.unwrap();
    assert_eq!(roots(&old.trust.newest()), 2);
    assert!(Bundles::from_wire(&old.trust.newest().bundles).is_ok());
    let status = old.trust.status(&old.authority).unwrap();
    assert_eq!(status.roots.len(), 2);
    // The control plane starts again with an intermediate of the new root.
    let data = tempfile::tempdir().unwrap();
    let (chain, key) = (data.path().join("ca.pem"), data.path().join("ca.key"));
    std::fs::write(&chain, next.intermediate_pem() + &next.root_pem()).unwrap();
    std::fs::write(&key, next.intermediate_key_pem()).unwrap();
    let brought = Authority::bring(data.path(), None, &chain, &key).unwrap();
    let trust = Trust::open(store.clone(), &brought).await.unwrap();
    assert_eq!(roots(&trust.newest()), 2);
    assert!(matches!(trust.remove_root(&brought, &brought.fingerprint()).await, Err(NotTrusted::InUse(_))));
    let gone = old.authority.fingerprint();
    for bad in ["", &gone[..7], &"0".repeat(64)] {
        assert!(matches!(trust.remove_root(&brought, bad).await, Err(NotTrusted::Unknown(_))), "{bad}");
    }
    trust.remove_root(&brought, &gone[..12].to_uppercase()).await.unwrap();
    assert_eq!(roots(&trust.newest()), 1);
    old.trust.watch().wait_for(|trust| roots(trust) == 1).await.unwrap();
}

#[tokio::test]
async fn what_is_no_root_is_not_added() {
    let store = Arc::new(Memory::new());
    let plane = plane(&store).await;
    let (ca, ended) = (Ca::new("cluster.local"), Ca::lasting("cluster.local", -7200, -60));
    let leaf = ca.issue(&Leaf::agent("cluster.local", "default", "a")).chain;
    let two = ca.root_pem() + &Ca::new("cluster.local").root_pem();
    for bad in ["", "nonsense", leaf.as_str(), &two, &ended.root_pem()] {
        assert!(matches!(plane.trust.add_root(bad).await, Err(NotTrusted::Invalid(_))), "{bad}");
    }
    assert_eq!(roots(&plane.trust.newest()), 1);
}

#[tokio::test]
async fn documents_federate_other_domains_only() {
    let store = Arc::new(Memory::new());
    let plane = plane(&store).await;
    let mut seen = plane.trust.watch();
    seen.borrow_and_update();
    let (partner, thief) = (Ca::new("partner.test"), Ca::new("cluster.local"));
    plane.trust.federate(BTreeMap::from([
        ("partner.test".to_owned(), partner.root_pem()),
        ("cluster.local".to_owned(), thief.root_pem()),
        ("broken.test".to_owned(), "nonsense".to_owned()),
    ]));
    assert!(seen.has_changed().unwrap());
    let trust = plane.trust.newest();
    assert_eq!(trust.bundles.keys().collect::<Vec<_>>(), ["cluster.local", "partner.test"]);
    assert_eq!(roots(&trust), 1);
    assert_eq!(plane.trust.status(&plane.authority).unwrap().federated.len(), 1);
    plane.trust.federate(BTreeMap::new());
    assert_eq!(plane.trust.newest().bundles.len(), 1);
}

#[tokio::test]
async fn control_planes_of_one_store_agree_on_the_trust_domain() {
    let store = Arc::new(Memory::new());
    let _one = plane(&store).await;
    let data = tempfile::tempdir().unwrap();
    let other = TrustDomain::parse("other.test").unwrap();
    let authority = Authority::open(data.path(), Some(&other)).unwrap();
    let refused = Trust::open(store.clone(), &authority).await.unwrap_err();
    assert_eq!(refused, NotTrusted::OtherDomain("cluster.local".into()));
    assert!(store.list(ROOT).await.unwrap().entries.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_misses_nothing() {
    let store = Arc::new(Memory::new());
    let (one, two) = (plane(&store).await, plane(&store).await);
    // Let both follow the store before it breaks.
    one.trust.revoke(&agent("first")).await.unwrap();
    two.trust.watch().wait_for(|trust| trust.revoked.len() == 1).await.unwrap();
    store.break_watches();
    one.trust.revoke(&agent("second")).await.unwrap();
    two.trust.watch().wait_for(|trust| trust.revoked.len() == 2).await.unwrap();
    // And again after the store was away.
    store.break_watches();
    store.fail(Some(StoreError::Unavailable { why: "away".into(), unsure: false }));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(two.trust.is_revoked(&agent("first")), "what is known stays in force");
    store.fail(None);
    one.trust.readmit(&agent("first")).await.unwrap();
    two.trust.watch().wait_for(|trust| trust.revoked.len() == 1).await.unwrap();
}

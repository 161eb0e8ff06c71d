//! The contract on a real etcd, and what happens when a member of it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{Client, CompactionOptions};
use pilotfish_control::store::etcd::EtcdStore;
use pilotfish_control::store::{Batch, Store, StoreError, Tls};
use pilotfish_testkit::Nobody;
use tempfile::TempDir;

use super::contract::{self, next, put};

/// The Debian package's.
const ETCD: &str = "/usr/bin/etcd";

/// Members of one cluster on this machine; killed when it is dropped.
pub struct Etcd {
    members: Vec<Member>,
    /// Their ports.
    _places: [Vec<Nobody>; 2],
    _folder: TempDir,
}

struct Member {
    client: u16,
    process: Child,
}

impl Etcd {
    /// Starts a cluster, when etcd is installed; in CI it has to be.
    pub async fn start(members: usize) -> Option<Etcd> {
        Etcd::start_with(members, &[]).await
    }

    async fn start_with(members: usize, more: &[String]) -> Option<Etcd> {
        if !Path::new(ETCD).exists() {
            assert!(std::env::var_os("CI").is_none(), "{ETCD} is missing: make deps");
            println!("skipped: {ETCD} is missing (make deps)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let places = [(); 2].map(|()| (0..members).map(|_| Nobody::new()).collect::<Vec<_>>());
        let [clients, peers] = &places;
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(n, place)| format!("m{n}=http://{}", place.addr())).collect();
        let start = |n: usize| {
            let scheme = if more.is_empty() { "http" } else { "https" };
            let client = format!("{scheme}://{}", clients[n].addr());
            let peer = format!("http://{}", peers[n].addr());
            let flags = [
                ("--name", format!("m{n}")),
                ("--data-dir", folder.path().join(format!("m{n}")).display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", cluster.join(",")),
                ("--heartbeat-interval", "50".into()),
                ("--election-timeout", "500".into()),
                ("--log-level", "error".into()),
            ];
            let mut command = Command::new(ETCD);
            for (flag, value) in flags {
                command.args([flag, value.as_str()]);
            }
            let process = command.args(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            Member { client: clients[n].port(), process }
        };
        let members = (0..members).map(start).collect();
        Some(Etcd { members, _places: places, _folder: folder })
    }

    /// As `--store` takes it.
    pub fn url(&self) -> String {
        let members: Vec<String> =
            self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect();
        format!("etcd://{}", members.join(","))
    }

    /// A store on it, as soon as it answers.
    pub async fn store(&self) -> Arc<dyn Store> {
        self.store_with(&Tls::default()).await
    }

    async fn store_with(&self, tls: &Tls) -> Arc<dyn Store> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match EtcdStore::connect(&self.url(), tls).await {
                Ok(store) => return Arc::new(store),
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9 of the leader.
    pub async fn kill_leader(&mut self) {
        // Under load there may be none for a while.
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if self.kill_who_leads().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no leader");
    }

    async fn kill_who_leads(&mut self) -> bool {
        for member in &mut self.members {
            let Ok(mut client) = Client::connect([format!("127.0.0.1:{}", member.client)], None).await else {
                continue;
            };
            let Ok(status) = client.status().await else { continue };
            if status.header().unwrap().member_id() == status.leader() {
                member.process.kill().unwrap();
                member.process.wait().unwrap();
                return true;
            }
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let Some(etcd) = Etcd::start(1).await else { return };
    contract::keeps(etcd.store().await).await;
    contract::limits(etcd.store().await).await;
}

#[tokio::test]
async fn what_etcd_has_forgotten_is_listed_again() {
    let Some(etcd) = Etcd::start(1).await else { return };
    let store = etcd.store().await;
    let first = store.batch(put("a", "1")).await.unwrap();
    let last = store.batch(put("a", "2")).await.unwrap();
    let mut client = Client::connect([etcd.url().replace("etcd://", "")], None).await.unwrap();
    client.compact(last as i64, Some(CompactionOptions::new().with_physical())).await.unwrap();
    let mut watch = store.watch("a", first - 1).await.unwrap();
    let refused = next(&mut watch).await.unwrap_err();
    assert!(refused.to_string().contains("list again"), "{refused}");
    let mut watch = store.watch("a", last).await.unwrap();
    store.batch(put("a", "3")).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap()[0].value.as_deref(), Some(&b"3"[..]));
}

#[tokio::test]
async fn nobody_there_is_a_clear_error_in_time() {
    let nobody = Nobody::new();
    let port = nobody.port();
    let before = Instant::now();
    let refused = EtcdStore::connect(&format!("etcd://127.0.0.1:{port}"), &Tls::default()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { unsure: false, .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("etcd at 127.0.0.1:{port}")), "{refused}");
    assert!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
}

/// Every acknowledged batch of several writers, while the leader is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_batches_survive_the_leader() {
    let Some(mut etcd) = Etcd::start(3).await else { return };
    let store = etcd.store().await;
    let ending = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let writers = (0..4).map(|lane| {
        let (store, ending, acknowledged) = (store.clone(), ending.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for number in 0.. {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("k/{lane}/{number:06}");
                let put = (0..3).map(|part| (format!("{name}/{part}"), "x".into())).collect();
                match store.batch(Batch { put, ..Batch::default() }).await {
                    Ok(_) => drop(acknowledged.lock().unwrap().insert(name)),
                    Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error}"),
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut watch = store.watch("k/", 0).await.unwrap();
    let count = || acknowledged.lock().unwrap().len();
    let wait = async |more: usize| {
        let (before, end) = (count(), Instant::now() + Duration::from_secs(60));
        while count() < before + more {
            assert!(Instant::now() < end, "no progress after {before} batches");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    wait(50).await;
    let before = Instant::now();
    etcd.kill_leader().await;
    wait(1).await;
    let away = before.elapsed();
    wait(100).await;
    ending.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let mut parts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in store.list("k/").await.unwrap().entries {
        *parts.entry(entry.key.rsplit_once('/').unwrap().0.to_owned()).or_default() += 1;
    }
    assert!(parts.values().all(|count| *count == 3));
    let acknowledged = acknowledged.lock().unwrap().clone();
    let lost: Vec<_> = acknowledged.iter().filter(|own| !parts.contains_key(*own)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // The watch went through it all without missing one.
    let end = store.batch(put("k/end", "")).await.unwrap();
    let mut seen = BTreeSet::new();
    loop {
        let changes = next(&mut watch).await.unwrap();
        seen.extend(changes.iter().filter_map(|change| Some(change.key.rsplit_once('/')?.0.to_owned())));
        if changes[0].revision == end {
            break;
        }
    }
    assert!(parts.keys().all(|batch| seen.contains(batch)));
    println!("{} batches acknowledged, writes went on after {away:?}", acknowledged.len());
}

/// TLS with client certificates, and what is refused without them.
#[tokio::test]
async fn over_tls_with_client_certificates() {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &ca).unwrap();
        (file(&format!("{name}.pem"), cert.pem()), file(&format!("{name}.key"), key.serialize_pem()))
    };
    let root = file("ca.pem", ca.pem());
    let ((server, server_key), (cert, key)) = (leaf("server"), leaf("client"));
    let flag = |name: &str, path: &Path| format!("{name}={}", path.display());
    let flags = [
        flag("--cert-file", &server),
        flag("--key-file", &server_key),
        flag("--trusted-ca-file", &root),
        "--client-cert-auth".to_owned(),
    ];
    let Some(etcd) = Etcd::start_with(1, &flags).await else { return };
    let tls = Tls { ca: Some(root.clone()), cert: Some(cert), key: Some(key) };
    let store = etcd.store_with(&tls).await;
    store.batch(put("a", "1")).await.unwrap();
    let without = EtcdStore::connect(&etcd.url(), &Tls { ca: Some(root), ..Tls::default() }).await;
    assert!(matches!(without, Err(StoreError::Unavailable { .. })), "{without:?}");
    let plain = EtcdStore::connect(&etcd.url(), &Tls::default()).await;
    assert!(matches!(plain, Err(StoreError::Unavailable { .. })), "{plain:?}");
}

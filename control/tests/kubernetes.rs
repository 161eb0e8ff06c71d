//! The Kubernetes executor against an API server of ours: what it makes, changes, deletes and leaves alone; what it says
//! when it cannot.
//!
//! `golden/kubernetes/*.json` are the objects that it makes; `UPDATE_GOLDEN=1` writes them anew: read the difference.

mod cluster;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_config::model::{
    AgentAffinity, Deployment, Disruption, Runtime, TaintEffect, Toleration, Topology,
};
use pilotfish_config::wire::node::ReplicaPhase;
use pilotfish_control::api::types::{PlacementView, Scale};
use pilotfish_control::ca::Authority;
use pilotfish_control::ca::tokens::Tokens;
use pilotfish_control::orchestrator::executor::kubernetes::{Kubernetes, Settings};
use pilotfish_control::orchestrator::executor::{Desired, Executor, Observed};
use pilotfish_control::placement::demand::Wanted;
use pilotfish_control::placement::world::{Group, Need};
use pilotfish_control::store::memory::Memory;
use serde_json::{Value, json};

use crate::orchestrator;
use crate::support::serve::start_to_fail;
use crate::support::{Http, Serve};

use cluster::{Cluster, Illness};

/// Everything happens within milliseconds; a busy machine needs more.
const SOON: Duration = Duration::from_secs(60);

fn wanted(namespace: &str, agent: &str) -> Wanted {
    let group = Group {
        id: format!("{namespace}/{agent}").into(),
        namespace: namespace.into(),
        agent: agent.into(),
        cluster: format!("{namespace}/support"),
        region: None,
        wanted: 1,
        need: Need { cpu_milli: 500, memory: 1 << 30, ..Need::default() },
        priority: 0,
        pool: None,
        node_selector: Default::default(),
        tolerations: Vec::new(),
        affinity: Vec::new(),
        anti_affinity: Vec::new(),
        gang: false,
        disruption: Disruption::default(),
        runtime: Runtime { image: Some("registry.example/nlp:1.0".into()), ..Runtime::default() },
        labels: Default::default(),
        generation: "1".into(),
    };
    Wanted { group, deployment: Deployment::Static, capacity: 0, waiting: None, without: Vec::new() }
}

fn desired(wanted: Wanted, replicas: u32) -> Desired {
    Desired { wanted: Arc::new(wanted), replicas, assignments: Vec::new() }
}

/// A cluster, and an executor that is told what should be there as long as a test waits for something.
struct Bench {
    cluster: Cluster,
    executor: Kubernetes,
    data: tempfile::TempDir,
}

async fn bench() -> Bench {
    let cluster = Cluster::start().await;
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("kubeconfig"), cluster.kubeconfig()).unwrap();
    let executor = executor(data.path(), None, SOON).await;
    Bench { cluster, executor, data }
}

async fn executor(data: &Path, namespace: Option<&str>, patience: Duration) -> Kubernetes {
    let settings = Settings {
        namespace: namespace.map(str::to_owned),
        control: "https://pilotfish.pilotfish-system.svc:15012".into(),
        proxy_image: "pilotfish-proxy:0.1.0".into(),
        mesh: "cluster.local".into(),
        recheck: Duration::from_millis(50),
        patience,
    };
    let authority = Authority::open(data, None).unwrap();
    let tokens = Tokens::new(Arc::new(Memory::new()), &authority);
    Kubernetes::start(settings, Some(&data.join("kubeconfig")), tokens).await.unwrap()
}

impl Bench {
    /// Tells the executor until it holds.
    async fn until(&self, term: u64, desired: &[Desired], mut holds: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        loop {
            let told = self.executor.reconcile(term, desired).await;
            if holds(self) {
                return;
            }
            assert!(since.elapsed() < SOON, "{told:?}: {:#?}", self.cluster.changes());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Tells the executor until it fails for a reason that has these words.
    async fn fails(&self, term: u64, desired: &[Desired], words: &str) -> String {
        let since = Instant::now();
        loop {
            let told = self.executor.reconcile(term, desired).await;
            match told {
                Err(error) if error.0.contains(words) => return error.0,
                told => assert!(since.elapsed() < SOON, "{words} is not in {told:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Tells the executor until it has looked at the cluster again, without any failure.
    async fn settled(&self, term: u64, desired: &[Desired]) {
        let (reads, mut good) = (self.cluster.reads(), 0);
        let since = Instant::now();
        while good < 3 || self.cluster.reads() < reads + 4 {
            let told = self.executor.reconcile(term, desired).await;
            good = if told.is_ok() { good + 1 } else { 0 };
            assert!(since.elapsed() < SOON, "{told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn observed(&self, mut holds: impl FnMut(&[Observed]) -> bool) -> Vec<Observed> {
        let since = Instant::now();
        loop {
            let seen = self.executor.observe().await;
            if let Ok(seen) = &seen
                && holds(seen)
            {
                return seen.clone();
            }
            assert!(since.elapsed() < SOON, "{seen:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn replicas(cluster: &Cluster, name: &str) -> Option<u64> {
    let found = cluster.of("deployments");
    let one = found.iter().find(|one| one["metadata"]["name"].as_str().unwrap().starts_with(name));
    one.and_then(|one| one["spec"]["replicas"].as_u64())
}

#[tokio::test]
async fn a_group_is_made_scaled_and_deleted() {
    let bench = bench().await;
    let three = [desired(wanted("production", "nlp_worker"), 3), desired(wanted("default", "planner"), 1)];
    bench.until(7, &three, |bench| bench.cluster.of("poddisruptionbudgets").len() == 2).await;
    let made = bench.cluster.only("deployments", "nlp-worker-");
    assert_eq!(made["metadata"]["namespace"], "production");
    assert_eq!(made["spec"]["replicas"], 3);
    assert_eq!(made["metadata"]["annotations"]["pilotfish.dev/term"], "7");
    for kind in ["secrets", "poddisruptionbudgets"] {
        let owned = bench.cluster.only(kind, "nlp-worker-");
        assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
    }
    // Nothing changes: nothing is written.
    bench.settled(7, &three).await;
    let writes = bench.cluster.changes().len();
    bench.settled(7, &three).await;
    assert_eq!(bench.cluster.changes().len(), writes, "{:#?}", bench.cluster.changes());

    let five = [desired(wanted("production", "nlp_worker"), 5), three[1].clone()];
    bench.until(7, &five, |bench| replicas(&bench.cluster, "nlp-worker-") == Some(5)).await;
    let scaled = bench.cluster.only("deployments", "nlp-worker-");
    assert_eq!(scaled["spec"]["template"], made["spec"]["template"], "a scaled group is not started anew");
    assert_eq!(scaled["metadata"]["uid"], made["metadata"]["uid"]);

    let one = [three[1].clone()];
    bench.until(7, &one, |bench| bench.cluster.of("deployments").len() == 1).await;
    assert_eq!(bench.cluster.of("secrets").len(), 1, "what a Deployment owns goes with it");
    assert_eq!(replicas(&bench.cluster, "planner-"), Some(1));
    bench.until(7, &[], |bench| bench.cluster.of("deployments").is_empty()).await;
}

#[tokio::test]
async fn what_others_change_is_put_back_and_what_is_theirs_is_left_alone() {
    let bench = bench().await;
    let foreign = json!({
        "metadata": { "namespace": "production", "name": "shop", "labels": { "app": "shop" } },
        "spec": { "replicas": 9 },
    });
    bench.cluster.put("deployments", foreign);
    let other_mesh = json!({
        "metadata": {
            "namespace": "production",
            "name": "nlp-of-another-mesh",
            "labels": { "app.kubernetes.io/managed-by": "pilotfish", "pilotfish.dev/mesh": "example.org" },
        },
        "spec": { "replicas": 2 },
    });
    bench.cluster.put("deployments", other_mesh);
    let three = [desired(wanted("production", "planner"), 3)];
    bench.until(7, &three, |bench| replicas(&bench.cluster, "planner-") == Some(3)).await;
    bench.cluster.change("deployments", "planner-", |live| {
        live["spec"]["replicas"] = json!(30);
        live["metadata"]["annotations"]["team"] = json!("support");
    });
    bench.until(7, &three, |bench| replicas(&bench.cluster, "planner-") == Some(3)).await;
    assert_eq!(bench.cluster.only("deployments", "planner-")["metadata"]["annotations"]["team"], "support");
    // Deleted by hand: made again, with what belongs to it.
    let name = bench.cluster.only("deployments", "planner-")["metadata"]["name"].as_str().unwrap().to_owned();
    bench.cluster.remove("deployments", "production", &name);
    bench.until(7, &three, |bench| bench.cluster.of("secrets").len() == 1).await;
    bench.until(7, &[], |bench| bench.cluster.of("deployments").len() == 2).await;
    assert_eq!(replicas(&bench.cluster, "shop"), Some(9));
    assert_eq!(replicas(&bench.cluster, "nlp-of"), Some(2));

    // Somebody else's object has the very name.
    let foreign =
        json!({ "metadata": { "namespace": "production", "name": name }, "spec": { "replicas": 8 } });
    bench.cluster.put("deployments", foreign);
    let why = bench.fails(7, &three, "is not Pilotfish's").await;
    assert!(why.starts_with("production/planner: production/planner-"), "{why}");
    assert_eq!(
        bench.executor.waiting(&three[0].wanted).unwrap().split_once(' ').unwrap().1,
        "is in the cluster already, and is not Pilotfish's"
    );
    assert_eq!(bench.cluster.only("deployments", "planner-")["spec"]["replicas"], 8);
}

#[tokio::test]
async fn an_overtaken_leader_changes_nothing() {
    let bench = bench().await;
    let (three, nine) =
        ([desired(wanted("default", "planner"), 3)], [desired(wanted("default", "planner"), 9)]);
    bench.until(8, &three, |bench| bench.cluster.of("poddisruptionbudgets").len() == 1).await;
    let writes = bench.cluster.changes().len();
    let why = bench.fails(7, &nine, "term 8").await;
    assert_eq!(why, "another control plane leads: the cluster has seen term 8, this one has 7");
    bench.fails(7, &[], "term 8").await;
    assert_eq!(bench.cluster.changes().len(), writes);
    assert_eq!(replicas(&bench.cluster, "planner-"), Some(3));

    // It is overtaken between its look and its write.
    bench.settled(8, &three).await;
    bench.cluster.meanwhile("deployments", |live| {
        live["metadata"]["annotations"]["pilotfish.dev/term"] = json!("11");
        live["spec"]["replicas"] = json!(4);
    });
    let why = bench.fails(8, &nine, "term 11").await;
    assert!(why.contains("this one has 8"), "{why}");
    assert_eq!(replicas(&bench.cluster, "planner-"), Some(4));
    // The next leader goes on, and no pod is started anew for it.
    let template = bench.cluster.only("deployments", "planner-")["spec"]["template"].clone();
    bench.until(12, &nine, |bench| replicas(&bench.cluster, "planner-") == Some(9)).await;
    let live = bench.cluster.only("deployments", "planner-");
    assert_eq!(live["metadata"]["annotations"]["pilotfish.dev/term"], "12");
    assert_eq!(live["spec"]["template"], template);
}

#[tokio::test]
async fn an_object_that_changes_meanwhile_is_read_again() {
    let bench = bench().await;
    let (three, five) =
        ([desired(wanted("default", "planner"), 3)], [desired(wanted("default", "planner"), 5)]);
    bench.until(7, &three, |bench| bench.cluster.of("poddisruptionbudgets").len() == 1).await;
    bench.settled(7, &three).await;
    bench.cluster.meanwhile("deployments", |live| live["status"] = json!({ "readyReplicas": 2 }));
    bench.until(7, &five, |bench| replicas(&bench.cluster, "planner-") == Some(5)).await;
    assert_eq!(bench.cluster.only("deployments", "planner-")["status"]["readyReplicas"], 2);
}

#[tokio::test]
async fn missing_permissions_and_namespaces_are_said() {
    let bench = bench().await;
    let both = [desired(wanted("default", "planner"), 3), desired(wanted("nowhere", "coder"), 1)];
    bench.cluster.ill(Some(Illness::Denies("list", "deployments")));
    let why = bench.fails(7, &both, "forbidden").await;
    assert!(why.contains("cannot list resource \"deployments\" at the cluster scope"), "{why}");
    assert!(why.contains("executor-rbac.yaml"), "{why}");
    assert_eq!(bench.executor.notes(), [why]);
    bench.cluster.ill(Some(Illness::Denies("patch", "secrets")));
    let why = bench.fails(7, &both, "cannot patch resource \"secrets\"").await;
    assert!(why.contains("default/planner: "), "{why}");
    bench.cluster.ill(Some(Illness::Denies("list", "pods")));
    let since = Instant::now();
    while !matches!(bench.executor.observe().await, Err(error) if error.0.contains("cannot list resource \"pods\""))
    {
        assert!(since.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.cluster.ill(None);
    // One group's trouble is not the other's.
    let good = |bench: &Bench| bench.executor.waiting(&both[0].wanted).is_none();
    bench.until(7, &both, |bench| bench.cluster.of("poddisruptionbudgets").len() == 1 && good(bench)).await;
    let why = bench.fails(7, &both, "nowhere").await;
    assert_eq!(
        why,
        "nowhere/coder: namespaces \"nowhere\" not found: make the namespace, or choose one by --kubernetes-namespace"
    );
    assert_eq!(bench.executor.waiting(&both[0].wanted), None);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_waited_for_and_nothing_is_lost() {
    let mut bench = bench().await;
    let (three, five) =
        ([desired(wanted("default", "planner"), 3)], [desired(wanted("default", "planner"), 5)]);
    bench.until(7, &three, |bench| replicas(&bench.cluster, "planner-") == Some(3)).await;
    bench.cluster.put("pods", pod(&bench.cluster, "planner-", "one", json!({ "phase": "Pending" })));
    bench.observed(|seen| seen.len() == 1).await;
    bench.cluster.ill(Some(Illness::Fails));
    bench.fails(7, &five, "answers 500: etcdserver: leader changed").await;
    bench.cluster.ill(None);
    bench.cluster.stop();
    let why = bench.fails(7, &five, "cannot be reached").await;
    assert!(why.to_lowercase().contains("connect"), "{why}");
    let since = Instant::now();
    // What was seen is not taken back: it is said that it may be old.
    while bench.executor.observe().await.is_ok() {
        assert!(since.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.cluster.start_again().await;
    bench.until(7, &five, |bench| replicas(&bench.cluster, "planner-") == Some(5)).await;
    bench.observed(|seen| seen.len() == 1).await;
    assert!(!bench.cluster.changes().iter().any(|change| change.starts_with("DELETE")));
}

#[tokio::test]
async fn a_cluster_that_hangs_keeps_nobody_waiting() {
    let bench = bench().await;
    let impatient = executor(bench.data.path(), None, Duration::from_secs(1)).await;
    let bench = Bench { executor: impatient, ..bench };
    let one = [desired(wanted("default", "planner"), 1)];
    bench.cluster.ill(Some(Illness::Hangs));
    let since = Instant::now();
    for _ in 0..100 {
        let _ = bench.executor.reconcile(7, &one).await;
        let _ = bench.executor.observe().await;
    }
    // 200 questions that would take a second each.
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    bench.fails(7, &one, "gave no answer within 1s").await;
    bench.cluster.ill(None);
    bench.until(7, &one, |bench| replicas(&bench.cluster, "planner-") == Some(1)).await;
}

/// A pod as the Deployment's would be.
fn pod(cluster: &Cluster, deployment: &str, name: &str, status: Value) -> Value {
    let template = cluster.only("deployments", deployment)["spec"]["template"].clone();
    let mut metadata = template["metadata"].clone();
    metadata["namespace"] = json!("default");
    metadata["name"] = json!(name);
    json!({ "metadata": metadata, "spec": { "nodeName": "worker-1" }, "status": status })
}

#[tokio::test]
async fn pods_are_replicas_with_their_reasons() {
    let bench = bench().await;
    let group = [desired(wanted("default", "planner"), 8)];
    bench.until(7, &group, |bench| replicas(&bench.cluster, "planner-") == Some(8)).await;
    let waits = |reason: &str, message: &str| {
        let waiting = json!({ "waiting": { "reason": reason, "message": message } });
        json!({ "phase": "Pending", "containerStatuses": [{ "name": "agent", "state": waiting, "restartCount": 4,
            "lastState": { "terminated": { "reason": "Error", "exitCode": 3 } } }] })
    };
    let ready = |is: &str| json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": is }] });
    let unplaced = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu." });
    let mut killed = waits("CrashLoopBackOff", "back-off 5m0s restarting failed container");
    killed["containerStatuses"][0]["lastState"]["terminated"] =
        json!({ "reason": "OOMKilled", "exitCode": 137 });
    let cases = [
        (
            "a",
            json!({ "phase": "Pending", "conditions": [unplaced] }),
            ReplicaPhase::Starting,
            Some("Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ),
        (
            "b",
            waits("ImagePullBackOff", "Back-off pulling image \"x\""),
            ReplicaPhase::Failed,
            Some("agent: ImagePullBackOff: Back-off pulling image \"x\""),
        ),
        ("c", waits("CrashLoopBackOff", ""), ReplicaPhase::CrashLoop, Some("agent ended with 3, 4 times")),
        (
            "d",
            killed,
            ReplicaPhase::CrashLoop,
            Some("agent was killed for using more memory than it may (OOMKilled), 4 times"),
        ),
        (
            "e",
            waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            ReplicaPhase::Failed,
            Some("agent: CreateContainerConfigError: container has runAsNonRoot and image will run as root"),
        ),
        ("f", waits("ContainerCreating", ""), ReplicaPhase::Starting, None),
        ("g", ready("True"), ReplicaPhase::Running, None),
        ("h", ready("False"), ReplicaPhase::Starting, None),
        (
            "i",
            json!({ "phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory." }),
            ReplicaPhase::Gone,
            Some("Evicted: The node was low on resource: memory."),
        ),
    ];
    for (name, status, ..) in &cases {
        bench.cluster.put("pods", pod(&bench.cluster, "planner-", name, status.clone()));
    }
    // Not ours.
    bench
        .cluster
        .put("pods", json!({ "metadata": { "namespace": "default", "name": "shop", "labels": {} } }));
    let seen = bench.observed(|seen| seen.len() == cases.len()).await;
    for (name, _, phase, reason) in &cases {
        let one = seen.iter().find(|one| one.replica == format!("default/planner/{name}")).unwrap();
        assert_eq!((one.phase, one.reason.as_deref()), (*phase, *reason), "{name}");
        assert_eq!(one.group.as_deref(), Some("default/planner"));
        assert_eq!(one.node.as_deref(), Some("worker-1"));
    }
    // Changes come by the watch, also when it has to begin anew.
    bench
        .cluster
        .change("pods", "g", |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    bench.observed(|seen| seen.iter().any(|one| one.phase == ReplicaPhase::Stopping)).await;
    bench.cluster.remove("pods", "default", "g");
    bench.observed(|seen| seen.len() == cases.len() - 1).await;
    bench.cluster.forget();
    bench.cluster.remove("pods", "default", "h");
    bench.observed(|seen| seen.len() == cases.len() - 2).await;
}

#[tokio::test]
async fn what_keeps_a_deployment_from_making_pods_is_the_groups_reason() {
    let bench = bench().await;
    let group = [desired(wanted("default", "planner"), 8)];
    bench.until(7, &group, |bench| replicas(&bench.cluster, "planner-") == Some(8)).await;
    let quota = "pods \"planner-1\" is forbidden: exceeded quota: compute";
    bench.cluster.change("deployments", "planner-", |live| {
        let failed =
            json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": quota });
        live["status"] = json!({ "conditions": [failed] });
    });
    bench.until(7, &group, |bench| bench.executor.waiting(&group[0].wanted).as_deref() == Some(quota)).await;
    bench.cluster.change("deployments", "planner-", |live| live["status"] = json!({}));
    bench.until(7, &group, |bench| bench.executor.waiting(&group[0].wanted).is_none()).await;
}

#[tokio::test]
async fn what_cannot_be_said_to_kubernetes_waits_with_a_reason_and_what_runs_goes_on() {
    let bench = bench().await;
    bench
        .until(7, &[desired(wanted("default", "planner"), 2)], |bench| {
            replicas(&bench.cluster, "planner-") == Some(2)
        })
        .await;
    let mut shares = wanted("default", "planner");
    shares.group.need.gpu_memory = 8 << 30;
    let mut bare = wanted("default", "coder");
    bare.group.runtime = Runtime { command: vec!["run".into()], ..Runtime::default() };
    let mut gang = wanted("default", "gang");
    gang.group.gang = true;
    let all = [desired(shares, 4), desired(bare, 1), desired(gang, 2)];
    bench.settled(7, &all).await;
    assert_eq!(replicas(&bench.cluster, "planner-"), Some(2));
    assert_eq!(bench.cluster.of("deployments").len(), 1);
    let why: Vec<String> = all.iter().map(|one| bench.executor.waiting(&one.wanted).unwrap()).collect();
    assert_eq!(why[0], "gpuMemory shares need process nodes, or MIG slices");
    assert!(why[1].starts_with("no image: "), "{}", why[1]);
    assert!(why[2].starts_with("gang placement needs process nodes"), "{}", why[2]);
}

#[tokio::test]
async fn duties_that_are_off_are_not_done() {
    let bench = bench().await;
    let without = |duty: &str| {
        let mut group = wanted("default", "planner");
        group.without = vec![duty.into()];
        group
    };
    bench
        .until(7, &[desired(wanted("default", "planner"), 2)], |bench| {
            replicas(&bench.cluster, "planner-") == Some(2)
        })
        .await;
    for duty in ["local_scheduling", "agent_placement"] {
        let five = [desired(without(duty), 5)];
        bench.settled(7, &five).await;
        assert_eq!(replicas(&bench.cluster, "planner-"), Some(2), "{duty}");
    }
    bench
        .until(7, &[desired(without("agent_placement"), 1)], |bench| {
            replicas(&bench.cluster, "planner-") == Some(1)
        })
        .await;
}

#[tokio::test]
async fn a_token_is_made_anew_when_it_is_not_good_for_all() {
    let bench = bench().await;
    let three = [desired(wanted("default", "planner"), 3)];
    bench.until(7, &three, |bench| bench.cluster.of("poddisruptionbudgets").len() == 1).await;
    let token = |bench: &Bench| bench.cluster.only("secrets", "planner-")["data"]["token"].clone();
    let first = token(&bench);
    let many = [desired(wanted("default", "planner"), 900)];
    bench.until(7, &many, |bench| token(bench) != first).await;
    let second = token(&bench);
    // Another process leads: what is there is good, its store is the same. Here it is another one, which knows no tokens.
    let next = Bench { executor: executor(bench.data.path(), None, SOON).await, ..bench };
    next.until(8, &many, |bench| token(bench) != second).await;
    assert_eq!(
        next.cluster.only("secrets", "planner-")["metadata"]["annotations"].as_object().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn all_agents_can_be_in_one_namespace() {
    let bench = bench().await;
    let bench = Bench { executor: executor(bench.data.path(), Some("production"), SOON).await, ..bench };
    let both = [desired(wanted("one", "planner"), 1), desired(wanted("two", "planner"), 2)];
    bench.until(7, &both, |bench| bench.cluster.of("poddisruptionbudgets").len() == 2).await;
    for deployment in bench.cluster.of("deployments") {
        assert_eq!(deployment["metadata"]["namespace"], "production");
    }
    // Nothing beyond it is looked at.
    bench.cluster.ill(Some(Illness::Denies("list", "deployments")));
    let why = bench.fails(7, &both, "forbidden").await;
    assert!(why.contains("in the namespace \"production\""), "{why}");
}

/// From documents to Deployments and back: the real control plane.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_starts_agents_as_pods() {
    let cluster = Cluster::start().await;
    let folder = crate::support::serve::folder();
    let kubeconfig = folder.path().join("kubeconfig").display().to_string();
    let flags = ["--executor", "kubernetes", "--kubeconfig", &kubeconfig];
    let (status, said) = start_to_fail(&folder.path().join("data"), &flags);
    assert!(!status.success() && said.contains("--kubernetes-control https://HOST:PORT"), "{said}");
    let flags = [&flags[..], &["--kubernetes-control", "https://control.example:15012"]].concat();
    let (status, said) = start_to_fail(&folder.path().join("data"), &flags);
    assert!(!status.success() && said.contains("--kubeconfig "), "{said}");
    std::fs::write(&kubeconfig, cluster.kubeconfig()).unwrap();
    let serve = Serve::start_in(folder, &flags);
    let text = "apiVersion: pilotfish.dev/v1\nkind: AgentCluster\nmetadata: {name: work, namespace: production}\nspec:\n  agents:\n  \
                - {name: planner, replicas: 2, image: \"registry.example/planner:1\"}\n  - {name: coder, replicas: 1, command: run}\n";
    orchestrator::apply(&serve, &json!({ "files": [{ "name": "agents.yaml", "text": text }] })).await;
    let of = |view: &PlacementView, group: &str| {
        view.agents.iter().find(|agent| agent.group == group).cloned().unwrap_or_default()
    };
    let view = orchestrator::until(&serve, "without an image", |view| {
        of(view, "production/coder").reason.is_some_and(|why| why.starts_with("no image: "))
    });
    assert_eq!(view.await.executor, "kubernetes");
    let since = Instant::now();
    while cluster.of("secrets").is_empty() {
        assert!(since.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(replicas(&cluster, "planner-"), Some(2));
    // What is in the Secret lets the agent in, and nobody else.
    let token = cluster.only("secrets", "planner-")["data"]["token"].as_str().unwrap().to_owned();
    let token = String::from_utf8(data_encoding::BASE64.decode(token.as_bytes()).unwrap()).unwrap();
    assert_eq!(token.split('.').count(), 4, "a join token");
    let mut ready = pod(
        &cluster,
        "planner-",
        "planner-1",
        json!({ "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True" }] }),
    );
    ready["metadata"]["namespace"] = json!("production");
    cluster.put("pods", ready);
    let view = orchestrator::until(&serve, "ready", |view| of(view, "production/planner").ready == 1).await;
    let agent = of(&view, "production/planner");
    assert_eq!((agent.wanted, agent.placed, agent.reason), (2, 1, None));
    let row = view.replicas.iter().find(|row| row.group == "production/planner").unwrap();
    assert_eq!((row.id.as_str(), row.status.as_str()), ("production/planner/planner-1", "ready"));
    let scale = Scale { agent: "production/planner".into(), region: None, replicas: Some(4) };
    Http::socket(&serve).await.post("/v1/placement/scale", &scale).await.ok::<Value>();
    let since = Instant::now();
    while replicas(&cluster, "planner-") != Some(4) {
        assert!(since.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is in the cluster, as a file; secrets and what differs from run to run left out.
fn golden(bench: &Bench, name: &str) {
    let mut objects = Vec::new();
    for kind in ["deployments", "poddisruptionbudgets", "secrets"] {
        for mut object in bench.cluster.of(kind) {
            if kind == "secrets" {
                object["data"]["token"] = json!("(a join token)");
                let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
                annotations.values_mut().for_each(|value| *value = json!("(of the token)"));
            }
            let metadata = object["metadata"].as_object_mut().unwrap();
            for own in ["uid", "generation", "resourceVersion"] {
                metadata.remove(own);
            }
            if let Some(owner) = metadata.get_mut("ownerReferences") {
                owner[0]["uid"] = json!("(the Deployment's)");
            }
            objects.push(object);
        }
    }
    let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kubernetes").join(format!("{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        old == text,
        "{name}.json is old: UPDATE_GOLDEN=1 cargo test -p pilotfish --test main golden\n{text}"
    );
}

#[tokio::test]
async fn golden_manifests() {
    let mut full = wanted("production", "nlp_worker");
    full.capacity = 4;
    let group = &mut full.group;
    group.id = "production/nlp_worker@us-east".into();
    group.region = Some("us-east".into());
    group.need = Need { gpus: 2, gpu_memory: 40 << 30, ..group.need.clone() };
    group.priority = 100;
    group.pool = Some("ml/training".into());
    group.node_selector = [("disk", "ssd")].map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
    group.tolerations = vec![
        Toleration {
            key: Some("team".into()),
            value: Some("ml".into()),
            effect: Some(TaintEffect::NoSchedule),
        },
        Toleration { key: None, value: None, effect: Some(TaintEffect::NoExecute) },
    ];
    let rule = |agent: &str, topology, required| AgentAffinity { agent: agent.into(), topology, required };
    group.affinity = vec![rule("cache", Topology::Node, true), rule("shared/store", Topology::Zone, false)];
    group.anti_affinity = vec![rule("nlp_worker", Topology::Node, true)];
    group.disruption = Disruption::Percent(30);
    group.labels = [("version", "v2"), ("team", "a,b")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    group.runtime = Runtime {
        command: vec!["python".into(), "-m".into(), "worker".into(), "$(HOME)".into()],
        image: Some("registry.example/nlp:2".into()),
        env: [("MODE", "fast$5"), ("PORT", "9000")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into_iter()
            .collect(),
        working_dir: Some("/srv".into()),
        probe: Some("http:/healthz".into()),
        start_timeout: Some(Duration::from_secs(120)),
        stop_timeout: Some(Duration::from_secs(30)),
    };
    let mut slice = wanted("default", "vision");
    slice.group.need = Need { cpu_milli: 2000, gpu_slice: Some("1g.10gb".into()), ..Need::default() };
    slice.group.runtime.probe = Some("exec:test -f /tmp/ready".into());
    slice.group.disruption = Disruption::Percent(0);
    slice.without = vec!["resource_optimization".into()];
    for (name, group, replicas) in
        [("plain", wanted("default", "planner"), 2), ("full", full, 10), ("slice", slice, 1)]
    {
        let bench = bench().await;
        let class = |name: &str, value| json!({ "metadata": { "name": name }, "value": value });
        bench.cluster.put("priorityclasses", class("batch", 10));
        bench.cluster.put("priorityclasses", class("important", 100));
        let group = [desired(group, replicas)];
        bench.until(7, &group, |bench| bench.cluster.of("poddisruptionbudgets").len() == 1).await;
        golden(&bench, name);
    }
}

#[tokio::test]
async fn a_priority_without_its_class_is_a_note() {
    let bench = bench().await;
    let mut group = wanted("default", "planner");
    group.group.priority = 50;
    let group = [desired(group, 1)];
    bench.until(7, &group, |bench| !bench.executor.notes().is_empty()).await;
    assert_eq!(
        bench.executor.notes(),
        ["default/planner has the cluster's default priority: there is no PriorityClass with the value 50"]
    );
    bench.until(7, &group, |bench| replicas(&bench.cluster, "planner-") == Some(1)).await;
}

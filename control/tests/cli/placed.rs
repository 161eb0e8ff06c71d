//! `nodes`, `placement`, `scale`, `cordon`, `drain`, `logs`: what people see of placement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use pilotfish_config::wire::node::{GpuShare, SliceState, Usage};
use pilotfish_control::api::types::{
    AgentPlacement, FleetStatus, GpuRow, Moved, NodeRow, Placed, PlacementView, ReplicaRow, TailLines,
};
use serde_json::json;

use super::scripted::{Answer, Asked, Scripted, ok, refused};

const GIB: u64 = 1 << 30;

fn gpu(id: &str, given: u64, replicas: &[&str]) -> GpuRow {
    GpuRow {
        id: id.into(),
        model: "NVIDIA A100-SXM4-80GB".into(),
        pool: Some("production/training".into()),
        memory: (given * GIB, 80 * GIB),
        busy_percent: if given > 0 { 42 } else { 0 },
        used: given * GIB / 2,
        replicas: replicas.iter().map(|id| (*id).to_owned()).collect(),
        ..GpuRow::default()
    }
}

fn replica(id: &str, node: Option<&str>, status: &str) -> ReplicaRow {
    let agent = id.rsplit_once('/').unwrap().0;
    ReplicaRow {
        id: id.into(),
        group: agent.into(),
        node: node.map(str::to_owned),
        status: status.into(),
        since: pilotfish_control::cli::human::now() - 200,
        ..ReplicaRow::default()
    }
}

/// Two nodes, two agents, and what goes wrong.
fn view() -> PlacementView {
    let ready = ReplicaRow {
        gpus: vec![GpuShare { gpu: "GPU-8f2b1c3d-0001".into(), slice: None, memory: 80 * GIB }],
        usage: Some(Usage { cpu_milli: 1250, memory: 3 * GIB, gpu_memory: 61 * GIB, gpu_percent: 93 }),
        ..replica("production/chat/qmvkzh2a7b", Some("gpu-1"), "ready")
    };
    let crashes = ReplicaRow {
        restarts: 7,
        reason: Some("exit code 1: no \x1b[31mmodel".into()),
        ..replica("production/chat/xk3c9d2mfe", Some("gpu-1"), "crash-loop")
    };
    let waits = ReplicaRow {
        reason: Some("no free GPU".into()),
        since: 0,
        ..replica("production/chat/aaaaaaaaaa", None, "waiting")
    };
    let other = ReplicaRow {
        group: "default/search@eu".into(),
        ..replica("default/search/bbbbbbbbbb", Some("cpu-1"), "ready")
    };
    PlacementView {
        leader: "c1".into(),
        term: 7,
        executor: "process".into(),
        nodes: vec![
            NodeRow {
                name: "cpu-1".into(),
                status: "silent".into(),
                heard_ms: Some(4100),
                locality: Some("eu/eu-a".into()),
                cpu_milli: (500, 16_000),
                memory: (GIB, 64 * GIB),
                replicas: 1,
                ..NodeRow::default()
            },
            NodeRow {
                name: "gpu-1".into(),
                status: "ready".into(),
                heard_ms: Some(120),
                locality: Some("eu/eu-b".into()),
                labels: BTreeMap::from([("disk".into(), "nvme".into())]),
                taints: vec!["gpu=only:NoSchedule".into()],
                cpu_milli: (4000, 32_000),
                memory: (8 * GIB, 128 * GIB),
                gpus: vec![
                    gpu("GPU-8f2b1c3d-0001", 80, &["production/chat/qmvkzh2a7b"]),
                    gpu("GPU-8f2b1c3d-0002", 0, &[]),
                    GpuRow { failed: Some("fell off the bus".into()), ..gpu("GPU-8f2b1c3d-0003", 0, &[]) },
                    GpuRow {
                        slices: ["1g.10gb", "2g.20gb", "1g.10gb"]
                            .map(|profile| SliceState {
                                id: format!("MIG-{profile}"),
                                profile: profile.into(),
                                memory: 10 * GIB,
                            })
                            .to_vec(),
                        ..gpu("GPU-8f2b1c3d-0004", 10, &["production/chat/xk3c9d2mfe"])
                    },
                ],
                replicas: 2,
                most_replicas: 110,
                troubles: vec!["the data folder is full".into()],
            },
        ],
        replicas: vec![other, waits, ready, crashes],
        agents: vec![
            AgentPlacement {
                group: "default/search@eu".into(),
                cluster: "default/tools".into(),
                strategy: "just_in_time".into(),
                wanted: 1,
                placed: 1,
                ready: 1,
                reason: None,
            },
            AgentPlacement {
                group: "production/chat".into(),
                cluster: "production/desk".into(),
                strategy: "static".into(),
                wanted: 3,
                placed: 2,
                ready: 1,
                reason: Some("1 has no place: no free GPU".into()),
            },
        ],
        notes: vec!["production/desk: 10 replicas, but the regions add up to 4".into()],
    }
}

fn placed() -> Scripted {
    Scripted::on_socket(|asked| (asked.line == "GET /v1/placement").then(|| ok(&view())))
}

#[test]
fn nodes_are_a_table_with_what_is_wrong_below() {
    let control = placed();
    control.run(&["nodes"]).says(
        "NODE   STATUS  LOCALITY     CPU         MEMORY  GPUS FREE                          GPU MEMORY  REPLICAS  HEARD\n\
         cpu-1  silent  eu/eu-a   0.5/16   1 GiB/64 GiB  -                                           -         1  4 s ago\n\
         gpu-1  ready   eu/eu-b     4/32  8 GiB/128 GiB  1/4 A100-SXM4-80GB (1 failed)  90 GiB/320 GiB         2  now\n\n\
         gpu-1: the data folder is full\n\
         gpu-1: GPU-8f2b1c3d-0003 failed: fell off the bus\n",
    );
    let ran = control.run(&["nodes", "-o", "json"]);
    let nodes: Vec<NodeRow> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(nodes, view().nodes);
    let ran = control.run(&["nodes", "-o", "wide"]);
    assert!(
        ran.out.lines().nth(2).unwrap().ends_with("now      gpu=only:NoSchedule  disk=nvme"),
        "{}",
        ran.out
    );
    control.run(&["nodes", "gpu-9"]).fails(1, &["no node is named `gpu-9`; there are cpu-1, gpu-1"]);
    let none = Scripted::on_socket(|asked| {
        (asked.line == "GET /v1/placement").then(|| ok(&PlacementView::default()))
    });
    let ran = none.run(&["nodes"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert!(ran.err.contains("pilotfish node --help"), "{}", ran.err);
}

#[test]
fn a_node_in_detail_has_its_cards_and_what_runs_there() {
    let control = placed();
    control.run(&["nodes", "gpu-1"]).says(
        "gpu-1: ready, heard now\n\
         \x20 locality  eu/eu-b\n\
         \x20 cpu       4 of 32 given out\n\
         \x20 memory    8 GiB of 128 GiB given out\n\
         \x20 replicas  2 of at most 110\n\
         \x20 labels    disk=nvme\n\
         \x20 taints    gpu=only:NoSchedule\n\
         \x20 the data folder is full\n\
         \x20 GPU-8f2b1c3d-0003 failed: fell off the bus\n\n\
         GPU                MODEL           POOL                     GIVEN OUT  IN USE  BUSY  SLICES                  REPLICAS  HEALTH\n\
         GPU-8f2b1c3d-0001  A100-SXM4-80GB  production/training  80 GiB/80 GiB  40 GiB  42 %  -                              1  good\n\
         GPU-8f2b1c3d-0002  A100-SXM4-80GB  production/training     0 B/80 GiB     0 B   0 %  -                              0  good\n\
         GPU-8f2b1c3d-0003  A100-SXM4-80GB  production/training     0 B/80 GiB     0 B   0 %  -                              0  fell off the bus\n\
         GPU-8f2b1c3d-0004  A100-SXM4-80GB  production/training  10 GiB/80 GiB   5 GiB  42 %  2x 1g.10gb, 1x 2g.20gb         1  good\n\n\
         REPLICA                     STATUS      NODE   GPUS           CPU  MEMORY  RESTARTS  SINCE      REASON\n\
         production/chat/qmvkzh2a7b  ready       gpu-1  GPU-8f2b1c3d  1.25   3 GiB         0  3 min ago  -\n\
         production/chat/xk3c9d2mfe  crash-loop  gpu-1  -                -       -         7  3 min ago  exit code 1: no \\u001b[31mmodel\n",
    );
}

const SUMMARY: &str = "2 nodes (1 silent), 2 of 4 GPUs used; 2 of 4 replicas are ready\n";
const NOTE: &str = "note: production/desk: 10 replicas, but the regions add up to 4\n";

#[test]
fn placement_lists_agents_and_replicas() {
    let control = placed();
    control.run(&["placement"]).says(&format!(
        "AGENT   NAMESPACE   REGION  STRATEGY      WANTED  PLACED  READY  REASON\n\
         search  default     eu      just_in_time       1       1      1  -\n\
         chat    production  -       static             3       2      1  1 has no place: no free GPU\n\n{NOTE}{SUMMARY}"
    ));
    control.run(&["placement", "list", "--replicas", "--agent", "chat", "-n", "production"]).says(&format!(
        "REPLICA                     STATUS      NODE   GPUS           CPU  MEMORY  RESTARTS  SINCE      REASON\n\
         production/chat/aaaaaaaaaa  waiting     -      -                -       -         0  -          no free GPU\n\
         production/chat/qmvkzh2a7b  ready       gpu-1  GPU-8f2b1c3d  1.25   3 GiB         0  3 min ago  -\n\
         production/chat/xk3c9d2mfe  crash-loop  gpu-1  -                -       -         7  3 min ago  exit code 1: no \\u001b[31mmodel\n\n{NOTE}{SUMMARY}"
    ));
    control.run(&["placement", "--problems", "--node", "cpu-1"]).says(&format!("{NOTE}{SUMMARY}"));
    let ran = control.run(&["placement", "--problems", "-o", "json"]);
    let seen: PlacementView = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((seen.agents.len(), seen.replicas.len()), (1, 2));
    let ran = control.run(&["placement", "--agent", "none"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), "nothing fits\n"));
}

#[test]
fn explain_tells_a_person_who_asked_for_too_much() {
    let found = Placed {
        agent: "production/chat".into(),
        need: "2 cores, 4 GiB of memory, 1 GPU".into(),
        groups: vec![view().agents[1].clone()],
        obstacles: vec![(3, "all 8 GPUs are taken".into()), (1, "it is cordoned".into())],
        hint: Some("1 more GPU, or `pilotfish uncordon gpu-4`".into()),
        replicas: view().replicas[1..].to_vec(),
    };
    let control = Scripted::on_socket(move |asked| match asked.line.as_str() {
        "GET /v1/placement/explain?agent=production%2Fchat" => Some(ok(&found)),
        line if line.starts_with("GET /v1/placement/explain") => {
            Some(refused(404, "no AgentCluster has an agent `default/chat`", &[]))
        }
        _ => None,
    });
    control.run(&["placement", "explain", "chat", "-n", "production"]).says(
        "production/chat: 2 of 3 replicas have a place, 1 is ready\n\
         Each replica needs 2 cores, 4 GiB of memory, 1 GPU.\n\
         1 has no place: no free GPU\n\n\
         1 replica has no place:\n\
         NODES  WHY NOT\n\
         \x20   3  all 8 GPUs are taken\n\
         \x20   1  it is cordoned\n\
         Hint: 1 more GPU, or `pilotfish uncordon gpu-4`\n\n\
         NODE   REPLICAS  READY\n\
         -             1      0\n\
         gpu-1         2      1\n\n\
         REPLICA                     STATUS      NODE   GPUS  CPU  MEMORY  RESTARTS  SINCE      REASON\n\
         production/chat/aaaaaaaaaa  waiting     -      -       -       -         0  -          no free GPU\n\
         production/chat/xk3c9d2mfe  crash-loop  gpu-1  -       -       -         7  3 min ago  exit code 1: no \\u001b[31mmodel\n",
    );
    control.run(&["placement", "explain", "chat"]).fails(1, &["no AgentCluster has an agent `default/chat`"]);
    control.run(&["placement", "explain", "a/b", "-n", "c"]).fails(2, &["names a namespace"]);
}

#[test]
fn rebalance_says_what_moves() {
    let control = Scripted::on_socket(|asked| {
        let moves = match asked.body["dry_run"].as_bool()? {
            true => vec!["production/chat/qmvkzh2a7b: gpu-1 to gpu-2, so that gpu-1 has 4 free".to_owned()],
            false => Vec::new(),
        };
        Some(ok(&Moved { moves }))
    });
    control
        .run(&["placement", "rebalance", "--moves", "3", "--dry-run"])
        .says("production/chat/qmvkzh2a7b: gpu-1 to gpu-2, so that gpu-1 has 4 free (dry run)\n");
    assert_eq!(control.asked()[0].body, json!({"moves": 3, "dry_run": true}));
    control.run(&["placement", "rebalance"]).says("no move would free a GPU\n");
}

/// Answers `done` to what is asked to be done, and the views in turn, the last again and again.
fn turns(views: Vec<Result<PlacementView, u16>>) -> impl Fn(&Asked) -> Option<Answer> + Send + Sync {
    let asked_for = AtomicUsize::new(0);
    move |asked| match asked.line.as_str() {
        "POST /v1/placement/scale" | "POST /v1/nodes/mark" => Some(ok(&json!({"message": "done as asked"}))),
        "GET /v1/placement" => {
            let turn = asked_for.fetch_add(1, Ordering::Relaxed).min(views.len() - 1);
            Some(match &views[turn] {
                Ok(view) => ok(view),
                Err(status) => refused(*status, "no control plane leads placement just now; try again", &[]),
            })
        }
        _ => None,
    }
}

#[test]
fn scale_waits_until_all_are_ready() {
    let group = |wanted, ready| AgentPlacement { wanted, placed: wanted, ready, ..view().agents[1].clone() };
    let at = |wanted, ready| {
        let all = view().replicas;
        Ok(PlacementView {
            agents: vec![group(wanted, ready), view().agents[0].clone()],
            replicas: all[..=wanted as usize].to_vec(),
            ..PlacementView::default()
        })
    };
    // The first look is of before; a moment without a leader is waited through.
    let control = Scripted::on_socket(turns(vec![at(1, 1), Err(421), at(2, 1), at(2, 2)]));
    control.run(&["scale", "production/chat", "2", "--wait"]).says("done as asked\n2 of 2 ready\n");
    assert_eq!(control.asked()[0].body, json!({"agent": "production/chat", "region": null, "replicas": 2}));
    let control = Scripted::on_socket(turns(vec![at(3, 1)]));
    control.run(&["scale", "chat", "-n", "production", "--region", "eu", "--reset"]).says("done as asked\n");
    assert_eq!(
        control.asked()[0].body,
        json!({"agent": "production/chat", "region": "eu", "replicas": null})
    );
    control.run(&["scale", "chat", "3", "-n", "production", "--wait=100ms"]).fails(
        5,
        &[
            "1 of 3 replicas of production/chat are ready after 0 s",
            "production/chat: 1 has no place: no free GPU",
        ],
    );
    control.run(&["scale", "chat"]).fails(2, &["<N>"]);
    control.run(&["scale", "chat", "3", "--reset"]).fails(2, &["cannot be used with"]);
}

#[test]
fn drain_returns_when_nothing_is_left() {
    let empty = || {
        let mut view = view();
        view.replicas.retain(|replica| replica.node.as_deref() != Some("gpu-1"));
        view.nodes[1].replicas = 0;
        Ok(view)
    };
    let control = Scripted::on_socket(turns(vec![Ok(view()), Err(421), empty()]));
    control.run(&["drain", "gpu-1"]).says("done as asked\nnothing is left on gpu-1\n");
    assert_eq!(control.asked()[0].body, json!({"node": "gpu-1", "mark": "draining"}));
    let control = Scripted::on_socket(turns(vec![Ok(view())]));
    control.run(&["drain", "gpu-1", "--timeout", "100ms"]).fails(
        5,
        &[
            "2 replicas are still on gpu-1 after 0 s; the drain goes on, `pilotfish uncordon` ends it",
            "production/chat/qmvkzh2a7b: ready; `pilotfish placement explain production/chat` says more",
            "production/chat/xk3c9d2mfe: exit code 1: no \\u001b[31mmodel",
        ],
    );
    for (command, mark) in [("cordon", "cordoned"), ("uncordon", "open")] {
        control.run(&[command, "gpu-1"]).says("done as asked\n");
        assert_eq!(control.asked().pop().unwrap().body, json!({"node": "gpu-1", "mark": mark}));
    }
    control.run(&["drain", "gpu-1", "--no-wait"]).says("done as asked\n");
}

#[test]
fn logs_of_one_replica_or_of_all_of_an_agent() {
    let control = Scripted::on_socket(|asked| match asked.line.as_str() {
        "GET /v1/placement" => Some(ok(&view())),
        "GET /v1/replicas/tail?replica=production%2Fchat%2Fqmvkzh2a7b&lines=2" => {
            Some(ok(&TailLines { lines: vec!["listening".into(), "\x1b[2Jhello".into()] }))
        }
        "GET /v1/replicas/tail?replica=production%2Fchat%2Fxk3c9d2mfe&lines=2" => {
            Some(refused(404, "its node is away", &[]))
        }
        _ => None,
    });
    control.run(&["logs", "production/chat/qmvkzh2a7b", "--lines", "2"]).says("listening\n\\u001b[2Jhello\n");
    let ran = control.run(&["logs", "chat", "-n", "production", "--lines", "2"]);
    assert_eq!(ran.out, "qmvkzh2a7b  listening\nqmvkzh2a7b  \\u001b[2Jhello\n");
    ran.fails(1, &["production/chat/xk3c9d2mfe: its node is away"]);
    control.run(&["logs", "nobody"]).fails(1, &["no replica of default/nobody has a place"]);
    control.run(&["logs", "a/b/c/d"]).fails(2, &["is no agent"]);
}

#[test]
fn who_does_not_lead_says_who_does() {
    let control = Scripted::on_socket(|asked| {
        let elsewhere = refused(421, "another control plane leads: https://10.0.0.2:15012", &[]);
        asked.line.contains("/placement").then_some(elsewhere)
    });
    control.run(&["placement"]).fails(
        1,
        &[
            "another control plane leads: https://10.0.0.2:15012\n",
            "--control, or all of them, separated by commas",
        ],
    );
}

#[test]
fn status_has_a_line_about_placement() {
    let fleet =
        FleetStatus { documents: 7, version: 19, default_deny: false, actions: vec![], sidecars: Vec::new() };
    let control = Scripted::on_socket(move |asked| match asked.line.as_str() {
        "GET /v1/status" => Some(ok(&fleet)),
        "GET /v1/placement" => Some(ok(&view())),
        _ => None,
    });
    control.run(&["status"]).says(&format!(
        "0 sidecars, documents version 7\n{}; see pilotfish placement --problems, pilotfish nodes\n",
        SUMMARY.trim_end()
    ));
}

//! The whole of `make bench`: rounds over the peers of each workload, tables, and a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::bed::Bench;
use crate::machine;
use crate::peers::Peer;
use crate::record::{Record, add_added};
use crate::report;
use crate::work::{Values, Work};

/// What `make bench` can be asked for.
#[derive(Args)]
pub struct RunArgs {
    /// Workloads, separated by commas: h1 table body h2c hash latency events idle reload mesh handshakes fleet
    /// nodes start placement policies telemetry authz roles tokens spans failing slow storm overload
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Peers, separated by commas: pilotfish haproxy haproxy-splice haproxy-h2 nginx pingora envoy pilotfish-control
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds of each workload; the latency workload runs at least 7
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Two-second runs, three rounds, a tenth of the fleet: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// First of the ports used on 127.0.0.1: the proxy's, and 1,000 from 100 above for the upstream
    #[arg(long, default_value_t = 19_000)]
    port: u16,
    /// Repeat a run (twice at most) while others used more than this per cent of a core
    #[arg(long, default_value_t = 10.0)]
    max_foreign: f64,
    /// Run proxy, upstream and load in the real-time class, ahead of all else on a shared machine (root)
    #[arg(long)]
    real_time: bool,
    /// Set this TCP congestion control for the run and put the old one back after it (root); Debian's own default is cubic
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// What the sidecar waits after a file event before it reads; it is not counted as reload time
    #[arg(long, default_value_t = 75.0)]
    debounce_ms: f64,
}

/// The peers that are there, with their binaries.
struct Found {
    binaries: BTreeMap<Peer, PathBuf>,
    missing: Vec<&'static str>,
}

fn chosen<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, wanted: &[String]) -> io::Result<Vec<T>> {
    if let Some(unknown) = wanted.iter().find(|w| !all.iter().any(|t| name(*t) == w.as_str())) {
        let names: Vec<_> = all.iter().map(|t| name(*t)).collect();
        return Err(io::Error::other(format!("{unknown}: no such thing; there are {}", names.join(" "))));
    }
    let is_wanted = |t: &T| wanted.is_empty() || wanted.iter().any(|w| name(*t) == w.as_str());
    Ok(all.iter().copied().filter(is_wanted).collect())
}

fn find(peers: &[Peer]) -> Found {
    let mut found = Found { binaries: BTreeMap::new(), missing: Vec::new() };
    for peer in peers {
        match peer.find() {
            Some(binary) => drop(found.binaries.insert(*peer, binary)),
            None => found.missing.push(peer.name()),
        }
    }
    found
}

/// Runs what `args` ask for and prints it.
///
/// # Errors
/// When a name is unknown or the scratch folder or the file cannot be written. A peer that fails is named and left out.
pub fn run(args: &RunArgs) -> io::Result<()> {
    let works = chosen(&Work::ALL, Work::name, &args.workloads)?;
    let mut peers = chosen(&Peer::ALL, Peer::name, &args.peers)?;
    // What goes through no proxy is needed to say what a proxy adds; the big table is ours as well.
    if !peers.contains(&Peer::Direct) {
        peers.insert(0, Peer::Direct);
    }
    if peers.contains(&Peer::Pilotfish) {
        for ours in Peer::ALL.into_iter().filter(|peer| peer.is_sidecar()) {
            if !peers.contains(&ours) {
                peers.push(ours);
            }
        }
    }
    let found = find(&peers);
    let _restored = args.congestion.as_deref().map(machine::Congestion::set).transpose()?;
    let dir = std::env::temp_dir().join(format!("pilotfish-bench-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let bench = Bench {
        exe: std::env::current_exe()?,
        dir: dir.clone(),
        secs: if args.quick { 2.0 } else { args.secs },
        quick: args.quick,
        port: args.port,
        real_time: args.real_time,
        debounce_ms: args.debounce_ms,
    };
    let versions: BTreeMap<_, _> = found.binaries.iter().map(|(p, b)| (p.name(), p.version(b))).collect();
    let head = json!({
        "machine": machine::facts(), "versions": versions, "missing": found.missing,
        "secs": bench.secs, "proxy_core": 0, "load_core": 1,
    });
    println!("{}", introduction(&head));
    let mut records = Vec::new();
    for work in works {
        let rounds = if args.quick { 3 } else { args.rounds.max(work.min_rounds()) };
        rounds_of(&bench, work, rounds, &found, args.max_foreign, &mut records);
        println!("{}", report::tables(&records, work));
        if let Some(file) = &args.json {
            write(file, &head, &records)?;
        }
    }
    println!("{}", report::summary(&records));
    fs::remove_dir_all(dir)
}

/// Every peer once, then every peer again: slow changes of the machine hit all alike.
fn rounds_of(
    bench: &Bench,
    work: Work,
    rounds: usize,
    found: &Found,
    max_foreign: f64,
    records: &mut Vec<Record>,
) {
    let mut failed: Vec<Peer> = Vec::new();
    for round in 0..rounds {
        let mut this: Vec<Record> = Vec::new();
        for peer in work.peers() {
            let Some(binary) = found.binaries.get(peer).filter(|_| !failed.contains(peer)) else { continue };
            eprintln!("{:8} round {} of {rounds}: {}", work.name(), round + 1, peer.name());
            match calm(max_foreign, || bench.run(work, *peer, binary)) {
                Ok(measured) => this.extend(measured.into_iter().map(|(at, values)| Record {
                    work,
                    at,
                    peer: *peer,
                    round,
                    values,
                })),
                Err(e) => {
                    println!("{} {}: left out: {e}", work.name(), peer.name());
                    failed.push(*peer);
                }
            }
        }
        add_added(&mut this);
        records.extend(this);
    }
}

/// Runs up to three times, until the machine was left alone enough.
fn calm(
    max_foreign: f64,
    mut run: impl FnMut() -> io::Result<Vec<(String, Values)>>,
) -> io::Result<Vec<(String, Values)>> {
    let mut result = run()?;
    for _ in 0..2 {
        let foreign = result.iter().filter_map(|(_, v)| v.get("foreign_pct").copied()).fold(0.0, f64::max);
        if foreign <= max_foreign {
            break;
        }
        eprintln!("         others used {foreign:.0} % of a core: again");
        result = run()?;
    }
    Ok(result)
}

fn introduction(head: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let machine = &head["machine"];
    let versions = head["versions"].as_object().into_iter().flatten().filter(|(_, v)| !text(v).is_empty());
    let versions: Vec<_> = versions.map(|(name, v)| format!("{name}: {}", text(v))).collect();
    let missing: Vec<_> = head["missing"].as_array().into_iter().flatten().map(text).collect();
    let mut out = format!(
        "{}, {} cores, Linux {}, TCP {}; proxy alone on core 0, load and upstream on core 1, {} s a run\n{}",
        text(&machine["cpu"]),
        machine["cores"],
        text(&machine["kernel"]),
        text(&machine["tcp_congestion_control"]),
        head["secs"],
        versions.join("\n")
    );
    if !missing.is_empty() {
        out += &format!(
            "\nNOT MEASURED, because not found: {} (make build, make bench-deps)",
            missing.join(", ")
        );
    }
    out
}

fn write(file: &PathBuf, head: &Value, records: &[Record]) -> io::Result<()> {
    let mut all = head.clone();
    all["records"] = records.iter().map(Record::json).collect();
    all["bars"] = report::bars_json(records);
    fs::write(file, serde_json::to_string_pretty(&all)? + "\n")
}

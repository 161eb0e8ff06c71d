//! Where replicas go: how long deciding takes, and how well cards are packed.

mod arrive;
mod exact;
mod mix;
mod plot;
mod speed;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::json;

use crate::work::Values;
use arrive::By;
use mix::Mix;

/// Loads that tables name, per cent of the cards.
const LOADS: [usize; 4] = [80, 90, 100, 130];
/// The greatest load that arrives.
const MOST: f64 = 1.3;

/// What `pilotfish-bench placement` can be asked for.
#[derive(Args)]
pub struct PlacementArgs {
    /// Folder with openb_node_list_gpu_node.csv and openb_pod_list_default.csv of Alibaba's cluster-trace-gpu-v2023, whose shape
    /// the generated mix has: the large instances with those as well
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Machines of the large generated instances (the trace has 1,213)
    #[arg(long, default_value_t = 400)]
    machines: usize,
    /// Large instances, each with another seed
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Small instances
    #[arg(long, default_value_t = 30)]
    small: u64,
    /// The solver's time for each of those, seconds
    #[arg(long, default_value_t = 10.0)]
    solver_secs: f64,
    /// A Python with OR-Tools
    #[arg(long, default_value = "target/bench/venv/bin/python")]
    python: PathBuf,
    /// Draw the allocated share against the load that arrived into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one line of JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs all of it and prints it.
///
/// # Errors
/// A file cannot be read or written. Without the solver the small instances are left out, and that is said.
pub fn run(args: &PlacementArgs) -> io::Result<()> {
    let mut values = Values::new();
    let mut text = String::new();
    speed::run(&mut values, &mut text);
    let generated = Mix::generated(args.machines);
    match small(args, &generated) {
        Ok((found, said)) => {
            values.extend(found);
            text += &said;
        }
        Err(e) => eprintln!("placement: small instances left out: {e}"),
    }
    let curves = large(&generated, args.seeds);
    for (by, curve) in By::ALL.iter().zip(&curves) {
        values.insert(format!("{}_pct", by.name()), curve.at(130) * 100.0);
    }
    let rival = curves[1].at(130).max(curves[2].at(130));
    values.insert("rival_over_ours".to_owned(), rival / curves[0].at(130));
    text += &table(&generated, &curves);
    if let Some(file) = &args.svg {
        fs::write(file, plot::draw(&generated, &curves))?;
    }
    if let Some(dir) = &args.trace {
        let published = Mix::published(dir)?;
        let curves = large(&published, args.seeds);
        text += &table(&published, &curves);
    }
    if args.json {
        println!("{}", json!(values))
    } else {
        print!("{text}")
    }
    Ok(())
}

/// The same as a workload of `run`: a process of its own, on one core.
///
/// # Errors
/// It cannot be run, or does not answer.
pub fn measure(exe: &Path, quick: bool) -> io::Result<Values> {
    let mut command = Command::new(exe);
    command.args(["placement", "--json"]);
    if quick {
        command.args(["--machines", "100", "--seeds", "1", "--small", "6", "--solver-secs", "2"]);
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

fn small(args: &PlacementArgs, mix: &Mix) -> io::Result<(Values, String)> {
    let instances = exact::instances(mix, args.small);
    let script = Path::new("bench/exact.py");
    let found = exact::compare(&instances, &args.python, script, args.solver_secs)?;
    let mut text = "\n| small instances, load % | ours / solver's % | worst % | ours / proven bound % |\n|---|--:|--:|--:|\n".to_owned();
    let mut loads: Vec<f64> = found.iter().map(|one| one.load).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    for load in loads {
        let of: Vec<_> = found.iter().filter(|one| one.load == load).collect();
        let (all, worst, bound) = exact::shares(of.iter().copied());
        text += &format!("| {:.0} | {all:.1} | {worst:.1} | {bound:.1} |\n", load * 100.0);
    }
    let (all, worst, bound) = exact::shares(found.iter());
    text += &format!("| all {} | {all:.1} | {worst:.1} | {bound:.1} |\n", found.len());
    let values = [
        ("exact_pct", all),
        ("exact_lost_pct", 100.0 - all),
        ("exact_worst_pct", worst),
        ("bound_pct", bound),
    ];
    Ok((values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), text))
}

/// The mean over the seeds, for each of [`By::ALL`].
fn large(mix: &Mix, seeds: u64) -> Vec<arrive::Curve> {
    let each = By::ALL.iter().map(|by| {
        let curves: Vec<arrive::Curve> = (0..seeds.max(1))
            .map(|seed| {
                eprintln!("placement: {}, {}, seed {seed}", mix.name, by.name());
                let arrivals = mix.arrivals(MOST, &mut fastrand::Rng::with_seed(seed));
                arrive::run(mix, &arrivals, *by)
            })
            .collect();
        let mean = |load: usize| curves.iter().map(|curve| curve.at(load)).sum::<f64>() / curves.len() as f64;
        arrive::Curve((0..=130).map(mean).collect())
    });
    each.collect()
}

fn table(mix: &Mix, curves: &[arrive::Curve]) -> String {
    let cards = mix.capacity() / mix::CARD;
    let loads: String = LOADS.iter().map(|load| format!(" {load} % |")).collect();
    let rule = "--:|".repeat(LOADS.len());
    let title = format!("{}, {} nodes, {cards} cards; allocated % at load", mix.name, mix.nodes.len());
    let mut text = format!("\n| {title} |{loads}\n|---|{rule}\n");
    for (by, curve) in By::ALL.iter().zip(curves) {
        let cells: String = LOADS.iter().map(|load| format!(" {:.2} |", curve.at(*load) * 100.0)).collect();
        text += &format!("| {} |{cells}\n", by.name());
    }
    text
}

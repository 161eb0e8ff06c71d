//! `make bench`: pilotfish-proxy beside its rivals, and the load tools that measure them.

mod authz;
mod bars;
mod bed;
mod clock;
mod decisions;
mod fleet;
mod load;
mod machine;
mod peers;
mod placement;
mod policies;
mod poller;
mod process;
mod record;
mod reload;
mod report;
mod run;
mod samples;
mod start;
mod telemetry;
mod tokens;
mod traces;
mod upstream;
mod work;

use std::num::NonZeroU64;

use clap::{Args, Parser, Subcommand};

use load::request::{Keys, Path, Requests};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure pilotfish-proxy and its rivals side by side
    Run(run::RunArgs),
    /// Serve as the upstream until killed
    Upstream {
        /// First port on 127.0.0.1
        #[arg(long)]
        port: u16,
        /// How many ports
        #[arg(long, default_value_t = 1)]
        count: u16,
    },
    /// Take spans by OTLP over HTTP/1.1, and keep nothing, until killed
    Collect {
        /// Port on 127.0.0.1
        #[arg(long)]
        port: u16,
    },
    /// Make load and print what was measured as JSON
    Load(LoadArgs),
    /// Decide where replicas go: how long it takes, and how well cards are packed
    ///
    /// Everything runs in this process, on one thread. Speed: 10,000 replicas of five agents on 1,000 nodes with 4,000 cards
    /// from nothing, then one more. Small instances: four to eight machines, everything at once, against an exact solver
    /// (OR-Tools' CP-SAT, from `make bench-deps`), by GPU memory given out. Large ones: replicas arrive one by one up to 130 %
    /// of the cards, those that find no place are sent away; against best-fit (the machine with the least left of processor,
    /// memory and cards together, then the fullest card) and first-fit.
    Placement(placement::PlacementArgs),
    /// Look at callers' tokens, known and new ones, and print microseconds for each
    Tokens(tokens::TokenArgs),
    /// Decide by a thousand rules, and print nanoseconds for a decision
    Decisions(decisions::DecisionArgs),
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// Each connection sends as soon as it has its answer
    Closed,
    /// Poisson arrivals; latency from the intended start
    Rate,
    /// Event streams
    Streams,
    /// A new mutual TLS connection for each request
    Handshakes,
    /// One request a connection, then nothing until standard input ends
    Idle,
}

#[derive(Args)]
struct LoadArgs {
    mode: Mode,
    /// The proxy's port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Connections, or streams
    #[arg(long, default_value_t = 64)]
    conns: usize,
    /// handshakes: folder with ca.pem, cert.pem and key.pem
    #[arg(long, default_value = ".")]
    certs: std::path::PathBuf,
    /// Seconds
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Path of every request
    #[arg(long)]
    path: Option<String>,
    /// Without --path: `/agents/K/run`, K going round this many
    #[arg(long, default_value_t = 10)]
    rules: usize,
    /// Keys of `x-hash` to go round; 0: one for each connection
    #[arg(long, default_value_t = 0)]
    keys: usize,
    /// Bytes of a request body; 0: GET
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// rate: requests a second
    #[arg(long, default_value_t = 8000.0)]
    rate: f64,
    /// rate: send nothing before the start, not even to open connections
    #[arg(long)]
    cold: bool,
    /// One request in ten is critical, half of the others sheddable (`agent-priority`)
    #[arg(long)]
    mixed: bool,
    /// rate: report when this response header (lower case) changes
    #[arg(long)]
    watch: Option<String>,
    /// streams: milliseconds between the events of one stream
    #[arg(long, default_value_t = 5.0)]
    interval: f64,
}

fn make_load(args: LoadArgs) -> std::io::Result<()> {
    // The default slack of 50 us would make every open-loop request late by that much.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    let path = args.path.map_or(Path::Rotating(args.rules.max(1)), Path::Fixed);
    let keys = if args.keys == 0 { Keys::PerConnection } else { Keys::Rotating(args.keys) };
    let requests = Requests::new(path, keys).with_body(args.body).watching(args.watch).mixed(args.mixed);
    let result = match args.mode {
        Mode::Closed => load::closed::run(args.port, args.conns, args.secs, requests)?,
        Mode::Rate => load::rate::run(args.port, args.conns, args.secs, args.rate, args.cold, requests)?,
        Mode::Streams => load::streams::run(args.port, args.conns, args.interval, args.secs)?,
        Mode::Handshakes => load::handshakes::run(args.port, args.conns, args.secs, &args.certs)?,
        Mode::Idle => load::idle::run(args.port, args.conns)?,
    };
    println!("{result}");
    Ok(())
}

fn main() -> std::io::Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Upstream { port, count } => upstream::serve(port, count),
        Command::Collect { port } => telemetry::collect(port),
        Command::Load(args) => make_load(args),
        Command::Placement(args) => placement::run(&args),
        Command::Tokens(args) => tokens::run(&args),
        Command::Decisions(args) => decisions::run(&args),
    }
}

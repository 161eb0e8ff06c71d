//! `make demo`: a control plane, agents and sidecars, traffic between them, what happened, and an end by itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use pilotfish_demo::children::{Children, Failure};
use pilotfish_demo::mesh::{CALLER, Mesh, Programs, sidecar_of};
use pilotfish_demo::{scenes, table};
use tokio::signal::unix::{SignalKind, signal};

/// Agents, sidecars and the calls between them, on this machine and within a minute.
#[derive(Parser)]
struct Flags {
    /// Leave everything running at the end, and print how to send a request.
    #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    keep: bool,
    /// The sidecar's binary. [default: beside this one]
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// The control plane's binary. [default: beside this one]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// The agent's binary. [default: beside this one]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
}

/// The exit code of a program that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;
const LOG_TAIL_LINES: usize = 20;
const LOG_LINE_WIDTH: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags).await {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    let programs = programs(&flags)?;
    let folder = tempfile::Builder::new().prefix("pilotfish-demo-").tempdir()?;
    let logs = folder.path().join("logs");
    std::fs::create_dir_all(&logs)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = async {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    // Whatever ends the show early drops the mesh, and with it every process.
    let outcome = tokio::select! {
        biased;
        () = stopped => {
            println!("demo: stopped");
            return Ok(ExitCode::from(if flags.keep { 0 } else { INTERRUPTED }));
        }
        outcome = show(&programs, folder.path(), &logs, flags.keep) => outcome,
    };
    if let Err(failure) = outcome {
        explain(&failure, &logs);
        eprintln!("demo: logs, configuration and access log are kept in {}", folder.keep().display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(programs: &Programs, folder: &Path, logs: &Path, keep: bool) -> Result<(), Failure> {
    let begin = Instant::now();
    let progress = |step: &str| println!("[{:4.1} s] {step}", begin.elapsed().as_secs_f64());
    let children = Children::new(logs.to_path_buf());
    let mut mesh = Mesh::start(programs, folder, children, progress).await?;
    let shown = scenes::all(&mut mesh, progress).await?;
    let colour = table::use_colour();
    println!("\n{}\n{}", shown.calls.render(colour), shown.operations.render(colour));
    for command in &shown.commands {
        println!("$ {}\n{}", command.line, command.output);
    }
    println!("{}\n", shown.closing);
    if keep {
        println!("{}", mesh.instructions());
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            mesh.children.all_alive()?;
        }
    }
    progress("the agents that the control plane started are dismissed");
    mesh.dismiss().await?;
    progress(&format!("asking all {} processes to end", mesh.children.count()));
    mesh.children.stop().await?;
    progress("done: every sidecar drained and exited with 0, the control plane too");
    Ok(())
}

fn programs(flags: &Flags) -> Result<Programs, Failure> {
    let here = std::env::current_exe()?;
    let beside = |given: &Option<PathBuf>, name: &str| {
        let path = given.clone().unwrap_or_else(|| here.with_file_name(name));
        if path.is_file() {
            return Ok(path);
        }
        Err(Failure::new(format!("{} is missing; `make demo` builds it", path.display())))
    };
    Ok(Programs {
        proxy: beside(&flags.proxy, "pilotfish-proxy")?,
        control: beside(&flags.control, "pilotfish")?,
        agent: beside(&flags.agent, "demo-agent")?,
    })
}

fn explain(failure: &Failure, logs: &Path) {
    eprintln!("\ndemo: {failure}");
    let caller = sidecar_of(CALLER);
    let culprit = failure.log_of.as_deref().unwrap_or(&caller);
    let tail = pilotfish_demo::children::tail(&logs.join(format!("{culprit}.log")), LOG_TAIL_LINES);
    if tail.is_empty() {
        eprintln!("demo: {culprit} wrote nothing to its log");
    } else {
        eprintln!("demo: the end of {culprit}'s log:");
        for line in tail.lines() {
            let shown: String = line.chars().take(LOG_LINE_WIDTH).collect();
            eprintln!("    {shown}");
        }
    }
}

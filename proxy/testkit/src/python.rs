//! Python clients and servers in a virtual environment, made on demand under `target/` from PyPI.
//!
//! A test that cannot have it skips loudly, and fails where `CI=true`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the scripts import.
pub const PACKAGES: [&str; 5] = [
    "websockets==15.0.1",
    "grpcio==1.76.0",
    "h2==4.3.0",
    "opentelemetry-proto==1.45.2",
    "prometheus_client==0.26.0",
];

/// The interpreter of the environment in `target/pyvenv`, made first if need be; `None` after a loud word.
///
/// # Panics
/// Where `CI=true` and it cannot be made.
pub fn interpreter(target: &Path) -> Option<PathBuf> {
    match prepare(target) {
        Ok(python) => Some(python),
        Err(why) => {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "Python is needed where CI=true: {why}");
            eprintln!("SKIPPED: no Python environment: {why}");
            None
        }
    }
}

fn prepare(target: &Path) -> Result<PathBuf, String> {
    std::fs::create_dir_all(target).map_err(|e| e.to_string())?;
    let venv = target.join("pyvenv");
    let (python, done) = (venv.join("bin/python"), venv.join(format!("made-{}", PACKAGES.join("_"))));
    // Several tests, and several test binaries, may want it at once.
    let lock = File::create(target.join("pyvenv.lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if done.exists() {
        return Ok(python);
    }
    eprintln!("making a Python environment in {} ...", venv.display());
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    File::create(&done).map_err(|e| e.to_string())?;
    Ok(python)
}

/// A file of a package that there are wheels of for some platforms only, beside the environment; `None` after a loud word
/// where there is none for this one.
pub fn wheel(target: &Path, package: &str, file: &str) -> Option<PathBuf> {
    let python = interpreter(target)?;
    let folder = target.join("pywheels");
    let path = folder.join(file);
    let lock = File::create(target.join("pyvenv.lock")).ok()?;
    lock.lock().ok()?;
    if !path.exists()
        && let Err(why) = run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary", ":all:", "--target"])
            .arg(&folder)
            .arg(package))
    {
        eprintln!("SKIPPED: no wheel of {package}: {why}");
        return None;
    }
    Some(path)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", stderr.trim())) }
}

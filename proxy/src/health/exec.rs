//! A probe by command: good when it ends with 0 in time. One that takes longer is killed with everything it started.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

/// How long the end of a killed command is waited for.
pub const KILLED: Duration = Duration::from_secs(1);

/// Runs the command once.
///
/// # Errors
/// It cannot be started, ends with another code, or takes too long.
pub async fn ask(command: &[String], limit: Duration) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        // What proves who this sidecar is, is no business of a probe.
        .env_remove("PILOTFISH_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that what it starts can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let ended = tokio::time::timeout(limit, child.wait()).await;
    if let Some(group) = group {
        // Also after its end: nothing that it left behind may pile up.
        let _ = kill_process_group(group, Signal::KILL);
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program}: {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => {
            let _ = tokio::time::timeout(KILLED, child.wait()).await;
            Err(format!("{program}: killed after {limit:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(command: &str) -> Vec<String> {
        ["sh", "-c", command].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn the_exit_code_decides() {
        let limit = Duration::from_secs(10);
        assert_eq!(ask(&shell("exit 0"), limit).await, Ok(()));
        assert!(ask(&shell("exit 3"), limit).await.unwrap_err().contains('3'));
        assert!(ask(&["/no/such".to_owned()], limit).await.is_err());
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = format!("sleep 60 & echo $! > {}; wait", file.display());
        let why = ask(&shell(&command), Duration::from_millis(500)).await.unwrap_err();
        assert!(why.contains("killed"), "{why}");
        let child = std::fs::read_to_string(&file).unwrap();
        let state = std::path::Path::new("/proc").join(child.trim()).join("stat");
        let until = std::time::Instant::now() + Duration::from_secs(5);
        // A killed orphan is gone, or waits as a zombie for whoever reaps orphans here.
        while std::fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(std::time::Instant::now() < until, "the command's child lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

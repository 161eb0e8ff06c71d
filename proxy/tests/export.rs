//! Spans, metrics and log records as others receive them: by gRPC and HTTP, in plaintext and TLS; and collectors that are away,
//! slow or hostile, which cost the calls nothing.

mod hostile;
mod received;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish_testkit::python::interpreter;
use serde_json::Value;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A receiver by others' libraries. It ends when this is dropped.
struct Receiver {
    child: Child,
    grpc: u64,
    http: u64,
    exports: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").to_path_buf()
}

impl Receiver {
    /// `None` where there is no Python. `tls`: chain, key and the clients' authorities.
    fn start(tls: &[&str]) -> Option<Receiver> {
        let python = interpreter(&target())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/otlp_receiver.py");
        let mut command = Command::new(python);
        command.arg("-u").arg(script).args(tls).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let mut lines =
            BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let ports: Value = serde_json::from_str(&first).unwrap_or_else(|_| panic!("it said {first:?}"));
        let exports = Arc::new(Mutex::new(Vec::new()));
        let told = exports.clone();
        std::thread::spawn(move || {
            for line in lines {
                told.lock().unwrap().push(serde_json::from_str(&line).expect("a line of JSON"));
            }
        });
        let port = |name: &str| ports[name].as_u64().expect("a port");
        Some(Receiver { child, grpc: port("grpc"), http: port("http"), exports })
    }

    /// Waits for items of a signal that fit, so many of them; each with the export that it came in.
    fn wait(&self, signal: &str, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<(Value, Value)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let exports = self.exports.lock().unwrap().clone();
            let mut found = Vec::new();
            for export in exports.iter().filter(|export| export["signal"] == signal) {
                let items = export["items"].as_array().expect("items");
                found.extend(
                    items.iter().filter(|item| fits(item)).map(|item| (item.clone(), export.clone())),
                );
            }
            if found.len() >= count {
                return found;
            }
            assert!(Instant::now() < until, "{} of {count} {signal}; all: {exports:#?}", found.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

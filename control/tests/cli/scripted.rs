//! A control plane whose answers a test writes: HTTP/1.1 on a Unix socket or over TLS, and what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use pilotfish_control::api::types::{Failure, Version};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `POST /v1/apply`.
    pub line: String,
    pub authorization: Option<String>,
    /// The body, if it is JSON.
    pub body: Value,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    body: Vec<u8>,
    /// Of the body as announced; less is sent when this is more.
    length: usize,
}

/// 200 with JSON.
pub fn ok<T: Serialize>(value: &T) -> Answer {
    bytes(200, serde_json::to_vec(value).unwrap())
}

/// A refusal.
pub fn refused(status: u16, error: &str, diagnostics: &[&str]) -> Answer {
    let diagnostics = diagnostics.iter().map(|line| (*line).to_owned()).collect();
    bytes(status, serde_json::to_vec(&Failure { error: error.into(), diagnostics }).unwrap())
}

/// Any bytes.
pub fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    Answer { status, length: body.len(), body }
}

impl Answer {
    /// The connection ends within the body.
    pub fn broken(mut self) -> Answer {
        self.length += 1000;
        self
    }
}

/// Of the protocol's present version.
pub fn version(documents: u64) -> Version {
    Version {
        build: "0.9.9".into(),
        wire: "1.7".into(),
        documents,
        control: "c1".into(),
        trust_domain: "mesh.test".into(),
    }
}

type Script = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// The control plane; `None` of the script is 404, except for the version.
pub struct Scripted {
    pub dir: TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// On the Unix socket of a data folder.
    pub fn on_socket(script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Scripted {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("pilotfish.sock")).unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, script): (_, Arc<Script>) = (asked.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, script) = (seen.clone(), script.clone());
                thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Scripted { dir, asked }
    }

    /// Over TLS.
    pub fn over_tls(
        config: Arc<rustls::ServerConfig>,
        script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> (Scripted, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (seen, script): (_, Arc<Script>) = (asked.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, script, config) = (seen.clone(), script.clone(), config.clone());
                thread::spawn(move || {
                    let Ok(tls) = rustls::ServerConnection::new(config) else { return };
                    serve(rustls::StreamOwned::new(tls, stream), &*script, &seen);
                });
            }
        });
        (Scripted { dir: tempfile::tempdir().unwrap(), asked }, address)
    }

    /// What was asked so far, versions apart.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap().clone();
        asked.into_iter().filter(|asked| asked.line != "GET /v1/version").collect()
    }

    /// Runs `pilotfish` against it.
    pub fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args))
    }

    /// The same with something on standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        judge(child.wait_with_output().unwrap())
    }

    /// The command, to be changed.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = pilotfish(args);
        command.env("PILOTFISH_DATA", self.dir.path());
        command
    }

    /// A file in its folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        write(self.dir.path(), name, text)
    }
}

pub fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn serve<S: Read + Write>(mut stream: S, script: &Script, seen: &Mutex<Vec<Asked>>) {
    let Some(asked) = read(&mut stream) else { return };
    seen.lock().unwrap().push(asked.clone());
    let answer = script(&asked).unwrap_or_else(|| match asked.line.as_str() {
        "GET /v1/version" => ok(&version(6)),
        line => refused(404, &format!("the script has no answer to {line}"), &[]),
    });
    let head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status, answer.length
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body));
    let _ = stream.flush();
}

fn read<S: Read>(stream: &mut S) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        let find = |line: &String| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        };
        lines.iter().find_map(find)
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = lines.first()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked {
        line,
        authorization: header("authorization"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// The command with nothing of the tester's environment.
pub fn pilotfish(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilotfish"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// It succeeded and wrote this.
    #[track_caller]
    pub fn says(&self, out: &str) -> &Ran {
        assert_eq!((self.code, self.out.as_str()), (Some(0), out), "{}", self.err);
        self
    }

    /// It failed with this code, and its message has these words.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> &Ran {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {:?}", self.err);
        }
        self
    }
}

pub fn ran(mut command: Command) -> Ran {
    judge(command.output().unwrap())
}

fn judge(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

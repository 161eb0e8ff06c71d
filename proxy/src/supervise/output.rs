//! What the agent writes: lines, bounded in length and in rate, on their way to where `--agent-log` says.
//!
//! The pipes are read all the time, so the agent never waits; a thread of its own writes, since that may block. What it
//! cannot keep up with is dropped and counted.

mod lines;
mod record;
mod sink;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::{mpsc, oneshot};

use super::launch::PIPES;
use crate::server::Shared;
use crate::telemetry::log;
use lines::{Budget, Lines};
use sink::{Batch, Sink};

/// Read at a time: what a pipe holds when nobody makes it larger.
const CHUNK: usize = 64 << 10;
/// What a pipe holds while no sidecar reads: an agent that writes more then waits for the next one.
const PIPE: usize = 1 << 20;
/// Chunks that wait for the thread that writes.
const QUEUE: usize = 16;
/// Of the last line, for people.
const LAST: usize = 300;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What is known of the agent's output.
#[derive(Debug)]
pub struct Output {
    known: Arc<Known>,
    settle: mpsc::Sender<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Known {
    last: Mutex<String>,
    dropped: Arc<AtomicU64>,
}

impl Output {
    /// Begins to read, in a task of this runtime; the pipes are made when they are not there.
    ///
    /// # Errors
    /// The kernel's or the disk's.
    pub fn start(shared: &Arc<Shared>, dir: &Path) -> io::Result<Output> {
        let pipes = PIPES.map(|name| open(&dir.join(name)));
        let [out, err] = pipes;
        let (out, err) = (out?, err?);
        // There whenever there is something to supervise.
        let dropped = shared.supervised.as_ref().map(|known| known.dropped.clone()).unwrap_or_default();
        let known = Arc::new(Known { dropped, ..Known::default() });
        let sink = Sink::of(shared.settings.supervise.agent_log, dir);
        let (writer, batches) = sync_channel(QUEUE);
        if let Some(sink) = sink {
            std::thread::Builder::new().name("agent-log".into()).spawn(move || sink.run(&batches))?;
        }
        let (settle, asked) = mpsc::channel(1);
        let reader = Reader {
            pipes: [(Stream::Out, out, Lines::default()), (Stream::Err, err, Lines::default())],
            taker: Taker { shared: shared.clone(), budget: Budget::default(), writer, known: known.clone() },
        };
        tokio::spawn(reader.run(asked));
        Ok(Output { known, settle })
    }

    /// Waits until everything that the agent has written by now is read.
    pub async fn settle(&self) {
        let (done, wait) = oneshot::channel();
        if self.settle.send(done).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// The last line on standard error since it was last asked for, cut; without anything that a terminal would obey.
    pub fn take_last(&self) -> String {
        std::mem::take(&mut self.known.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open(path: &Path) -> io::Result<Receiver> {
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => {
            return Err(io::Error::other(format!(
                "cannot make {}: {}",
                path.display(),
                io::Error::from(error)
            )));
        }
    }
    // For writing too: then it does not end when the agent does.
    let pipe = OpenOptions::new().read_write(true).open_receiver(path)?;
    // An unprivileged user may have many large pipes already: then it is as large as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE);
    Ok(pipe)
}

struct Reader {
    pipes: [(Stream, Receiver, Lines); 2],
    taker: Taker,
}

impl Reader {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let [(_, out, _), (_, err, _)] = &self.pipes;
            let ask = tokio::select! {
                biased;
                ready = out.readable() => { if ready.is_err() { return } None }
                ready = err.readable() => { if ready.is_err() { return } None }
                ask = asked.recv() => match ask {
                    Some(ask) => Some(ask),
                    // The supervisor has ended, and the agent with it.
                    None => return,
                },
            };
            for pipe in &mut self.pipes {
                self.taker.read(pipe, &mut buffer, ask.is_some());
            }
            if let Some(ask) = ask {
                let _ = ask.send(());
            }
        }
    }
}

/// Takes lines, as many as there may be, to where they go.
struct Taker {
    shared: Arc<Shared>,
    budget: Budget,
    writer: SyncSender<Batch>,
    known: Arc<Known>,
}

impl Taker {
    /// Reads once from a pipe; with `whole` until it is empty, and what is no line yet is one.
    fn read(&mut self, pipe: &mut (Stream, Receiver, Lines), buffer: &mut [u8], whole: bool) {
        let (stream, pipe, lines) = pipe;
        // Twice what a pipe holds: an end comes also when somebody goes on writing.
        let most = if whole { 2 * PIPE / CHUNK } else { 1 };
        for _ in 0..most {
            let read = if whole {
                // The runtime may not have heard yet that there is something.
                rustix::io::read(pipe.as_fd(), &mut *buffer).map_err(io::Error::from)
            } else {
                pipe.try_read(buffer)
            };
            let Ok(read) = read else { break };
            let mut batch = Batch::new(*stream);
            lines.feed(&buffer[..read], &mut |line| self.take(line, &mut batch));
            self.send(batch);
        }
        if whole {
            let mut batch = Batch::new(*stream);
            lines.end(&mut |line| self.take(line, &mut batch));
            self.send(batch);
        }
    }

    fn take(&mut self, line: &[u8], batch: &mut Batch) {
        if batch.stream == Stream::Err && !line.trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(&line[..line.len().min(LAST)]);
            let text = text.chars().filter(|c| !c.is_control()).collect();
            *self.known.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
        if !self.budget.allows(line.len()) {
            self.known.dropped.fetch_add(1, Relaxed);
            return;
        }
        if let Some(dropped) = self.budget.owed() {
            log::warn!("the agent writes too much, lines were dropped", dropped = dropped);
        }
        let shared = &self.shared;
        if shared.exporter.takes_logs() {
            let trace = record::trace(line);
            if trace.is_some() || shared.settings.supervise.agent_log_otlp {
                let record = record::record(line, batch.stream, trace, shared.clock.now());
                shared.exporter.log_line(record);
            }
        }
        batch.push(line);
    }

    fn send(&self, batch: Batch) {
        let lines = batch.lines;
        if lines > 0
            && let Err(TrySendError::Full(_)) = self.writer.try_send(batch)
        {
            self.known.dropped.fetch_add(lines, Relaxed);
        }
    }
}

//! The calling agent's other half: it carries out jobs, and everything it sends goes to its own sidecar.

mod load;
mod websocket;

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::agent::{AGENT_HEADER, BOOKING_HEADER, VERSION_HEADER};
use crate::job::{Job, Report, Target, Whoami};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Reads jobs from stdin until it ends; one after the other, the reports on stdout in the same order.
///
/// # Errors
/// When stdin or stdout breaks, or a line is no job.
pub async fn work() -> std::io::Result<()> {
    let (inbox, mut jobs) = mpsc::channel(64);
    let reader = tokio::spawn(read_jobs(inbox));
    let (reports, mut outbox) = mpsc::channel(64);
    let writer = tokio::spawn(async move {
        let mut stdout = tokio::io::stdout();
        while let Some(report) = outbox.recv().await {
            let mut line = serde_json::to_vec::<Report>(&report)?;
            line.push(b'\n');
            stdout.write_all(&line).await?;
            stdout.flush().await?;
        }
        std::io::Result::Ok(())
    });
    let mut client = None;
    while let Some(job) = jobs.recv().await {
        if let Err(error) = carry_out(job, &mut client, &mut jobs, &reports).await {
            let failed = Report::Failed { what: error.to_string() };
            if reports.send(failed).await.is_err() {
                break;
            }
        }
    }
    drop(reports);
    writer.await.map_err(std::io::Error::other)??;
    reader.await.map_err(std::io::Error::other)?
}

async fn read_jobs(inbox: mpsc::Sender<Job>) -> std::io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if inbox.send(serde_json::from_str(&line)?).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn carry_out(
    job: Job,
    client: &mut Option<Client>,
    jobs: &mut mpsc::Receiver<Job>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), AnyError> {
    if let Job::UseSidecar { outbound } = job {
        *client = Some(Client::new(outbound));
        return Ok(());
    }
    let client = client.as_mut().ok_or("no sidecar was named before the first job")?;
    match job {
        Job::UseSidecar { .. } | Job::StopLoad => {}
        Job::Ask { target } => reports.send(client.ask(&target).await?).await?,
        Job::Listen { target } => client.listen(&target, reports).await?,
        Job::WebSocket { target, say } => {
            reports.send(websocket::converse(client.outbound, &target, &say).await?).await?;
        }
        Job::Load { target, connections, pause_millis } => {
            let plan = load::Plan { target, connections, pause_millis };
            load::run(client.outbound, plan, jobs, reports).await?;
        }
    }
    Ok(())
}

/// One keep-alive connection to the sidecar, made anew when it was closed.
pub(crate) struct Client {
    outbound: SocketAddr,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    pub(crate) fn new(outbound: SocketAddr) -> Self {
        Client { outbound, connection: None }
    }

    /// Sends one request and reads the answer to its end.
    pub(crate) async fn ask(&mut self, target: &Target) -> Result<Report, AnyError> {
        match self.ask_once(target).await {
            Err(_) if target.again => self.ask_once(target).await,
            answer => answer,
        }
    }

    async fn ask_once(&mut self, target: &Target) -> Result<Report, AnyError> {
        let request = request(target)?.body(Empty::new())?;
        let mut connection = match self.connection.take() {
            Some(open) if open.is_ready() => open,
            _ => self.connect().await?,
        };
        let begin = Instant::now();
        let response = connection.send_request(request).await?;
        let (head, body) = response.into_parts();
        let arrivals = arrivals(body, begin).await?;
        let micros = since(begin);
        connection.ready().await.ok();
        self.connection = Some(connection);
        let field =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
        let who = Whoami {
            agent: field(AGENT_HEADER).unwrap_or_default(),
            version: field(VERSION_HEADER).unwrap_or_default(),
        };
        let (reason, booking) = (field("pilotfish-reason"), field(BOOKING_HEADER));
        Ok(Report::Answer { status: head.status.as_u16(), reason, who, micros, arrivals, booking })
    }

    /// Reads a stream on a connection of its own until it ends or is cut.
    async fn listen(&mut self, target: &Target, reports: &mpsc::Sender<Report>) -> Result<(), AnyError> {
        let request = request(target)?.body(Empty::new())?;
        let response = self.connect().await?.send_request(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the stream was answered with {}", response.status()).into());
        }
        let (mut body, mut pieces, mut cut) = (response.into_body(), 0, false);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(_) if pieces == 0 => reports.send(Report::Begun).await?,
                Ok(_) => {}
                Err(_) => {
                    // Whoever cuts a call cuts the other connections too.
                    (cut, self.connection) = (true, None);
                    break;
                }
            }
            pieces += 1;
        }
        Ok(reports.send(Report::Over { pieces, cut }).await?)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, AnyError> {
        let socket = TcpStream::connect(self.outbound).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// A request that says what the target says.
pub(crate) fn request(target: &Target) -> Result<http::request::Builder, AnyError> {
    let builder = if target.post { Request::post(&target.path) } else { Request::get(&target.path) };
    let mut builder = builder.header(header::HOST, &target.host).header("x-request-id", &target.id);
    for (name, value) in &target.headers {
        builder = builder.header(name, value);
    }
    Ok(builder)
}

async fn arrivals(mut body: Incoming, begin: Instant) -> Result<Vec<u64>, AnyError> {
    let mut arrivals = Vec::new();
    while let Some(frame) = body.frame().await {
        if frame?.is_data() {
            arrivals.push(since(begin));
        }
    }
    Ok(arrivals)
}

/// Microseconds since `begin`.
pub(crate) fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

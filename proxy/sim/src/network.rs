//! The network below the sidecars: connections of `turmoil`, which can be cut, and whose writes may be short.
//!
//! `turmoil` loses messages in a partition for ever, as no TCP would: so a short partition holds messages back, and one
//! that is longer than TCP_USER_TIMEOUT cuts the connections across it (see [`Wires::cut`]), as the kernel would.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use pilotfish_proxy::http::Io;
use pilotfish_proxy::net::simulated::{Listen, Network, Promise, Simulated};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::world::World;

/// One write in so many is short.
const SHORT_WRITES: u32 = 8;

/// Makes the sidecars' connections.
#[derive(Debug)]
pub struct Turmoil;

impl Network for Turmoil {
    fn connect(&self, address: SocketAddr, _mesh: bool) -> Promise<'_, Io> {
        Box::pin(async move { TcpStream::connect(address).await.and_then(io) })
    }
}

/// A sidecar's port.
pub struct Port(TcpListener);

impl Port {
    /// Listens on this port of the running host.
    ///
    /// # Errors
    /// It is taken.
    pub async fn bind(port: u16) -> io::Result<Port> {
        TcpListener::bind(("0.0.0.0", port)).await.map(Port)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Port")
    }
}

impl Listen for Port {
    fn accept(&self) -> Promise<'_, Io> {
        Box::pin(async { self.0.accept().await.and_then(|(stream, _)| io(stream)) })
    }
}

fn io(stream: TcpStream) -> io::Result<Io> {
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let cut = Rc::new(Cut { ends: [local.ip(), peer.ip()], ..Cut::default() });
    if let Some(world) = World::current() {
        world.wires.0.borrow_mut().push(Rc::downgrade(&cut));
    }
    Ok(Io::Simulated(Box::new(Simulated::new(Wire { stream, cut }, local, peer))))
}

/// All connections of sidecars.
#[derive(Debug, Default)]
pub struct Wires(RefCell<Vec<Weak<Cut>>>);

impl Wires {
    /// Breaks every connection between two hosts; says how many there were.
    pub fn cut(&self, a: IpAddr, b: IpAddr) -> usize {
        let mut wires = self.0.borrow_mut();
        wires.retain(|wire| wire.strong_count() > 0);
        let across: Vec<_> = wires
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|cut| cut.ends == [a, b] || cut.ends == [b, a])
            .collect();
        drop(wires);
        across.iter().for_each(|cut| cut.cut());
        across.len()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.0.borrow().iter().filter(|wire| wire.strong_count() > 0).count()
    }
}

/// What breaks a connection from outside.
#[derive(Debug)]
struct Cut {
    ends: [IpAddr; 2],
    done: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Default for Cut {
    fn default() -> Self {
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        Cut {
            ends: [nowhere; 2],
            done: Cell::default(),
            reader: RefCell::default(),
            writer: RefCell::default(),
        }
    }
}

impl Cut {
    fn cut(&self) {
        self.done.set(true);
        for waiting in [&self.reader, &self.writer] {
            waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.done.get() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// One connection.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    cut: Rc<Cut>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.check()?;
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.cut.reader.replace(Some(cx.waker().clone()));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        let short = bytes.len() > 1 && fastrand::u32(..SHORT_WRITES) == 0;
        let most = if short { fastrand::usize(1..bytes.len()) } else { bytes.len() };
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes.get(..most).unwrap_or(bytes));
        if written.is_pending() {
            self.cut.writer.replace(Some(cx.waker().clone()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

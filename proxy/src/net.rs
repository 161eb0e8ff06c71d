//! The seam to the network: where connections come from and where they are made. The kernel's sockets, or with the
//! feature `sim` those of a simulated network.
//!
//! Time needs no seam of its own: everything goes by tokio's clock ([`crate::clock::Clock`] too), which a simulation
//! drives. Nor does most randomness: every generator that is not made from a seed descends from the thread's
//! (`fastrand::seed`); what has to be unique in the world comes from [`fill_unique`].

#[cfg(feature = "sim")]
pub mod simulated;

use std::io;

use aws_lc_rs::rand;
use tokio::net::TcpListener;

use crate::http::Io;

/// Where new connections are made.
#[derive(Debug, Default)]
pub enum Net {
    /// By the kernel.
    #[default]
    System,
    /// In a simulated network.
    #[cfg(feature = "sim")]
    Simulated(std::sync::Arc<dyn simulated::Network>),
}

/// Where connections come from.
#[derive(Debug)]
pub enum Listener {
    /// A socket of the kernel.
    System(TcpListener),
    /// A port in a simulated network.
    #[cfg(feature = "sim")]
    Simulated(Box<dyn simulated::Listen>),
}

impl Listener {
    /// A non-blocking socket of the kernel that listens.
    ///
    /// # Errors
    /// The reactor does not take it.
    pub fn of(listener: std::net::TcpListener) -> io::Result<Listener> {
        TcpListener::from_std(listener).map(Listener::System)
    }

    /// The next connection.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn accept(&self) -> io::Result<Io> {
        match self {
            Listener::System(listener) => listener.accept().await.map(|(stream, _)| Io::Tcp(stream)),
            #[cfg(feature = "sim")]
            Listener::Simulated(listener) => listener.accept().await,
        }
    }

    /// The connections that the kernel has already queued, as the listener closes.
    pub fn into_queued(self) -> impl Iterator<Item = Io> {
        let listener = match self {
            Listener::System(listener) => listener.into_std().ok(),
            #[cfg(feature = "sim")]
            Listener::Simulated(_) => None,
        };
        std::iter::from_fn(move || {
            let (stream, _) = listener.as_ref()?.accept().ok()?;
            stream.set_nonblocking(true).ok()?;
            tokio::net::TcpStream::from_std(stream).ok().map(Io::Tcp)
        })
    }
}

/// Fills an id that has to be unique, not secret.
pub fn fill_unique(id: &mut [u8]) {
    #[cfg(feature = "sim")]
    if simulated::is_here() {
        return fastrand::fill(id);
    }
    if rand::fill(id).is_err() {
        fastrand::fill(id);
    }
}

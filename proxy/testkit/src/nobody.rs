//! A port where nobody listens and that nobody else can take: a port that was free a moment ago is soon another test's.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// An address of 127.0.0.1 that refuses connections for as long as this lives.
#[derive(Debug)]
pub struct Nobody(TcpSocket);

impl Nobody {
    /// Takes a port.
    pub fn new() -> Nobody {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        Nobody(socket)
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// From now on somebody listens there.
    pub fn listen(self) -> TcpListener {
        self.0.listen(64).expect("a port of our own")
    }
}

impl Default for Nobody {
    fn default() -> Self {
        Nobody::new()
    }
}

//! A port where nobody listens and that nobody takes by chance: a port that was free a moment ago is soon another test's.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// An address of 127.0.0.1 that is nobody else's for as long as this lives. It refuses connections, until something that is told of it
/// listens there (with `SO_REUSEADDR`, as Tokio, the standard library and Go do); what does may go and come again.
#[derive(Debug)]
pub struct Nobody(TcpSocket);

impl Nobody {
    /// Takes a port.
    pub fn new() -> Nobody {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Linux gives a port that is bound to nobody who asks for any port, but lets those who ask for this one share it.
        socket.set_reuseaddr(true).expect("an option of sockets");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_told_of_the_port_may_listen_there_and_again() {
        let nobody = Nobody::new();
        for _ in 0..2 {
            assert!(tokio::net::TcpStream::connect(nobody.addr()).await.is_err());
            let listener = TcpListener::bind(nobody.addr()).await.unwrap();
            tokio::net::TcpStream::connect(nobody.addr()).await.unwrap();
            drop(listener);
        }
    }
}

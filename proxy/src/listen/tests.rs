//! Binding and slots, on real sockets of port 0.

use super::*;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn all_workers_share_the_port_that_the_kernel_chose() {
    let listeners = bind(loopback(0), 3).unwrap();
    let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
    assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
}

#[test]
fn a_second_process_on_the_same_port_is_refused_although_workers_share_it() {
    for workers in [1, 2] {
        let first = bind(loopback(0), workers).unwrap();
        let error = bind(first[0].local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{workers} workers");
        assert!(error.to_string().contains("cannot listen on 127.0.0.1:"), "{error}");
    }
}

#[test]
fn accepted_sockets_inherit_nodelay_and_keepalive() {
    let listener = bind(loopback(0), 1).unwrap().remove(0);
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let socket = socket2::SockRef::from(&accepted);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    drop(client);
}

#[tokio::test]
async fn a_full_listener_waits_until_a_connection_closes() {
    let metrics = Arc::new(WorkerMetrics::default());
    let slots = Slots::new(Direction::Inbound, 1, metrics.clone());
    let taken = slots.take();
    let waiting = slots.room();
    tokio::pin!(waiting);
    let poll =
        std::future::poll_fn(|context| std::task::Poll::Ready(waiting.as_mut().poll(context).is_ready()))
            .await;
    assert!(!poll, "there was room for a second");
    assert_eq!(metrics.direction(Direction::Inbound).active_connections.get(), 1);
    drop(taken);
    waiting.await;
    slots.idle().await;
    assert_eq!(metrics.direction(Direction::Inbound).active_connections.get(), 0);
    assert_eq!(metrics.direction(Direction::Inbound).connections.get(), 1);
}

#[test]
fn what_the_kernel_has_queued_is_accepted_before_the_listener_closes() {
    use crate::bootstrap::Settings;
    let settings = ["pilotfish-proxy", "--config", "/none", "--agent", "a"];
    let settings = <Settings as clap::Parser>::try_parse_from(settings).unwrap();
    let (shared, _questions) = crate::server::Shared::new(settings).unwrap();
    let listener = bind(loopback(0), 1).unwrap().remove(0);
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    shared.drain.advance(Phase::Closing);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    let metrics = shared.metrics[0].clone();
    runtime.block_on(async {
        let slots = Slots::new(Direction::Outbound, 10, metrics.clone());
        let worker = Worker::new(0, shared);
        accept(worker, Listener::of(listener).unwrap(), slots).await;
    });
    assert_eq!(metrics.direction(Direction::Outbound).connections.get(), 50);
    let error = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "the listener is still open");
    drop(clients);
}

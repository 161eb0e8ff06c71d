//! A TLS connection against rustls' own buffered end: fragments, ends, floods, slow readers, idle memory.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pilotfish_testkit::ca::{Ca, Leaf};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::{Io, TlsIo, handshake, poll_fill};

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build_local(tokio::runtime::LocalOptions::default()).unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("a test that hangs")
    })
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let ca = Ca::new("mesh.test");
    let server = ca.issue(&Leaf::agent("mesh.test", "default", "server"));
    let client = ca.issue(&Leaf::agent("mesh.test", "default", "client"));
    (ca.server(&server, true, &[]), ca.client(Some(&client), &[]))
}

fn name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    let (near, far) = (near.unwrap(), far.unwrap().0);
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

type Peer = tokio_rustls::client::TlsStream<TcpStream>;

/// Our side as a server, and rustls' own buffered client.
async fn ends() -> (Io, Peer) {
    let (near, far) = sockets().await;
    let (server, client) = configs();
    let connector = TlsConnector::from(client);
    let (ours, theirs) =
        tokio::join!(handshake::accept(far, BytesMut::new(), server), connector.connect(name(), near));
    (Io::Tls(Box::new(ours.unwrap())), theirs.unwrap())
}

async fn read(io: &mut Io) -> io::Result<BytesMut> {
    let mut buffer = BytesMut::new();
    poll_fn(|cx| poll_fill(io, cx, &mut buffer, 0)).await?;
    Ok(buffer)
}

async fn write(io: &mut Io, bytes: &[u8]) {
    io.write_all(bytes).await.unwrap();
}

fn tls(io: &Io) -> &TlsIo {
    io.as_tls().unwrap()
}

#[test]
fn bytes_one_at_a_time_are_a_handshake_and_data() {
    run(async {
        let (near, middle_near) = sockets().await;
        let (middle_far, far) = sockets().await;
        let (mut a, mut b) = (middle_near, middle_far);
        tokio::task::spawn_local(async move {
            let (mut ar, mut aw) = a.split();
            let (mut br, mut bw) = b.split();
            let up = async {
                while let Ok(byte) = ar.read_u8().await {
                    bw.write_u8(byte).await.unwrap();
                }
            };
            let down = async {
                while let Ok(byte) = br.read_u8().await {
                    aw.write_u8(byte).await.unwrap();
                }
            };
            tokio::join!(up, down);
        });
        let (server, client) = configs();
        let connector = TlsConnector::from(client);
        let (ours, theirs) =
            tokio::join!(handshake::accept(far, BytesMut::new(), server), connector.connect(name(), near));
        let (mut ours, mut theirs) = (Io::Tls(Box::new(ours.unwrap())), theirs.unwrap());
        theirs.write_all(&[7; 3000]).await.unwrap();
        theirs.flush().await.unwrap();
        let mut got = BytesMut::new();
        while got.len() < 3000 {
            got.unsplit(read(&mut ours).await.unwrap());
        }
        assert!(got.iter().all(|byte| *byte == 7));
        write(&mut ours, b"back").await;
        let mut back = [0; 4];
        theirs.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
    });
}

#[test]
fn an_end_is_an_end_only_with_close_notify() {
    run(async {
        let (mut ours, mut theirs) = ends().await;
        theirs.shutdown().await.unwrap();
        assert!(read(&mut ours).await.unwrap().is_empty());
        // Our own half is still open.
        write(&mut ours, b"late").await;
        let mut late = [0; 4];
        theirs.read_exact(&mut late).await.unwrap();
        poll_fn(|cx| Pin::new(&mut ours).poll_shutdown(cx)).await.unwrap();
        assert_eq!(
            theirs.read(&mut late).await.unwrap(),
            0,
            "rustls reports a missing close_notify as an error"
        );

        let (mut ours, theirs) = ends().await;
        let (mut socket, _) = theirs.into_inner();
        socket.shutdown().await.unwrap();
        assert_eq!(read(&mut ours).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn nothing_is_lost_or_sent_twice_when_the_peer_reads_slowly() {
    run(async {
        let (mut ours, mut theirs) = ends().await;
        let sent: Vec<u8> = (0..12_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let reader = tokio::task::spawn_local(async move {
            let mut got = Vec::new();
            let mut piece = vec![0; 100_000];
            while got.len() < expected.len() {
                let n = theirs.read(&mut piece).await.unwrap();
                got.extend_from_slice(&piece[..n]);
                if got.len() % 7 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            assert!(got == expected);
        });
        let mut at = 0;
        let mut pending = 0;
        while at < sent.len() {
            // As the engine does: the same bytes again, perhaps cut differently, after each wait.
            let n = poll_fn(|cx| {
                let end = (at + 150_000).min(sent.len());
                let middle = (at + 10 + pending % 5000).min(end);
                let slices = [IoSlice::new(&sent[at..middle]), IoSlice::new(&sent[middle..end])];
                let polled = Pin::new(&mut ours).poll_write_vectored(cx, &slices);
                pending += usize::from(polled.is_pending());
                polled
            })
            .await
            .unwrap();
            at += n;
        }
        poll_fn(|cx| Pin::new(&mut ours).poll_flush(cx)).await.unwrap();
        reader.await.unwrap();
        assert!(pending > 0, "the peer was never slow");
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    run(async {
        let (mut ours, mut theirs) = ends().await;
        theirs.write_all(b"request").await.unwrap();
        assert_eq!(read(&mut ours).await.unwrap(), &b"request"[..]);
        write(&mut ours, &[1; 40_000]).await;
        let mut answer = vec![0; 40_000];
        theirs.read_exact(&mut answer).await.unwrap();
        let mut buffer = BytesMut::new();
        let polled = poll_fn(|cx| Poll::Ready(poll_fill(&mut ours, cx, &mut buffer, 0))).await;
        assert!(polled.is_pending() && buffer.capacity() == 0);
        assert_eq!(tls(&ours).buffered(), 0);
        assert!(ours.is_quiet() && tls(&ours).buffered() == 0);
    });
}

#[test]
fn keys_that_change_are_followed_and_a_flood_of_them_ends() {
    run(async {
        let (mut ours, mut theirs) = ends().await;
        for turn in 0..5u8 {
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
            theirs.write_all(&[turn; 100]).await.unwrap();
            assert_eq!(read(&mut ours).await.unwrap(), &[turn; 100][..]);
            write(&mut ours, &[turn; 10]).await;
            let mut back = [0; 10];
            theirs.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [turn; 10]);
        }
        for _ in 0..200 {
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
        }
        let _ = theirs.flush().await;
        assert_eq!(read(&mut ours).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn what_is_no_record_breaks_the_connection_with_an_alert() {
    run(async {
        let garbage: [&[u8]; 5] = [
            b"\x17\x03\x03\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x17\x03\x03\0\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"\x15\x03\x03\0\x02\x02\x28",
            b"\x16\x03\x03\0\x04\0\0\0\0",
        ];
        for bytes in garbage {
            let (mut ours, theirs) = ends().await;
            let (mut socket, _) = theirs.into_inner();
            socket.write_all(bytes).await.unwrap();
            assert!(read(&mut ours).await.is_err(), "{bytes:?}");
            let again = poll_fn(|cx| Pin::new(&mut ours).poll_write(cx, b"x")).await;
            assert!(again.is_err(), "nothing is written after {bytes:?}");
            drop(ours);
            let mut alert = Vec::new();
            let _ = socket.read_to_end(&mut alert).await;
            assert_eq!(alert.first(), Some(&0x17), "an encrypted alert after {bytes:?}: {alert:?}");
        }
    });
}

#[test]
fn tickets_leave_a_connection_quiet_and_data_does_not() {
    run(async {
        let (near, far) = sockets().await;
        let (server, client) = configs();
        // The peer sends tickets after its handshake, as servers outside of the mesh do.
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        let (theirs, ours) = tokio::join!(acceptor.accept(far), handshake::connect(near, client, name()));
        let (mut theirs, mut ours) = (theirs.unwrap(), Io::Tls(Box::new(ours.unwrap())));
        theirs.flush().await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(ours.is_quiet());
        }
        theirs.write_all(b"unasked").await.unwrap();
        theirs.flush().await.unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(5);
        while ours.is_quiet() {
            assert!(tokio::time::Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_fuse_cuts_whoever_waits() {
    run(async {
        let (mut ours, mut theirs) = ends().await;
        let fuse = Rc::clone(tls(&ours).fuse());
        let waiting = tokio::task::spawn_local(async move { read(&mut ours).await.map(|bytes| bytes.len()) });
        tokio::time::sleep(Duration::from_millis(5)).await;
        fuse.blow();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        let mut byte = [0];
        assert!(!matches!(theirs.read(&mut byte).await, Ok(n) if n > 0));
    });
}

#[test]
fn a_handshake_that_never_ends_is_too_long() {
    run(async {
        let (mut near, far) = sockets().await;
        let (server, _) = configs();
        tokio::task::spawn_local(async move {
            // A ClientHello of 60 KB, in records of one byte.
            let _ = near.write_all(b"\x16\x03\x01\0\x04\x01\0\xea\x60").await;
            for _ in 0..60_000 {
                if near.write_all(b"\x16\x03\x01\0\x01\0").await.is_err() {
                    return;
                }
            }
        });
        assert!(handshake::accept(far, BytesMut::new(), server).await.is_err());
    });
}

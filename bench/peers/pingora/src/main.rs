//! The smallest proxy that pingora-proxy makes, as a rival for `make bench`:
//! one worker, a pool of idle upstream connections, a ring when there is more than one upstream port.
//!
//! `bench-pingora LISTEN_PORT plain|h2c UPSTREAM_PORT...`

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::apps::HttpServerOptions;
use pingora_core::prelude::{Error, ErrorType};
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_ketama::{Bucket, Continuum};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// What the proxy forwards to.
enum Upstreams {
    One(SocketAddr),
    Ring(Continuum),
}

struct Forward(Upstreams);

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let address = match &self.0 {
            Upstreams::One(address) => Some(*address),
            Upstreams::Ring(ring) => {
                let key = session.req_header().headers.get("x-hash");
                ring.node(key.map_or(b"".as_slice(), |k| k.as_bytes()))
            }
        };
        let address = address.ok_or_else(|| Error::new(ErrorType::ConnectNoRoute))?;
        Ok(Box::new(HttpPeer::new(address, false, String::new())))
    }
}

fn loopback(port: &str) -> SocketAddr {
    let port = port.parse().expect("a port number");
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, protocol, upstreams @ ..] = args.as_slice() else {
        eprintln!("usage: bench-pingora LISTEN_PORT plain|h2c UPSTREAM_PORT...");
        std::process::exit(2);
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let upstreams = match upstreams {
        [one] => Upstreams::One(loopback(one)),
        many => {
            let buckets: Vec<_> = many.iter().map(|p| Bucket::new(loopback(p), 1)).collect();
            Upstreams::Ring(Continuum::new(&buckets))
        }
    };
    let mut service = http_proxy_service(&server.configuration, Forward(upstreams));
    if protocol == "h2c"
        && let Some(app) = service.app_logic_mut()
    {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    service.add_tcp(&format!("127.0.0.1:{listen}"));
    server.add_service(service);
    server.run_forever();
}

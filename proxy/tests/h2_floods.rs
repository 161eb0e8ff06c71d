//! Floods over HTTP/2: each is bounded, a good client is served throughout, and memory grows by less than 16 MiB.

use std::net::SocketAddr;
use std::time::Duration;

use pilotfish_testkit::h2::{self, Frame, code, flag, hpack, kind};
use pilotfish_testkit::{Agent, H2, Sidecar, h1};

use crate::limits::{GoodClient, SLOWEST};
use crate::support::{h1_upstreams, service, sidecar};

/// How much memory a flood may pin.
const GROWTH: u64 = 16 << 20;

async fn start(agent: &Agent) -> Sidecar {
    let sidecar = sidecar().yaml("a.yaml", service("s.test", agent.port()) + &h1_upstreams("s.test")).start();
    // What a busy sidecar needs anyway is not the flood's growth.
    for _ in 0..50 {
        h1::get(sidecar.outbound, "s.test", "/bytes/100000", &[]).await.unwrap();
    }
    sidecar
}

/// Runs floods of frames on three connections beside a good client; `part(i)` gives the bytes of the i-th part.
async fn flood(name: &str, opening: &[u8], parts: usize, must_end: bool, part: impl Fn(usize) -> Vec<u8>) {
    let agent = Agent::start("good").await;
    let sidecar = start(&agent).await;
    let before = sidecar.rss();
    let good = GoodClient::start(sidecar.outbound, "s.test");
    let (mut most, mut ended) = (0, 0);
    for _ in 0..3 {
        let mut client = H2::open(sidecar.outbound, &[]).await;
        client.polite = false;
        client.send_raw(opening).await;
        for i in 0..parts {
            if !client.send_raw(part(i)).await {
                break;
            }
            if i % 8 == 0 {
                most = most.max(sidecar.rss().saturating_sub(before));
            }
        }
        // Those that must end do, and are waited for; the others have the time to.
        let time = Duration::from_secs(if must_end { 20 } else { 2 });
        client.pump(time, |c| c.goaway().is_some()).await;
        ended += usize::from(client.closed() || client.goaway().is_some());
        most = most.max(sidecar.rss().saturating_sub(before));
    }
    good.finish(SLOWEST).await;
    assert!(most < GROWTH, "{name}: memory grew by {} KiB", most >> 10);
    assert!(!must_end || ended == 3, "{name}: only {ended} of 3 connections were ended");
    let until = tokio::time::Instant::now() + SLOWEST;
    while agent.open() > 1 {
        let open = agent.open();
        assert!(tokio::time::Instant::now() < until, "{name}: {open} requests are left open at the origin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(stream: usize, path: &str) -> Vec<u8> {
    let stream = u32::try_from(stream).unwrap_or(1);
    h2::headers(stream, h2::request("GET", "s.test", path, &[]), true).bytes()
}

fn many(n: usize, frame: &[u8]) -> Vec<u8> {
    frame.repeat(n)
}

#[tokio::test]
async fn rapid_reset() {
    flood("rapid reset", &[], 200, true, |part| {
        (0..100)
            .flat_map(|i| {
                let stream = (part * 100 + i) * 2 + 1;
                let id = u32::try_from(stream).unwrap_or(1);
                [get(stream, "/delay/1000"), h2::reset(id, code::CANCEL).bytes()].concat()
            })
            .collect()
    })
    .await;
}

#[tokio::test]
async fn resets_that_the_server_is_made_to_send() {
    flood("made-you-reset", &[], 200, true, |part| {
        (0..100)
            .flat_map(|i| {
                let stream = (part * 100 + i) * 2 + 1;
                let id = u32::try_from(stream).unwrap_or(1);
                [get(stream, "/delay/1000"), h2::window(id, 0).bytes()].concat()
            })
            .collect()
    })
    .await;
}

#[tokio::test]
async fn malformed_requests_without_end() {
    flood("malformed requests", &[], 200, true, |part| {
        (0..100)
            .flat_map(|i| {
                let id = u32::try_from((part * 100 + i) * 2 + 1).unwrap_or(1);
                h2::headers(id, h2::request("GET", "s.test", "/", &[("connection", "close")]), true).bytes()
            })
            .collect()
    })
    .await;
}

#[tokio::test]
async fn continuations() {
    let open = Frame::new(kind::HEADERS, flag::END_STREAM, 1, h2::request("GET", "s.test", "/", &[])).bytes();
    let more = Frame::new(kind::CONTINUATION, 0, 1, hpack::literal("a", "b".repeat(1000))).bytes();
    flood("CONTINUATION", &open, 200, true, |_| many(100, &more)).await;
}

#[tokio::test]
async fn empty_continuations() {
    let open = Frame::new(kind::HEADERS, flag::END_STREAM, 1, h2::request("GET", "s.test", "/", &[])).bytes();
    let more = Frame::new(kind::CONTINUATION, 0, 1, []).bytes();
    flood("empty CONTINUATION", &open, 200, true, |_| many(1000, &more)).await;
}

#[tokio::test]
async fn pings() {
    let ping = Frame::new(kind::PING, 0, 0, [7; 8]).bytes();
    flood("PING", &[], 200, false, |_| many(1000, &ping)).await;
}

#[tokio::test]
async fn settings() {
    let settings = h2::settings(&[(4, 65_535)]).bytes();
    flood("SETTINGS", &[], 200, false, |_| many(1000, &settings)).await;
}

#[tokio::test]
async fn priorities() {
    flood("PRIORITY", &[], 200, false, |part| {
        let frame = |i| {
            Frame::new(kind::PRIORITY, 0, u32::try_from(part * 500 + i).unwrap_or(1) * 2 + 1, [0, 0, 0, 0, 9])
        };
        (0..500).flat_map(|i| frame(i).bytes()).collect()
    })
    .await;
}

#[tokio::test]
async fn empty_data() {
    let open = h2::headers(1, h2::request("POST", "s.test", "/", &[]), false).bytes();
    let data = h2::data(1, [], false).bytes();
    flood("empty DATA", &open, 200, false, |_| many(1000, &data)).await;
}

#[tokio::test]
async fn a_byte_of_data_each() {
    let open = h2::headers(1, h2::request("POST", "s.test", "/", &[]), false).bytes();
    let data = h2::data(1, *b"x", false).bytes();
    flood("DATA of a byte", &open, 60, false, |_| many(1000, &data)).await;
}

#[tokio::test]
async fn padding_without_content() {
    let open = h2::headers(1, h2::request("POST", "s.test", "/", &[]), false).bytes();
    let data = Frame::new(kind::DATA, flag::PADDED, 1, [vec![255], vec![0; 255]].concat()).bytes();
    flood("padding", &open, 20, false, |_| many(10, &data)).await;
}

#[tokio::test]
async fn window_dribble() {
    let open = get(1, "/bytes/1000000");
    let update = [h2::window(0, 1).bytes(), h2::window(1, 1).bytes()].concat();
    flood("window dribble", &open, 200, false, |_| many(500, &update)).await;
}

#[tokio::test]
async fn compression_bomb() {
    // One field of 4 kB in the table, then used 4000 times: 16 MB of headers from 20 kB.
    let mut block = h2::request("GET", "s.test", "/", &[]);
    block.extend(hpack::literal_indexed("a", "b".repeat(4000)));
    block.extend(hpack::indexed(62).repeat(4000));
    flood("HPACK bomb", &[], 100, false, move |part| {
        h2::headers(u32::try_from(part * 2 + 1).unwrap_or(1), block.clone(), true).bytes()
    })
    .await;
}

#[tokio::test]
async fn headers_of_no_length() {
    let mut block = h2::request("GET", "s.test", "/", &[]);
    block.extend(hpack::literal("", "").repeat(5000));
    flood("empty names", &[], 100, false, move |part| {
        h2::headers(u32::try_from(part * 2 + 1).unwrap_or(1), block.clone(), true).bytes()
    })
    .await;
}

#[tokio::test]
async fn table_churn() {
    flood("table churn", &[], 200, false, |part| {
        let block = [hpack::table_size(part % 2 * 4096), h2::request("GET", "s.test", "/", &[])].concat();
        h2::headers(u32::try_from(part * 2 + 1).unwrap_or(1), block, true).bytes()
    })
    .await;
}

#[tokio::test]
async fn unknown_frames() {
    let frame = Frame::new(0xee, 0, 0, [0; 100]).bytes();
    flood("unknown frames", &[], 200, false, |_| many(500, &frame)).await;
}

/// Streams of an answer that nobody reads, on connections with no window or with the largest.
async fn unread(addr: SocketAddr, window: u32) -> Vec<H2> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = H2::open(addr, &[(4, window)]).await;
        client.polite = false;
        if window > 0 {
            client.send(&h2::window(0, (1 << 31) - 1 - 65_535)).await;
        }
        for i in 0..100 {
            client.send_raw(get(i * 2 + 1, "/bytes/1000000")).await;
        }
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn answers_that_nobody_reads() {
    let agent = Agent::start("good").await;
    let sidecar = start(&agent).await;
    let before = sidecar.rss();
    let good = GoodClient::start(sidecar.outbound, "s.test");
    let _none = unread(sidecar.outbound, 0).await;
    let _large = unread(sidecar.outbound, (1 << 31) - 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let grown = sidecar.rss().saturating_sub(before);
    good.finish(SLOWEST).await;
    assert!(grown < GROWTH, "memory grew by {} KiB", grown >> 10);
}

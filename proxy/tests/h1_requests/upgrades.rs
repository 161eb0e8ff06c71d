//! Upgrade where the origin does not upgrade: nothing becomes a tunnel. RFC 9110 section 7.8, RFC 9113 section 3.

use pilotfish_testkit::h1::Answer;
use pilotfish_testkit::strict::Message;

use super::{After, Row, row};

fn get(name: &'static str, lines: &str, rest: &str) -> Row {
    row(name, format!("GET / HTTP/1.1\r\nHost: {{h}}\r\n{lines}\r\n\r\n{rest}"))
}

fn no_upgrade(seen: &[Message], _: &[Answer]) -> Result<(), String> {
    for name in ["upgrade", "http2-settings"] {
        if let Some(value) = seen[0].header(name) {
            return Err(format!("{name}: {value} went on"));
        }
    }
    Ok(())
}

pub fn rows() -> Vec<Row> {
    let socket = "Connection: Upgrade\r\nUpgrade: websocket";
    let second = "GET /second HTTP/1.1\r\nHost: {h}\r\n\r\n";
    let h2c =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA";
    vec![
        get("an upgrade refused with 200", socket, "").after(After::Either),
        // What follows an Upgrade that was not granted may be either protocol: the connection ends.
        get("a request after an upgrade refused with 200", socket, second).closed(),
        get("garbage after an upgrade refused with 200", socket, "\x01\x02\r\n\r\n").closed(),
        get("h2c by upgrade is not passed on", h2c, "").check(no_upgrade),
        get(
            "h2c in capitals is not passed on",
            "Connection: UPGRADE, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AA",
            "",
        )
        .check(no_upgrade),
        get("h2c behind another is not passed on", "Connection: Upgrade\r\nUpgrade: websocket, h2c", "")
            .check(|seen, _| match seen[0].header("upgrade") {
                Some(v) if v.to_ascii_lowercase().contains("h2c") => Err(format!("upgrade: {v} went on")),
                _ => Ok(()),
            })
            .after(After::Either),
        get("h2c, then the preface", h2c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .answers(&[200, 400])
            .or(505)
            .closed(),
        get("h2c not named by Connection", "Upgrade: h2c\r\nHTTP2-Settings: AA", "").check(no_upgrade),
        get("Upgrade not named by Connection", "Upgrade: websocket", "").check(no_upgrade),
        get("Connection: upgrade without Upgrade", "Connection: upgrade", ""),
        row(
            "upgrade with content",
            format!("POST / HTTP/1.1\r\nHost: {{h}}\r\n{socket}\r\nContent-Length: 5\r\n\r\nhello{second}"),
        )
        .answers(&[200, 200])
        .origin(2)
        .after(After::Either),
        row("upgrade with HTTP/1.0", format!("GET / HTTP/1.0\r\nHost: {{h}}\r\n{socket}\r\n\r\n"))
            .closed()
            .check(no_upgrade),
    ]
}

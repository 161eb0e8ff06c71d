//! Finding the control plane, proving who asks, versions, and everything that can be wrong with either.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_control::api::types::{PlacementView, Version};
use pilotfish_testkit::Nobody;
use pilotfish_testkit::ca::{Ca, Issued, Leaf};

use super::scripted::{Ran, Scripted, bytes, ok, pilotfish, ran, refused, version, write};

#[test]
fn nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let words: [&str; 2] = [
        &format!("no socket {data}/pilotfish.sock; start one with `pilotfish serve --data {data}`"),
        "--control https://HOST:15012",
    ];
    ran(pilotfish(&["status", "--data", &data])).fails(4, &words);
    drop(UnixListener::bind(dir.path().join("pilotfish.sock")).unwrap());
    ran(pilotfish(&["status", "--data", &data])).fails(4, &["has ended; start one"]);
    let nobody = Nobody::new();
    let closed = nobody.addr();
    let url = format!("https://{closed}");
    let pin = "ab".repeat(32);
    ran(pilotfish(&["get", "all", "--control", &url, "--ca-fingerprint", &pin])).fails(
        4,
        &[&format!("the control plane at {closed} cannot be reached"), "is `pilotfish serve` running"],
    );
}

#[test]
fn one_that_never_answers() {
    let dir = tempfile::tempdir().unwrap();
    let _silent = UnixListener::bind(dir.path().join("pilotfish.sock")).unwrap();
    let data = dir.path().display().to_string();
    let started = Instant::now();
    ran(pilotfish(&["status", "--data", &data, "--request-timeout", "300ms"]))
        .fails(4, &["did not answer within", "--request-timeout"]);
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[test]
fn flags_that_contradict_or_lack_something() {
    let run = |args: &[&str]| ran(pilotfish(args));
    run(&["status", "--control", "http://x", "--ca-file", "x"]).fails(2, &["has to begin with https://"]);
    run(&["status", "--control", "https://x"]).fails(2, &["--ca-fingerprint SHA256", "--ca-file FILE"]);
    run(&["status", "--control", "https://x", "--data", "y"]).fails(2, &["cannot be used with"]);
    run(&["status", "--control", "https://x", "--ca-fingerprint", "abc"])
        .fails(2, &["64 hexadecimal digits"]);
    run(&["status", "--control", "https://x", "--ca-file", "/none"]).fails(2, &["/none: No such file"]);
    let args = [
        "status",
        "--control",
        "https://x",
        "--ca-fingerprint",
        &"ab".repeat(32),
        "--admin-token-file",
        "/none",
    ];
    run(&args).fails(2, &["--admin-token-file /none"]);
    run(&["frobnicate"]).fails(2, &["frobnicate"]);
    let mut command = pilotfish(&["status", "--ca-fingerprint", &"ab".repeat(32)]);
    command.env("PILOTFISH_CONTROL", "https://x:1").env("PILOTFISH_ADMIN_TOKEN", "se cret");
    let ran = ran(command);
    ran.fails(2, &["characters that no token has"]);
    assert!(!ran.err.contains("cret"));
}

#[test]
fn who_is_not_allowed_is_told_and_ends_with_3() {
    for status in [401, 403] {
        let control = Scripted::on_socket(move |_| Some(refused(status, "this needs an administrator", &[])));
        control.run(&["status"]).fails(3, &["pilotfish status: this needs an administrator"]);
    }
}

#[test]
fn another_major_version_is_named_and_another_minor_is_fine() {
    let control = Scripted::on_socket(|_| Some(ok(&Version { wire: "2.0".into(), ..version(1) })));
    control
        .run(&["history"])
        .fails(1, &["speaks version 2.0 of the protocol (pilotfish 0.9.9), this command 1."]);
    for nonsense in ["", "not json", "{\"build\": 1}"] {
        let control = Scripted::on_socket(move |_| Some(bytes(200, nonsense)));
        control.run(&["history"]).fails(1, &["is not understood", "is it a control plane"]);
    }
    let control = Scripted::on_socket(|_| Some(bytes(502, "<html>bad gateway</html>")));
    control.run(&["history"]).fails(1, &["HTTP status 502 Bad Gateway without a reason"]);
    let control = Scripted::on_socket(|_| Some(ok(&version(6)).broken()));
    control.run(&["history"]).fails(4, &["the answer broke off"]);
}

#[test]
fn version_of_both_sides() {
    let control = Scripted::on_socket(|_| None);
    let build = env!("CARGO_PKG_VERSION");
    let wire = format!("{}.{}", pilotfish_config::wire::MAJOR, pilotfish_config::wire::MINOR);
    control
        .run(&["version", "--short"])
        .says(&format!("pilotfish {build} wire {wire}, server 0.9.9 wire 1.7\n"));
    let out = control.run(&["version"]).out;
    for line in
        [&format!("wire          {wire}"), "trust domain  -", "documents     -", "VERSION       CLIENT"]
    {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
    let mut alone = pilotfish(&["version", "--short", "--data", "/nowhere"]);
    let alone = ran({
        alone.env("HOME", "/");
        alone
    });
    alone.fails(4, &["no control plane runs here"]);
    assert_eq!(alone.out, format!("pilotfish {build} wire {wire}\n"));
    ran(pilotfish(&["version", "--client", "--short"])).says(&format!("pilotfish {build} wire {wire}\n"));
}

/// A control plane with a certificate that is right, but for what `change` does.
fn secure(ca: &Ca, leaf: &Leaf, clients: bool) -> (Scripted, SocketAddr) {
    let issued = ca.issue(leaf);
    let chain = Issued { chain: issued.chain.clone() + &ca.root_pem(), key: issued.key };
    Scripted::over_tls(ca.server(&chain, clients, &[b"h2", b"http/1.1"]), |_| None)
}

fn control_leaf() -> Leaf {
    Leaf::of("spiffe://mesh.test/ns/pilotfish-system/control/c1")
}

fn pin(ca: &Ca) -> String {
    pilotfish_identity::hex(&pilotfish_identity::fingerprint(&ca.root_der()))
}

fn short(address: SocketAddr, args: &[&str], token: &str) -> Ran {
    let url = format!("https://{address}");
    let mut command = pilotfish(&[&["version", "--short", "--control", &url], args].concat());
    command.env("PILOTFISH_ADMIN_TOKEN", token);
    ran(command)
}

#[test]
fn over_tls_the_control_plane_is_known_by_its_root() {
    let ca = Ca::new("mesh.test");
    let (control, address) = secure(&ca, &control_leaf(), false);
    let bundle = ca.write_bundle(control.dir.path()).display().to_string();
    let token = write(control.dir.path(), "admin.token", "pfa_secret\n");
    let url = format!("https://{address}");
    let ran = super::scripted::ran(pilotfish(&[
        "version",
        "--short",
        "--control",
        &url,
        "--ca-file",
        &bundle,
        "--admin-token-file",
        &token,
    ]));
    assert!(ran.out.contains("server 0.9.9"), "{ran:?}");
    let ran = short(address, &["--ca-fingerprint", &pin(&ca)], "pfa_other");
    assert!(ran.out.contains("server 0.9.9"), "{ran:?}");
    // The first address does not answer: the next one is asked.
    let both = format!("https://127.0.0.1:1,{url}");
    let ran = super::scripted::ran(pilotfish(&[
        "version",
        "--short",
        "--control",
        &both,
        "--ca-fingerprint",
        &pin(&ca),
    ]));
    assert!(ran.out.contains("server 0.9.9"), "{ran:?}");
}

#[test]
fn who_does_not_lead_is_left_for_another_that_was_named() {
    let ca = Ca::new("mesh.test");
    let serve = |leads: bool| {
        let issued = ca.issue(&control_leaf());
        let chain = Issued { chain: issued.chain.clone() + &ca.root_pem(), key: issued.key };
        Scripted::over_tls(ca.server(&chain, false, &[b"http/1.1"]), move |asked| {
            let at = "another control plane leads: https://10.0.0.9:15012";
            let view = PlacementView::default();
            let answer = if leads { ok(&view) } else { refused(421, at, &[]) };
            asked.line.contains("/placement").then_some(answer)
        })
    };
    let ((first, one), (_second, two), (third, three)) = (serve(false), serve(false), serve(true));
    let ask = |addresses: &[SocketAddr]| {
        let urls: Vec<String> = addresses.iter().map(|address| format!("https://{address}")).collect();
        let (urls, pin) = (urls.join(","), pin(&ca));
        ran(pilotfish(&["nodes", "-o", "json", "--control", &urls, "--ca-fingerprint", &pin]))
    };
    ask(&[one, two, three]).says("[]\n");
    assert_eq!((first.asked().len(), third.asked().len()), (1, 1));
    // What leads was not named: nobody else gets the request.
    ask(&[one, two]).fails(1, &["another control plane leads: https://10.0.0.9:15012", "--control"]);
}

#[test]
fn the_admins_token_goes_to_the_right_control_plane_only() {
    let ca = Ca::new("mesh.test");
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let serve = |ca: &Ca, leaf: &Leaf| {
        let issued = ca.issue(leaf);
        let chain = Issued { chain: issued.chain.clone() + &ca.root_pem(), key: issued.key };
        let seen = seen.clone();
        Scripted::over_tls(ca.server(&chain, false, &[b"http/1.1"]), move |asked| {
            seen.lock().unwrap().push(asked.authorization.clone());
            None
        })
    };
    let (_good, address) = serve(&ca, &control_leaf());
    short(address, &["--ca-fingerprint", &pin(&ca)], "pfa_secret");
    assert_eq!(seen.lock().unwrap().drain(..).collect::<Vec<_>>(), [Some("Bearer pfa_secret".to_owned())]);
    let agent = Leaf::agent("mesh.test", "production", "chat");
    let expired = Leaf { ends: -60, starts: -600, ..control_leaf() };
    let nameless = Leaf { uris: vec![], ..control_leaf() };
    let other = Ca::new("mesh.test");
    let impostors = [
        (&ca, &agent, "is no control plane of this mesh"),
        (&ca, &expired, "expired"),
        (&ca, &nameless, "names nobody"),
        (&other, &control_leaf(), "no root that was named vouches for it"),
    ];
    for (issuer, leaf, word) in impostors {
        let (_kept, address) = serve(issuer, leaf);
        let ran = short(address, &["--ca-fingerprint", &pin(&ca)], "pfa_secret");
        ran.fails(3, &["is not the control plane that was meant", word]);
        assert!(!ran.err.contains("pfa_secret"));
        let folder = tempfile::tempdir().unwrap();
        let bundle = ca.write_bundle(folder.path()).display().to_string();
        short(address, &["--ca-file", &bundle], "pfa_secret")
            .fails(3, &["is not the control plane that was meant"]);
    }
    assert_eq!(seen.lock().unwrap().len(), 0, "an impostor got a request");
}

#[test]
fn an_administrators_certificate_instead_of_a_token() {
    let ca = Ca::new("mesh.test");
    let (control, address) = secure(&ca, &control_leaf(), true);
    let admin = ca.issue(&Leaf::of("spiffe://mesh.test/ns/pilotfish-system/admin/anna"));
    let files = admin.write(control.dir.path(), "admin");
    let (cert, key) = (files.chain.display().to_string(), files.key.display().to_string());
    let pin = pin(&ca);
    let args = ["--ca-fingerprint", &pin, "--client-cert", &cert, "--client-key", &key];
    let ran = short(address, &args, "x");
    assert!(ran.out.contains("server 0.9.9"), "{ran:?}");
    short(address, &["--ca-fingerprint", &pin], "x").fails(4, &[]);
    let args = ["--ca-fingerprint", &pin, "--client-cert", &key, "--client-key", &key];
    let ran = short(address, &args, "x");
    ran.fails(2, &["admin.key: no certificate"]);
    assert!(!ran.err.contains("PRIVATE"));
    short(address, &["--ca-fingerprint", &pin, "--client-cert", &cert], "x").fails(2, &["--client-key"]);
}

#[test]
fn what_speaks_no_tls_is_no_control_plane() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    short(address, &["--ca-fingerprint", &"ab".repeat(32)], "x").fails(4, &["TLS with the control plane at"]);
}

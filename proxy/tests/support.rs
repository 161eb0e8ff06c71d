//! What the suites share: YAML for origins on loopback, tables run a few at a time, all failures reported at once.

use std::future::Future;

use pilotfish_testkit::Sidecar;
use pilotfish_testkit::sidecar::Builder;
use tokio::task::JoinSet;

/// How many rows of a table run at once.
const AT_ONCE: usize = 16;

/// A sidecar to be started; `PILOTFISH_TEST_BINARY` names another binary (a release build, say).
pub fn sidecar() -> Builder {
    let built = || env!("CARGO_BIN_EXE_pilotfish-proxy").into();
    Sidecar::builder(std::env::var_os("PILOTFISH_TEST_BINARY").unwrap_or_else(built))
}

/// A ServiceEntry: `host` on port 80 is 127.0.0.1 at `port`.
pub fn service(host: &str, port: u16) -> String {
    service_with(host, "HTTP", &[(port, "")])
}

/// A ServiceEntry with a port protocol and endpoints on 127.0.0.1, each with labels (`version: v1, zone: a`).
pub fn service_with(host: &str, protocol: &str, endpoints: &[(u16, &str)]) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|(port, labels)| {
            format!("  - address: 127.0.0.1\n    ports: {{ web: {port} }}\n    labels: {{ {labels} }}\n")
        })
        .collect();
    let name = host.replace('.', "-");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: {name}\nspec:\n  hosts: [{host}]\n  \
         ports:\n  - {{ number: 80, name: web, protocol: {protocol} }}\n  resolution: STATIC\n  endpoints:\n{endpoints}---\n"
    )
}

/// Runs the rows of a table, some at a time, and fails with every row that failed.
pub async fn run_table<T, F>(rows: Vec<T>, run: impl Fn(usize, T) -> F)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (mut running, mut failures, count) = (JoinSet::new(), Vec::new(), rows.len());
    let mut collect = |result: Result<Result<(), String>, tokio::task::JoinError>| match result {
        Ok(Ok(())) => {}
        Ok(Err(why)) => failures.push(why),
        Err(e) => failures.push(format!("a row panicked: {e}")),
    };
    for (i, row) in rows.into_iter().enumerate() {
        if running.len() >= AT_ONCE
            && let Some(result) = running.join_next().await
        {
            collect(result);
        }
        running.spawn(run(i, row));
    }
    while let Some(result) = running.join_next().await {
        collect(result);
    }
    failures.sort();
    assert!(failures.is_empty(), "{} of {count} rows failed:\n{}", failures.len(), failures.join("\n"));
}

/// An error unless the condition holds.
pub fn ensure(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// A DestinationRule that keeps HTTP/1.1 to these hosts, whatever the client speaks.
pub fn h1_upstreams(host: &str) -> String {
    let name = host.replace(['*', '.'], "x");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: h1-{name}\nspec:\n  \
         host: \"{host}\"\n  trafficPolicy:\n    connectionPool:\n      http: {{ h2UpgradePolicy: DO_NOT_UPGRADE }}\n---\n"
    )
}

/// A VirtualService with these `http` routes (YAML, a list, indented by nothing).
pub fn virtual_service(name: &str, host: &str, http: &str) -> String {
    let http: String = http.lines().map(|l| format!("  {l}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: {name}\nspec:\n  hosts: [\"{host}\"]\n  \
         http:\n{http}---\n"
    )
}

/// A DestinationRule with this `spec` after `host` (YAML, indented by nothing).
pub fn destination_rule(name: &str, host: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {name}\nspec:\n  host: \"{host}\"\n{spec}---\n"
    )
}

/// One sample of `/metrics`, named with its labels (`pilotfish_faults_total{fault="delay"}`); 0 when it is not there.
pub async fn metric(sidecar: &Sidecar, sample: &str) -> u64 {
    let page = pilotfish_testkit::h1::get(sidecar.admin, "x", "/metrics", &[]).await.unwrap().text();
    let value = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Waits until a sample of `/metrics` has this value; fails with the value it has after 10 s.
pub async fn wait_metric(sidecar: &Sidecar, sample: &str, wanted: u64) {
    let mut last = 0;
    for _ in 0..500 {
        last = metric(sidecar, sample).await;
        if last == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{sample} is {last}, not {wanted}");
}

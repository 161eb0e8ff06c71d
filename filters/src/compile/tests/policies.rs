//! Faults, mirrors and cross-origin rules: what of them reaches the plan, and what a person is told of it.

use std::time::Duration;

use super::*;

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: s}
spec:
  hosts: [s.test, m.test]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [s.test]
  http:
  - name: faulty
    match: [{uri: {prefix: /faulty}}]
    timeout: 3s
    retries: {attempts: 5, perTryTimeout: 1s}
    fault:
      delay: {percentage: {value: 0.01}, fixedDelay: 7s}
      abort: {percentage: {value: 2}, grpcStatus: UNAVAILABLE}
    route: [{destination: {host: s.test}}]
  - name: empty
    match: [{uri: {prefix: /empty}}]
    timeout: 3s
    fault: {abort: {percentage: {value: 100}}}
    route: [{destination: {host: s.test}}]
  - name: mirrored
    mirror: {host: m.test}
    mirrorPercentage: {value: 12.5}
    corsPolicy: {allowOrigins: [{exact: 'https://a.test'}]}
    route: [{destination: {host: s.test}}]
  - name: lost
    match: [{uri: {prefix: /lost}}]
    mirrors: [{destination: {host: nobody.test}}]
    route: [{destination: {host: s.test}}]
";

#[test]
fn where_faults_are_injected_neither_timeouts_nor_retries_are_applied() {
    let plan = plan(RULES);
    let faulty = route(&plan, &get("s.test", "/faulty")).unwrap().rule;
    let retry = &faulty.resilience.retry;
    assert_eq!((faulty.timeout, retry.attempts, retry.per_try_timeout), (None, 0, None));
    assert!(faulty.resilience.fault.is_some());
    let empty = route(&plan, &get("s.test", "/empty")).unwrap().rule;
    assert_eq!(empty.timeout, Some(Duration::from_secs(3)), "a fault without a status is none");
}

#[test]
fn policies_are_told_and_a_mirror_that_nobody_knows_is_warned_of() {
    let plan = plan(RULES);
    let text = plan.describe().to_string();
    for part in [
        r#""delay":{"ms":7000,"percent":0.01}"#,
        r#""abort":{"percent":2.0,"with":"gRPC status 14"}"#,
        r#""percent":12.5,"to":"m.test:80""#,
        r#""cors":true"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let warned =
        plan.warnings().iter().any(|warning| warning.contains("nobody knows the mirror nobody.test"));
    assert!(warned, "{:?}", plan.warnings());
}

//! PeerAuthentication and DestinationRule `tls`, from YAML to what the sidecar asks the plan.

use pilotfish_config::model::{MtlsMode, TlsMode};

use super::*;

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    )
}

fn with_identity() -> CompileOptions {
    CompileOptions { trust_domain: Some("mesh.example".into()), ..options() }
}

fn compiled(yaml: &str, options: &CompileOptions) -> Plan {
    plan_of(&model(yaml), options)
}

const STRICT: &str = "{mtls: {mode: STRICT}}";
const PERMISSIVE: &str = "{mtls: {mode: PERMISSIVE}}";
const DISABLE: &str = "{mtls: {mode: DISABLE}}";
const UNSET: &str = "{mtls: {mode: UNSET}}";

#[test]
fn without_a_policy_an_identity_makes_it_strict() {
    assert_eq!(compiled("", &with_identity()).inbound_mtls(80), MtlsMode::Strict);
    assert_eq!(compiled("", &with_identity()).strict_by(), None);
    assert_eq!(compiled("", &options()).inbound_mtls(80), MtlsMode::Disable);
    let permissive = CompileOptions { default_mtls: Some(MtlsMode::Permissive), ..with_identity() };
    assert_eq!(compiled("", &permissive).inbound_mtls(80), MtlsMode::Permissive);
}

#[test]
fn the_workloads_policy_comes_before_its_namespaces_and_that_before_the_meshs() {
    let mode = |yaml: &str| compiled(yaml, &with_identity()).inbound_mtls(80);
    let mesh = peer("istio-system", "default", DISABLE);
    let namespace = peer("default", "default", PERMISSIVE);
    let own = peer("default", "own", "{selector: {matchLabels: {app: caller}}, mtls: {mode: STRICT}}");
    let others = peer("default", "others", "{selector: {matchLabels: {app: other}}, mtls: {mode: DISABLE}}")
        + &peer("elsewhere", "default", STRICT);
    assert_eq!(mode(&(mesh.clone() + &others)), MtlsMode::Disable);
    assert_eq!(mode(&(mesh.clone() + &others + &namespace)), MtlsMode::Permissive);
    assert_eq!(mode(&(mesh.clone() + &others + &namespace + &own)), MtlsMode::Strict);
    let unset = peer("default", "own", "{selector: {matchLabels: {app: caller}}}");
    assert_eq!(mode(&(mesh.clone() + &namespace + &unset)), MtlsMode::Permissive, "UNSET inherits");
    assert_eq!(mode(&(mesh + &peer("default", "default", UNSET) + &unset)), MtlsMode::Disable);
    let ours = peer("pilotfish-system", "x", PERMISSIVE) + &peer("istio-system", "a", DISABLE);
    assert_eq!(mode(&ours), MtlsMode::Permissive, "our root namespace comes first");
}

#[test]
fn ports_have_modes_of_their_own() {
    let spec = "{selector: {matchLabels: {app: caller}}, mtls: {mode: PERMISSIVE}, \
                portLevelMtls: {8080: {mode: DISABLE}, 9090: {mode: UNSET}, 9091: {mode: STRICT}}}";
    let plan = compiled(&peer("default", "p", spec), &with_identity());
    let modes = [8080, 9090, 9091, 1].map(|port| plan.inbound_mtls(port));
    assert_eq!(modes, [MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict, MtlsMode::Permissive]);
    assert!(plan.strict_by().unwrap().ends_with("PeerAuthentication default/p"));
}

#[test]
fn of_equals_the_first_by_name_holds_and_the_other_is_told() {
    let plan = compiled(&(peer("default", "b", STRICT) + &peer("default", "a", DISABLE)), &with_identity());
    assert_eq!(plan.inbound_mtls(80), MtlsMode::Disable);
    let two = [("b", STRICT), ("a", DISABLE)].map(|(name, spec)| {
        peer("default", name, &spec.replace("{mtls", "{selector: {matchLabels: {app: caller}}, mtls"))
    });
    let plan = compiled(&two.concat(), &with_identity());
    assert_eq!(plan.inbound_mtls(80), MtlsMode::Disable);
    let warnings = plan.warnings().join("\n");
    assert!(
        warnings
            .contains("PeerAuthentication default/b: this workload has PeerAuthentication default/a already")
    );
    let selected = "{selector: {matchLabels: {app: caller}}, mtls: {mode: DISABLE}}";
    let plan = compiled(&peer("istio-system", "s", selected), &with_identity());
    assert_eq!(plan.inbound_mtls(80), MtlsMode::Strict, "a selector in a root namespace selects nothing");
}

#[test]
fn strict_without_an_identity_can_be_refused() {
    let plan = compiled(&peer("default", "p", STRICT), &options());
    assert_eq!(plan.inbound_mtls(80), MtlsMode::Strict, "it fails closed");
    assert!(plan.strict_by().unwrap().contains("PeerAuthentication default/p"));
    assert_eq!(compiled(&peer("default", "p", PERMISSIVE), &options()).strict_by(), None);
}

#[test]
fn tls_of_the_rule_its_ports_and_subsets_reaches_the_clusters() {
    let yaml = service("s", 443)
        + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec:\n  host: s\n  \
           trafficPolicy:\n    tls: {mode: SIMPLE, sni: x.example, caCertificates: /ca.pem, subjectAltNames: [x.example]}\n  \
           subsets:\n  - {name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c, \
           privateKey: /k}}}\n  - {name: off, labels: {version: v1}, trafficPolicy: {portLevelSettings: \
           [{port: {number: 443}, tls: {mode: DISABLE}}]}}\n";
    let plan = plan(&yaml);
    let settings = |name: &str| {
        let name = format!("s.default.svc.cluster.local:443{name}");
        plan.clusters().iter().find(|cluster| *cluster.name == *name).unwrap().settings.clone()
    };
    let tls = settings("").tls.unwrap();
    assert_eq!(
        (tls.mode, tls.sni.as_deref(), tls.ca_certificates.as_deref()),
        (TlsMode::Simple, Some("x.example"), Some("/ca.pem"))
    );
    assert_eq!(&*settings("").subject_alt_names[0], "x.example");
    let mutual = settings("|v1").tls.unwrap();
    assert_eq!((mutual.mode, mutual.client_certificate.as_deref()), (TlsMode::Mutual, Some("/c")));
    assert_eq!(settings("|off").tls.unwrap().mode, TlsMode::Disable);
}

#[test]
fn a_mesh_endpoint_is_given_one_second_to_connect_unless_the_rule_says() {
    let of = |rule: &str| {
        let plan = plan(&(service("s", 80) + rule));
        let settings = &plan.clusters()[0].settings;
        [true, false].map(|mesh| settings.connect_timeout_to(mesh).as_secs())
    };
    assert_eq!(of(""), [1, 10]);
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: s}\nspec: {host: s, \
                trafficPolicy: {connectionPool: {tcp: {connectTimeout: 3s}}}}\n";
    assert_eq!(of(rule), [3, 3]);
}

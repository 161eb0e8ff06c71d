//! Which virtual host a request belongs to.

use super::*;

fn to(name: &str) -> String {
    format!("  - {{name: {name}, route: [{{destination: {{host: b}}}}]}}")
}

#[test]
fn a_service_is_known_by_its_short_names_and_has_a_default_route() {
    let plan = plan(&service("b", 8080));
    for host in [
        "b",
        "b.default",
        "b.default.svc",
        "b.default.svc.cluster.local",
        "B.Default",
        "b:8080",
        "b.default.svc.cluster.local.",
    ] {
        assert_eq!(targets(&plan, &get(host, "/")), ["b.default.svc.cluster.local:8080 1"], "{host}");
    }
    for host in ["c", "b.other", "b.default.svc.cluster", "x.b"] {
        assert_eq!(targets(&plan, &get(host, "/")), ["no-route"], "{host}");
    }
    assert_eq!(&*route(&plan, &get("b", "/")).unwrap().rule.name, "default/b/default");
}

#[test]
fn short_names_are_of_the_callers_namespace() {
    let model = model(&service("b", 80));
    let elsewhere = CompileOptions { namespace: "other".into(), ..options() };
    let plan = plan_of(&model, &elsewhere);
    assert_eq!(rule(&plan, &get("b", "/")), "-");
    assert_eq!(rule(&plan, &get("b.default", "/")), "default");
}

#[test]
fn exact_then_longest_wildcard_then_star() {
    let all = service("b", 80)
        + &virtual_service("star", "[placeholder]", &to("star"))
        + &virtual_service("com", "['*.com']", &to("com"))
        + &virtual_service("example", "['*.example.com']", &to("example"))
        + &virtual_service("exact", "[a.example.com]", &to("exact"));
    let mut model = model(&all);
    // Istio refuses `*` for sidecars, so no YAML gives it.
    model.virtual_services[0].hosts = vec![Host::resolve("*", "default")];
    let plan = plan_of(&model, &options());
    for (host, want) in [
        ("a.example.com", "exact"),
        ("A.EXAMPLE.com:9999", "exact"),
        ("b.example.com", "example"),
        ("c.b.example.com", "example"),
        ("example.com", "com"),
        ("anything", "star"),
        ("b", "star"),
    ] {
        assert_eq!(rule(&plan, &get(host, "/")), want, "{host}");
    }
}

#[test]
fn the_first_virtual_service_keeps_a_host_and_the_second_is_told() {
    let both = service("b", 80)
        + &virtual_service("one", "[b]", &to("one"))
        + &virtual_service("two", "[b.default.svc.cluster.local, c]", &to("two"));
    let plan = plan(&both);
    assert_eq!(rule(&plan, &get("b", "/")), "one");
    assert_eq!(rule(&plan, &get("c", "/")), "two");
    let [warning] = plan.warnings() else { panic!("{:?}", plan.warnings()) };
    assert!(warning.contains("default/two") && warning.contains("default/one"), "{warning}");
}

#[test]
fn what_is_not_for_this_sidecar_is_left_out() {
    let gateways = virtual_service("g", "[g]", &to("g")).replace("spec:\n", "spec:\n  gateways: [ingress]\n");
    let both =
        virtual_service("m", "[m]", &to("m")).replace("spec:\n", "spec:\n  gateways: [ingress, mesh]\n");
    let hidden = virtual_service("h", "[h.org]", &to("h"))
        .replace("metadata: {name: h}", "metadata: {name: h, namespace: other}")
        .replace("spec:\n", "spec:\n  exportTo: ['.']\n");
    let plan = plan(&(service("b", 80) + &gateways + &both + &hidden));
    assert_eq!(rule(&plan, &get("g", "/")), "-");
    assert_eq!(rule(&plan, &get("m", "/")), "m");
    assert_eq!(rule(&plan, &get("h.org", "/")), "-");
}

#[test]
fn a_wildcard_rule_is_for_services_that_it_covers() {
    let entry = |name: &str, host: &str| {
        service(name, 80).replace(&format!("{name}.default.svc.cluster.local"), host)
    };
    let plan = plan(
        &(entry("a", "a.example.com")
            + &entry("o", "o.org")
            + &service("b", 80)
            + &virtual_service("v", "['*.example.com']", &to("v"))),
    );
    assert_eq!(rule(&plan, &get("a.example.com", "/")), "v");
    assert_eq!(rule(&plan, &get("o.org", "/")), "default");
}

//! Flags and environment variables: defaults, precedence, refusals, and that each is explained.

use super::*;
use clap::CommandFactory;

fn parse(flags: &[&str]) -> Result<Settings, clap::Error> {
    let fixed = ["pilotfish-proxy", "--config", "/cfg", "--agent", "a"];
    Settings::try_parse_from(fixed.iter().chain(flags))
}

#[test]
fn defaults_are_the_documented_ones() {
    let settings = parse(&[]).unwrap();
    assert_eq!(settings.outbound.to_string(), "127.0.0.1:15001");
    assert_eq!(settings.inbound.to_string(), "0.0.0.0:15006");
    assert_eq!(settings.admin.to_string(), "127.0.0.1:15000");
    assert_eq!(settings.namespace, "default");
    assert_eq!(settings.workers, 1);
    assert_eq!(settings.drain, Duration::from_secs(45));
    assert_eq!(settings.drain_delay, Duration::from_secs(2));
    assert_eq!(settings.outbound_policy, OutboundPolicy::AllowAny);
    assert_eq!(settings.access_log.form, AccessLogFormat::Off);
}

#[test]
fn istios_spelling_of_the_outbound_policy_is_understood() {
    for spelling in ["REGISTRY_ONLY", "registry-only", "registry_only"] {
        assert_eq!(
            parse(&["--outbound-policy", spelling]).unwrap().outbound_policy,
            OutboundPolicy::RegistryOnly
        );
    }
}

#[test]
fn labels_repeat_or_share_a_flag() {
    let settings = parse(&["--label", "app=x,version=v1", "--label", "tier=a=b"]).unwrap();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(settings.labels, [pair("app", "x"), pair("version", "v1"), pair("tier", "a=b")]);
}

#[test]
fn wrong_values_are_refused() {
    for bad in [
        ["--workers", "0"],
        ["--drain", "soon"],
        ["--label", "=x"],
        ["--app", "host"],
        ["--app", "http://x:1"],
        ["--memory-limit", "0"],
        ["--memory-limit", "5GB5"],
        ["--max-concurrent-streams", "0"],
    ] {
        assert!(parse(&bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn bytes_have_units_and_half_of_the_connections_are_one_callers() {
    let settings = parse(&["--memory-limit", "512MiB", "--max-connections", "11"]).unwrap();
    assert_eq!(settings.memory_limit, Some(Bytes(512 << 20)));
    assert_eq!(settings.most_connections_per_caller(), 5);
    let settings = parse(&["--max-connections-per-caller", "7"]).unwrap();
    assert_eq!((settings.most_connections_per_caller(), settings.memory_limit), (7, None));
    assert_eq!(parse(&["--memory-limit", "4096"]).unwrap().memory_limit, Some(Bytes(4096)));
}

#[test]
fn durations_have_units() {
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
    assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
    assert!(parse_duration("-1s").is_err());
    assert!(parse_duration("99999999999999999999999h").is_err());
}

#[test]
fn host_and_port_in_every_spelling() {
    let show = |text: &str| text.parse::<HostPort>().map(|parsed| parsed.to_string());
    assert_eq!(show("agent.local:80"), Ok("agent.local:80".into()));
    assert_eq!(show("[::1]:80"), Ok("[::1]:80".into()));
    assert_eq!(show("8080"), Ok("127.0.0.1:8080".into()));
    assert!(show("agent:0").is_err());
}

#[test]
fn every_flag_has_an_environment_variable_and_an_explanation() {
    for arg in Settings::command()
        .get_arguments()
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version" | "command"))
    {
        let env = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(env.starts_with("PILOTFISH_"), "{} has no environment variable", arg.get_id());
        assert!(
            arg.get_help().is_some_and(|help| help.to_string().len() > 20),
            "{} is not explained",
            arg.get_id()
        );
    }
}

#[test]
fn documents_come_from_a_folder_or_from_a_control_plane() {
    let parse = |flags: &[&str]| {
        Settings::try_parse_from(["pilotfish-proxy", "--agent", "a"].iter().chain(flags))
            .map_err(|e| e.to_string())
    };
    let settings = parse(&["--control", "https://a:1,https://b:2", "--control", "c:3"]).unwrap();
    assert_eq!(settings.control.addresses.len(), 3);
    assert!(settings.config.is_none());
    let both = parse(&["--control", "https://a:1", "--config", "/cfg"]).unwrap_err();
    assert!(both.contains("--config") && both.contains("cannot be used with"), "{both}");
    let neither = parse(&[]).unwrap_err();
    assert!(neither.contains("--config"), "{neither}");
}

#[test]
fn the_environments_token_is_not_in_the_help() {
    let token = Settings::command().get_arguments().find(|arg| arg.get_id() == "token").cloned().unwrap();
    assert!(token.is_hide_env_values_set());
}

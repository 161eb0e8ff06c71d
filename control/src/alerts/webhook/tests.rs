//! What receivers get; flags that cannot be used.

use super::*;
use crate::alerts::evaluate::Evaluator;
use crate::alerts::measure::Facts;
use crate::alerts::rules::Rules;
use crate::fleet::edges::EdgeTraffic;
use crate::fleet::presence::Presence;

struct Away(Vec<Presence>);

impl Facts for Away {
    fn edges(&self, _window: Duration) -> Vec<EdgeTraffic> {
        Vec::new()
    }

    fn agents(&self) -> Vec<Presence> {
        self.0.clone()
    }
}

fn away(names: &[&str]) -> Away {
    let agent = |name: &&str| Presence { agent: (*name).to_owned(), instances: 1, ..Presence::default() };
    Away(names.iter().map(agent).collect())
}

fn turns(names: &[&str]) -> (Vec<Turn>, Vec<Turn>) {
    let (mut rules, mut evaluator) = (Rules::default(), Evaluator::default());
    rules.follow(&Arc::default());
    let start = 1_795_267_205_000;
    assert!(evaluator.step(rules.all(), &away(names), start).is_empty());
    let fires = evaluator.step(rules.all(), &away(names), start + 30_000);
    let resolved = evaluator.step(rules.all(), &away(&[]), start + 95_500);
    (fires, resolved)
}

#[test]
fn the_message_is_alertmanagers() {
    let outbox = Outbox::new(None);
    let (fires, resolved) = turns(&["default/a", "default/b"]);
    outbox.put(fires);
    let alerts = outbox.take().unwrap();
    let message = serde_json::to_value(Message::of(&alerts, "http://127.0.0.1:15014")).unwrap();
    let expected = serde_json::json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"agent-unavailable\"}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "pilotfish",
        "groupLabels": {"alertname": "agent-unavailable"},
        "commonLabels": {
            "alertname": "agent-unavailable", "namespace": "default", "rule": "pilotfish-system/agent-unavailable",
            "severity": "critical", "type": "agent-unavailable",
        },
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:15014",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&message[key], value, "{key}");
    }
    let first = &message["alerts"][0];
    assert_eq!(first["labels"]["agent"], "default/a");
    assert_eq!(
        first["annotations"]["summary"],
        "default/a: 0 instances may be chosen (fewer than 1 instance)"
    );
    assert_eq!(first["startsAt"], "2026-11-21T13:20:05Z");
    assert_eq!(first["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(first["fingerprint"].as_str().unwrap().len(), 16);
    assert_ne!(first["fingerprint"], message["alerts"][1]["fingerprint"]);
    // The newest word counts, also when an older one comes back.
    outbox.put(resolved);
    outbox.put_back(alerts);
    let alerts = outbox.take().unwrap();
    let message = serde_json::to_value(Message::of(&alerts, "")).unwrap();
    assert_eq!(message["status"], "resolved");
    assert_eq!(message["alerts"][0]["endsAt"], "2026-11-21T13:21:40.5Z");
    assert!(outbox.take().is_none());
}

#[test]
fn many_are_told_in_parts_and_the_box_is_bounded() {
    let names: Vec<String> = (0..MOST_TOLD + 7).map(|number| format!("default/a{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let outbox = Outbox::new(None);
    outbox.put(turns(&names).0);
    assert_eq!(outbox.take().unwrap().len(), MOST_TOLD);
    assert_eq!(outbox.take().unwrap().len(), 7);
    assert!(outbox.take().is_none());
}

#[test]
fn flags_that_cannot_be_used_say_why_and_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (empty, token) = (file("empty", "\n"), file("token", "s3cret\n"));
    let new = |url: &str, token: Option<&Path>, ca: Option<&Path>| Webhook::new(url, token, ca).map(|_| ());
    for (why, result) in [
        ("begin with http", new("ftp://hooks.example.com", None, None)),
        ("no URL", new("hooks.example.com/s3cret", None, None)),
        ("do not belong into the URL", new("https://me:s3cret@hooks.example.com", None, Some(&empty))),
        ("no certificate", new("https://hooks.example.com/s3cret", None, Some(&token))),
        ("is for an https:// URL", new("http://hooks.example.com", None, Some(&token))),
        ("--alert-webhook-token-file", new("http://hooks.example.com", Some(&empty), None)),
        ("no URL", new("http://hooks .example.com/s3cret", None, None)),
    ] {
        let said = result.unwrap_err();
        assert!(said.contains(why) && !said.contains("s3cret"), "{said}");
    }
    let good = Webhook::new("http://[::1]:9093/hook?x=s3cret", Some(&token), None).unwrap();
    assert_eq!(good.shown(), "::1:9093");
    assert!(!format!("{good:?}").contains("Bearer"));
}

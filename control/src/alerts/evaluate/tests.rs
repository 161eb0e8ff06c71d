//! Alerts against a model that keeps the whole history and asks it anew at every look.

use super::*;
use crate::alerts::rules::Rules;
use crate::fleet::edges::{BUCKETS, EdgeTraffic, Traffic};
use crate::fleet::presence::Presence;
use pilotfish_config::{Options, load_texts};

/// What is known, made by hand.
#[derive(Debug, Default)]
struct World {
    edges: Vec<EdgeTraffic>,
    agents: Vec<Presence>,
}

impl Facts for World {
    fn edges(&self, _window: Duration) -> Vec<EdgeTraffic> {
        self.edges.clone()
    }

    fn agents(&self) -> Vec<Presence> {
        self.agents.clone()
    }
}

impl World {
    fn edge(mut self, from: &str, to: &str, calls: u64, errors: u64, bucket: usize) -> World {
        let mut buckets = [0; BUCKETS];
        buckets[bucket] = calls;
        let traffic = Traffic { calls, errors, sum_us: 0, buckets };
        let capability = to.strip_suffix("-nlu").map(|_| "nlu".into());
        self.edges.push(EdgeTraffic { from: from.into(), to: to.into(), capability, traffic, heard: 0 });
        self
    }

    fn agent(mut self, name: &str, routable: u32, in_flight: u64) -> World {
        let agent = name.to_owned();
        self.agents.push(Presence {
            agent,
            instances: 2,
            routable,
            here: 2,
            in_flight,
            ..Presence::default()
        });
        self
    }
}

fn rules(text: &str) -> Vec<Arc<Rule>> {
    let loaded = load_texts(&[("rules.yaml", text)], &Options::default());
    let model = loaded.model.unwrap_or_else(|| panic!("{}", loaded.report));
    let mut rules = Rules::default();
    rules.follow(&Arc::new(model));
    rules.all().to_vec()
}

fn rule(namespace: &str, spec: &str) -> Vec<Arc<Rule>> {
    let text = format!(
        "apiVersion: pilotfish.dev/v1\nkind: AlertRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {spec}\n"
    );
    rules(&text).into_iter().filter(|rule| !rule.default).collect()
}

/// What a rule finds, by agent.
fn found(rules: &[Arc<Rule>], world: &World) -> Vec<(String, bool)> {
    let measured = Seen::new(world).measure(&rules[0].rule);
    measured.into_iter().map(|own| (own.agent, own.holds)).collect()
}

fn firing(evaluator: &Evaluator) -> Vec<String> {
    let of = |alert: &Alert| format!("{} {}", alert.rule.rule.meta.name(), alert.agent);
    evaluator.alerts().filter(|alert| alert.state == State::Firing).map(of).collect()
}

#[test]
fn alerts_are_as_their_history_says() {
    let mut rng = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let (hold, keep) = (rng.u64(0..4) * 20, rng.u64(0..4) * 20);
        let spec = format!("{{type: saturation, threshold: 10, for: {hold}s, keepFiringFor: {keep}s}}");
        let rules = rule("default", &spec);
        let mut evaluator = Evaluator::default();
        // When it was looked at, and whether it held.
        let mut history: Vec<(u64, bool)> = Vec::new();
        let (mut now, mut fires) = (1_000_000, false);
        let mut told = Vec::new();
        for _ in 0..60 {
            let holds = rng.f32() < 0.7;
            history.push((now, holds));
            let world = World::default().agent("default/a", 2, if holds { 21 } else { 20 });
            let turns = evaluator.step(&rules, &world, now);
            told.extend(turns.iter().map(|turn| matches!(turn, Turn::Fires(_))));
            // It fires when every look within `hold` found it, back to the first of a row.
            let row = history.iter().rev().take_while(|(_, held)| *held).last().map(|(at, _)| *at);
            let last = history.iter().rev().find(|(_, held)| *held).map(|(at, _)| *at);
            fires = match fires {
                false => row.is_some_and(|began| now - began >= hold * 1000),
                true => holds || last.is_some_and(|at| now - at < keep * 1000),
            };
            // A look that ends one alert begins no other.
            assert_eq!(!firing(&evaluator).is_empty(), fires, "for {hold} keep {keep}: {history:?}");
            now += rng.u64(1..4) * 5_000;
        }
        assert!(told.chunks(2).all(|pair| pair[0] && pair.get(1) != Some(&true)), "{told:?}");
    }
}

#[test]
fn what_a_rule_is_about() {
    let world = World::default()
        .edge("default/planner", "default/booking", 60, 0, 3)
        .edge("default/other", "default/booking", 40, 9, 3)
        .edge("default/planner", "shop/cart", 9, 9, 3)
        .edge("default/planner", "api.example.com", 50, 50, 13)
        .edge("default/planner", "shop/text-nlu", 10, 1, 14);
    let rows = |namespace: &str, spec: &str| found(&rule(namespace, spec), &world);
    let yes = |name: &str| (name.to_owned(), true);
    let no = |name: &str| (name.to_owned(), false);
    assert_eq!(rows("default", "{type: error-rate}"), [yes("default/booking")]);
    assert_eq!(rows("default", "{type: error-rate, from: planner}"), [no("default/booking")]);
    assert_eq!(
        rows("default", "{type: error-rate, threshold: 9%}"),
        [no("default/booking")],
        "9 % is not more"
    );
    assert_eq!(
        rows("pilotfish-system", "{type: error-rate}"),
        [yes("api.example.com"), yes("default/booking"), no("shop/cart"), yes("shop/text-nlu")],
        "nine calls are too few to tell, a host outside is told of in a root namespace"
    );
    assert_eq!(rows("default", "{type: error-rate, agent: shop/cart, minCalls: 9}"), [yes("shop/cart")]);
    assert_eq!(rows("shop", "{type: latency, capability: NLU}"), [yes("shop/text-nlu")]);
    assert_eq!(
        rows("shop", "{type: latency, threshold: 9s, minCalls: 11, capability: nlu}"),
        [no("shop/text-nlu")]
    );
    let world = World::default().agent("default/a", 2, 220).agent("default/b", 0, 0).agent("shop/c", 1, 400);
    let mut world = world.agent("default/retired", 0, 0);
    world.agents[3].retired = true;
    let rows = |namespace: &str, spec: &str| found(&rule(namespace, spec), &world);
    assert_eq!(
        rows("default", "{type: saturation}"),
        [yes("default/a"), no("default/b"), no("default/retired")]
    );
    assert_eq!(rows("default", "{type: agent-unavailable}"), [no("default/a"), yes("default/b")]);
    assert_eq!(rows("default", "{type: agent-unavailable, agent: shop/c, threshold: 2}"), [yes("shop/c")]);
    assert_eq!(rows("default", "{type: agent-unavailable, agent: never-seen}"), [yes("default/never-seen")]);
}

#[test]
fn the_four_are_there_until_a_document_of_a_root_namespace_takes_their_place() {
    let names = |text: &str| -> Vec<String> {
        let name = |rule: &Arc<Rule>| format!("{}{}", rule.name, if rule.default { "" } else { "!" });
        rules(text).iter().map(name).collect()
    };
    let four: Vec<String> = ["error-rate", "latency", "saturation", "agent-unavailable"]
        .map(|name| format!("pilotfish-system/{name}"))
        .into();
    assert_eq!(names(""), four);
    let document = |namespace: &str| {
        format!(
            "apiVersion: pilotfish.dev/v1\nkind: AlertRule\nmetadata: {{name: latency, namespace: {namespace}}}\nspec: {{type: latency, disabled: true}}\n"
        )
    };
    assert_eq!(names(&document("default")).len(), 5, "another namespace's is its own");
    assert_eq!(
        names(&document("istio-system")),
        [&four[0], &four[2], &four[3], "istio-system/latency!"].map(String::from)
    );
    let world = World::default().edge("default/a", "default/b", 100, 0, 14);
    for (text, fires) in [(String::new(), 1), (document("istio-system"), 0)] {
        let (mut evaluator, rules) = (Evaluator::default(), rules(&text));
        (0..40).for_each(|at| drop(evaluator.step(&rules, &world, at * 5_000)));
        assert_eq!(firing(&evaluator).len(), fires);
    }
}

#[test]
fn a_start_without_data_fires_nothing() {
    let (mut evaluator, rules) = (Evaluator::default(), rules(""));
    for at in 0..100 {
        assert!(evaluator.step(&rules, &World::default(), at * 5_000).is_empty());
    }
    assert_eq!(evaluator.alerts().count(), 0);
}

#[test]
fn a_rule_that_goes_takes_its_alerts_along() {
    let mut evaluator = Evaluator::default();
    let world = World::default().agent("default/a", 0, 0);
    let rules = rule("default", "{type: agent-unavailable, for: 0s}");
    assert!(matches!(evaluator.step(&rules, &world, 0).as_slice(), [Turn::Fires(_)]));
    assert!(matches!(evaluator.step(&[], &world, 5_000).as_slice(), [Turn::Resolved(_)]));
    assert_eq!(evaluator.alerts().count(), 1, "it is shown for a while");
    assert!(evaluator.step(&[], &world, 5_000 + SHOWN).is_empty());
    assert_eq!(evaluator.alerts().count(), 0);
}

#[test]
fn one_that_fires_is_told_again_after_hours_and_alerts_are_bounded() {
    let mut evaluator = Evaluator::default();
    let rules = rule("default", "{type: agent-unavailable, for: 0s}");
    let mut world = World::default();
    for agent in 0..MOST + 50 {
        world = world.agent(&format!("default/a{agent}"), 0, 0);
    }
    assert_eq!(evaluator.step(&rules, &world, 0).len(), MOST);
    world.agents.truncate(1);
    let mut told = 0;
    for at in 1..=9 * 720 {
        let turns = evaluator.step(&rules, &world, at * 5_000);
        told += turns.iter().filter(|turn| matches!(turn, Turn::StillFires(_))).count();
    }
    assert_eq!((told, evaluator.alerts().count()), (2, 1));
}

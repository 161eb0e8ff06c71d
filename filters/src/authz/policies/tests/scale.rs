//! What a decision costs does not grow with the number of policies: counted in questions to the call, which are the same on every
//! machine.

use std::borrow::Cow;
use std::cell::Cell;

use super::*;
use crate::call::Head;

/// A head that counts how often it is asked.
struct Counting<'a>(&'a TestHead, Cell<u32>);

impl Counting<'_> {
    fn asked(&self) -> &TestHead {
        self.1.set(self.1.get() + 1);
        self.0
    }
}

impl Head for Counting<'_> {
    fn method(&self) -> &str {
        self.asked().method()
    }
    fn scheme(&self) -> &str {
        self.asked().scheme()
    }
    fn authority(&self) -> &str {
        self.asked().authority()
    }
    fn path(&self) -> &str {
        self.asked().path()
    }
    fn query(&self) -> Option<&str> {
        self.asked().query()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.asked().header(name)
    }
    fn each_header(&self, name: &str, take: &mut dyn FnMut(&[u8])) {
        self.asked().each_header(name, take);
    }
}

/// Questions asked of a call that the last of `count` policies with ten rules each decides.
fn questions(count: usize, rule: impl Fn(usize) -> String, asked: impl Fn(usize) -> Ask) -> u32 {
    let of = |at: usize| {
        let rules: Vec<String> = (0..10).map(|number| rule(at * 10 + number)).collect();
        let action = if at.is_multiple_of(4) { "DENY" } else { "ALLOW" };
        policy("foo", &format!("p{at:03}"), &format!("{{action: {action}, rules: [{}]}}", rules.join(", ")))
    };
    let yaml: String = (0..count).map(of).collect();
    let plan = plan(&yaml);
    let last = count * 10 - 1;
    let asked = asked(last);
    let head = Counting(&asked.head, Cell::new(0));
    asked.with(|asking| {
        let judgement = plan.authz.policies.decide(&Asking { head: &head, ..*asking });
        assert_eq!(judgement.by, format!("foo/p{:03} rule 10", count - 1));
    });
    head.1.get()
}

#[test]
fn a_thousand_rules_ask_no_more_than_eighty() {
    let by_principal = |n: usize| {
        format!(
            "{{from: [{{source: {{principals: ['cluster.local/ns/a/sa/x{n}']}}}}], to: [{{operation: {{methods: [GET], paths: ['/*']}}}}]}}"
        )
    };
    let by_path = |n: usize| {
        format!("{{to: [{{operation: {{methods: [GET], paths: ['/api/v{n}/*', '/other/{n}']}}}}]}}")
    };
    let by_template = |n: usize| format!("{{to: [{{operation: {{paths: ['/tenants/t{n}/{{*}}/read']}}}}]}}");
    let by_namespace = |n: usize| {
        format!(
            "{{from: [{{source: {{namespaces: [n{n}]}}}}], when: [{{key: 'request.headers[x-a]', values: [b]}}]}}"
        )
    };
    let by_both = |n: usize| {
        format!(
            "{{from: [{{source: {{principals: ['cluster.local/ns/a/sa/x{}']}}}}], to: [{{operation: {{paths: ['/api/v{}/*']}}}}]}}",
            n % 10,
            n / 10
        )
    };
    let path = |path: String| ask(&format!("GET {path}"));
    type Row = (Box<dyn Fn(usize) -> String>, Box<dyn Fn(usize) -> Ask>);
    let rows: [Row; 5] = [
        (Box::new(by_principal), Box::new(|n| ask("GET /a").from(&format!("a/x{n}")))),
        (Box::new(by_path), Box::new(move |n| path(format!("/api/v{n}/x")))),
        (Box::new(by_template), Box::new(move |n| path(format!("/tenants/t{n}/x/read")))),
        (Box::new(by_namespace), Box::new(|n| ask("GET /a").from(&format!("n{n}/x")).header("x-a", "b"))),
        (
            Box::new(by_both),
            Box::new(move |n| path(format!("/api/v{}/x", n / 10)).from(&format!("a/x{}", n % 10))),
        ),
    ];
    for (number, (rule, asked)) in rows.into_iter().enumerate() {
        // Policies 7 and 99 are ALLOW: what decides is the last rule.
        let (few, many) = (questions(8, &rule, &asked), questions(100, &rule, &asked));
        assert!(many <= few, "row {number}: {few} questions for 80 rules, {many} for 1,000");
    }
}

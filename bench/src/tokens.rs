//! What a caller's token costs the sidecar: one that it has seen before, and new ones. On one thread, without sockets: the stage of the
//! request path from the head as it came to the head as it goes on.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::Args;
use pilotfish_config::{Options, load_texts};
use pilotfish_filters::clock::Micros;
use pilotfish_filters::compile::{CompileOptions, Resolved, compile};
use pilotfish_filters::plan::Plan;
use pilotfish_filters::state::State;
use pilotfish_proxy::clock::Clock;
use pilotfish_proxy::http::RequestHead;
use pilotfish_proxy::request::authenticate::rewrite;
use pilotfish_proxy::tokens::Tokens;
use pilotfish_proxy::tokens::cache::{Cache, Known};
use pilotfish_proxy::tokens::verify::parse;
use pilotfish_testkit::tokens::{Signer, key_set, now};
use serde_json::json;

use crate::work::Values;

/// Tokens that are known at a time: as many callers.
const CALLERS: usize = 100;
/// New tokens of each algorithm.
const NEW: usize = 1000;
/// Looks at known tokens.
const LOOKS: usize = 500_000;

/// What `pilotfish-bench tokens` can be asked for.
#[derive(Args)]
pub struct TokenArgs {
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs all of it and prints it.
///
/// # Errors
/// The keys are not taken.
pub fn run(args: &TokenArgs) -> io::Result<()> {
    let mut values = Values::new();
    for (algorithm, name) in
        [("ES256", "es256_us"), ("ES384", "es384_us"), ("EdDSA", "eddsa_us"), ("RS256", "rs256_us")]
    {
        let bench = Bench::new(algorithm)?;
        values.insert(name.to_owned(), bench.new_ones()?);
        if algorithm == "ES256" {
            values.insert("known_us".to_owned(), bench.known_ones()?);
        }
    }
    if args.json {
        println!("{}", json!(values));
    } else {
        values.iter().for_each(|(name, value)| println!("{name:>10} {value:8.2}"));
    }
    Ok(())
}

/// The same as a workload of `run`: a process of its own.
///
/// # Errors
/// It cannot be run, or does not answer.
pub fn measure(exe: &Path) -> io::Result<Values> {
    let output =
        Command::new(exe).args(["tokens", "--json"]).stderr(std::process::Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

struct Bench {
    plan: Plan,
    tokens: Tokens,
    signer: Signer,
}

impl Bench {
    fn new(algorithm: &'static str) -> io::Result<Bench> {
        let signer = Signer::new(algorithm, "key");
        let yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: t}}\nspec:\n  jwtRules:\n  - issuer: \
             https://issuer.test\n    audiences: [us]\n    jwks: '{}'\n    outputClaimToHeaders: [{{header: x-user, claim: sub}}]\n",
            key_set([&signer])
        );
        let loaded = load_texts(&[("tokens.yaml", &yaml)], &Options::default());
        let model = loaded.model.ok_or_else(|| io::Error::other(loaded.report.to_string()))?;
        let options = CompileOptions { namespace: "default".into(), ..CompileOptions::default() };
        let plan = compile(&model, &options, &Resolved::default(), &State::default(), Micros(0));
        let plan = plan.map_err(|_| io::Error::other("it does not compile"))?;
        Ok(Bench { plan, tokens: Tokens::default(), signer })
    }

    /// As many tokens as that, of half a kilobyte.
    fn tokens(&self, count: usize) -> Vec<String> {
        let token = |number: usize| {
            self.signer.token(&json!({"iss": "https://issuer.test", "sub": format!("user-{number}"), "aud": ["us"], "exp":
                now() + 3600, "iat": now(), "scope": "read write search", "groups": ["a", "b", "c"], "email": "user@example.com"}))
        };
        (0..count).map(token).collect()
    }

    /// Microseconds for a token that was not seen before.
    fn new_ones(&self) -> io::Result<f64> {
        let issuers = self.tokens.follow(self.plan.tokens());
        let tokens = self.tokens(NEW);
        let since = Instant::now();
        for token in &tokens {
            let parsed = parse(token).map_err(|why| io::Error::other(why.sentence()))?;
            let judged = issuers.judge(self.plan.tokens(), &parsed, |_| true);
            black_box(judged.map_err(|(why, _)| io::Error::other(why.sentence()))?);
        }
        Ok(since.elapsed().as_secs_f64() * 1e6 / NEW as f64)
    }

    /// Microseconds for one that was: found in the head, known, still valid, taken out, its claim put in.
    fn known_ones(&self) -> io::Result<f64> {
        let rules = self.plan.tokens();
        let issuers = self.tokens.follow(rules);
        let (mut cache, clock) = (Cache::default(), Clock::start());
        let generation = self.tokens.generation();
        cache.settle(1, rules.rules(), generation);
        let mut heads = Vec::new();
        for token in self.tokens(CALLERS) {
            let parsed = parse(&token).map_err(|why| io::Error::other(why.sentence()))?;
            let judged = issuers.judge(rules, &parsed, |_| true);
            let verified = judged.map_err(|(why, _)| io::Error::other(why.sentence()))?;
            cache.put(&token, Known::Good(verified.into()), generation, clock.now());
            let mut head = RequestHead::new(http::Method::GET, "agent", "/v1/search?q=1");
            for number in 0..10 {
                head.headers.append(&format!("x-header-{number}"), b"some value of it");
            }
            head.headers.append("authorization", format!("Bearer {token}").as_bytes());
            heads.push(head);
        }
        // What the copy of a head costs is taken off again.
        let copied = Instant::now();
        for look in 0..LOOKS {
            black_box(heads[look % CALLERS].clone());
        }
        let copied = copied.elapsed();
        let since = Instant::now();
        for look in 0..LOOKS {
            let mut head = heads[look % CALLERS].clone();
            let now = clock.now();
            let known = {
                let Ok(Some(found)) = rules.find(&head) else {
                    return Err(io::Error::other("no token is found"));
                };
                cache.settle(1, rules.rules(), self.tokens.generation());
                cache.get(&found.token, now)
            };
            let Some(Known::Good(verified)) = known else {
                return Err(io::Error::other("a token is not known"));
            };
            let seconds = (clock.epoch().nanos(clock.now()) / 1_000_000_000) as i64;
            verified.at(seconds).map_err(|why| io::Error::other(why.sentence()))?;
            rewrite(rules, || std::iter::once(&*verified), &mut head);
            black_box(&head);
        }
        Ok(since.elapsed().saturating_sub(copied).as_secs_f64() * 1e6 / LOOKS as f64)
    }
}

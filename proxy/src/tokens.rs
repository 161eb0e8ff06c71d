//! Tokens of callers: the keys of their issuers, fetched and kept in the background, and tokens that were looked at before.
//!
//! An issuer's keys outlive the configuration that names them: a new plan takes over what an old one has. One task follows the issuers
//! whose keys have to be fetched; requests never fetch, they only wait for it.

pub mod cache;
pub mod fetch;
pub mod issuer;
pub mod keys;
pub mod verify;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pilotfish_filters::tokens::{KeySource, TokenRules};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::clock::Epoch;
use issuer::Issuer;
use verify::{Parsed, Refusal, Verified};

/// What is known of issuers.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Those that the newest plan names, and the rules that name them.
    known: Mutex<Vec<Arc<Issuer>>>,
    /// Counts changes of any issuer's keys.
    generation: Arc<AtomicU64>,
    /// Rung when there are other issuers to follow.
    bell: Notify,
}

/// The issuer of each rule of a plan, in the plan's order.
#[derive(Debug, Default)]
pub struct Issuers(Box<[Arc<Issuer>]>);

impl Tokens {
    /// Takes over the issuers of a plan that is about to serve; those that no rule names any more are let go. For the configuration
    /// thread: keys in documents are read here.
    pub fn follow(&self, rules: &TokenRules) -> Issuers {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next: Vec<Arc<Issuer>> = Vec::new();
        let mut of_rules = Vec::with_capacity(rules.rules().len());
        for rule in rules.rules().iter() {
            let same = |issuer: &&Arc<Issuer>| issuer.source == rule.keys;
            let found = next.iter().find(same).or_else(|| known.iter().find(same)).cloned();
            let issuer = found.unwrap_or_else(|| Arc::new(Issuer::new(rule, self.generation.clone())));
            if !next.iter().any(|one| Arc::ptr_eq(one, &issuer)) {
                next.push(issuer.clone());
            }
            of_rules.push(issuer);
        }
        *known = next;
        drop(known);
        Issuers(of_rules.into())
    }

    /// The plan of the last [`Tokens::follow`] serves from now on, so its issuers are asked as it says.
    pub fn look(&self) {
        self.bell.notify_one();
    }

    /// Changes whenever any issuer's keys do.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The issuers whose keys are fetched.
    fn fetched(&self) -> Vec<Arc<Issuer>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|issuer| !matches!(issuer.source, KeySource::Inline(_))).cloned().collect()
    }

    /// Looks at key sets so far: those that were good, and those that were not.
    pub fn fetches(&self) -> [u64; 2] {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().fold([0, 0], |sum, issuer| {
            let own = issuer.fetches();
            [sum[0] + own[0], sum[1] + own[1]]
        })
    }

    /// Issuers whose keys could not be taken when they were last looked at.
    pub fn stale(&self) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|issuer| issuer.is_stale()).count() as u64
    }

    /// What is known of each issuer, for `/config`; never a key.
    pub fn describe(&self, epoch: Epoch) -> Value {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        json!(known.iter().map(|issuer| issuer.describe(epoch)).collect::<Vec<_>>())
    }
}

impl Issuers {
    /// The issuer of a rule.
    pub fn of(&self, rule: usize) -> Option<&Arc<Issuer>> {
        self.0.get(rule)
    }

    /// Whose the token is. When that fails for want of a key, the number of the rule whose issuer may have it later goes with it.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn judge(
        &self,
        rules: &TokenRules,
        parsed: &Parsed<'_>,
        at: impl Fn(usize) -> bool,
    ) -> Result<Verified, (Refusal, Option<usize>)> {
        let mut why = (Refusal::Issuer, None);
        for (number, rule) in rules.rules().iter().enumerate().filter(|(number, _)| at(*number)) {
            let keys = self.of(number).and_then(|issuer| issuer.keys());
            match parsed.check(number, rule, keys.as_deref()) {
                Ok(mut verified) => {
                    verified.also = self.also(rules, parsed, number);
                    return Ok(verified);
                }
                Err(refusal @ (Refusal::UnknownKey | Refusal::NoKeys)) => why = (refusal, Some(number)),
                // What comes nearest to a verdict is told.
                Err(refusal) if why.0 == Refusal::Issuer => why = (refusal, None),
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// The rules that want a token and that this one is good for, besides its own, wherever they look.
    fn also(&self, rules: &TokenRules, parsed: &Parsed<'_>, own: usize) -> Vec<usize> {
        let others = rules.rules().iter().enumerate().take_while(|(_, rule)| rule.required);
        let good = others.filter(|(number, rule)| {
            let keys = || self.of(*number).and_then(|issuer| issuer.keys());
            *number != own && parsed.check(*number, rule, keys().as_deref()).is_ok()
        });
        good.map(|(number, _)| number).collect()
    }
}

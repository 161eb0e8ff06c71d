//! cut: a call that is made for an agent ends where it stands when that agent is held, however many agents are between. The agent's own
//! connections are cut as a whole (`tls/peers.rs`, `listen/plain.rs`); a call that is for nobody but its caller passes by here.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pilotfish_filters::clock::Micros;
use pilotfish_filters::delegation::Delegated;
use pilotfish_filters::held::Held;
use pilotfish_filters::verdict::Deny;

use crate::listen::Direction;
use crate::request::ctx::Ctx;
use crate::request::delegation;
use crate::request::respond::Failed;
use crate::worker::Worker;

/// The open calls of one worker that are for somebody besides their caller.
#[derive(Debug, Default)]
pub struct Watched(RefCell<Places>);

#[derive(Debug, Default)]
struct Places {
    all: Vec<Option<Place>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    acting: Arc<Delegated>,
    waker: Option<Waker>,
    /// Why it ends.
    deny: Option<Deny>,
}

impl Watched {
    /// Ends the calls for agents that are held and were not `before`. Gives how many those are.
    pub fn cut(&self, held: &Held, before: Option<&Held>, now: Micros) -> usize {
        let mut woken: Vec<Option<Waker>> = Vec::new();
        for place in self.0.borrow_mut().all.iter_mut().flatten().filter(|place| place.deny.is_none()) {
            place.deny = held.cuts(before, &place.acting, now);
            if place.deny.is_some() {
                woken.push(place.waker.take());
            }
        }
        // Outside of the borrow: what is woken may end.
        let cut = woken.len();
        woken.into_iter().flatten().for_each(Waker::wake);
        cut
    }

    fn watch(&self, acting: Arc<Delegated>) -> Watch<'_> {
        let place = Some(Place { acting, waker: None, deny: None });
        let mut places = self.0.borrow_mut();
        let at = match places.free.pop() {
            Some(at) => at,
            None => {
                places.all.push(None);
                places.all.len() - 1
            }
        };
        if let Some(slot) = places.all.get_mut(at) {
            *slot = place;
        }
        Watch { all: self, at }
    }
}

/// One call that is watched, to its end.
#[derive(Debug)]
pub struct Watch<'w> {
    all: &'w Watched,
    at: usize,
}

impl Watch<'_> {
    fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Deny> {
        let mut places = self.all.0.borrow_mut();
        let Some(Some(place)) = places.all.get_mut(self.at) else { return Poll::Pending };
        if let Some(deny) = place.deny.take() {
            return Poll::Ready(deny);
        }
        if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut places = self.all.0.borrow_mut();
        if let Some(slot) = places.all.get_mut(self.at) {
            *slot = None;
            places.free.push(self.at);
        }
    }
}

/// Watches a call from before it is admitted, so that whoever is held meanwhile is either refused there or cut here. `None`: it is for
/// nobody but its caller.
pub fn watch<'w>(worker: &'w Worker, ctx: &Ctx<'_>) -> Option<Watch<'w>> {
    let acting = match ctx.direction {
        Direction::Inbound => ctx.proven.delegated.as_ref().filter(|_| ctx.proven.chain.is_some()),
        Direction::Outbound => delegation::acting(ctx).filter(|acting| acting.is_somebody()),
    };
    acting.map(|acting| worker.watched.watch(Arc::clone(acting)))
}

/// Runs the rest of a call until it is cut. What is cut is dropped where it stands: its upstream sees the stream reset, or the
/// connection closed; its caller a refusal, or an answer that breaks off.
///
/// # Errors
/// Its own, `quarantined`, `restricted`.
pub async fn unless_cut<T>(
    watch: Option<Watch<'_>>,
    mut rest: Pin<&mut impl Future<Output = Result<T, Failed>>>,
) -> Result<T, Failed> {
    let Some(watch) = watch else { return rest.await };
    poll_fn(|cx| match watch.poll_cut(cx) {
        Poll::Ready(deny) => Poll::Ready(Err(deny.into())),
        Poll::Pending => rest.as_mut().poll(cx),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_config::wire::{Action, Actions, Hold};
    use pilotfish_filters::authz::Principal;

    fn acting(name: &str) -> Arc<Delegated> {
        let id = format!("m/ns/default/agent/{name}").into();
        let agent = Principal { id, trust_domain: "m".into(), namespace: None, name: None };
        Arc::new(Delegated { agents: vec![agent], ..Delegated::default() })
    }

    fn held(agent: &str, hold: Hold) -> Held {
        let action = Action {
            agent: format!("default/{agent}"),
            hold,
            until: None,
            since: 0,
            by: String::new(),
            why: String::new(),
        };
        Held::new(&Actions { actions: vec![action] }, Some("m"), "default/own", Micros).unwrap()
    }

    #[tokio::test]
    async fn only_calls_for_who_is_held_end_and_places_are_used_again() {
        let all = Watched::default();
        for round in 0..3 {
            let (bad, good) = (all.watch(acting("bad")), all.watch(acting("good")));
            let never = std::future::pending::<Result<(), Failed>>;
            let (bad, good) = (async { unless_cut(Some(bad), std::pin::pin!(never())).await }, async {
                unless_cut(Some(good), std::pin::pin!(never())).await
            });
            let (mut bad, mut good) = (Box::pin(bad), Box::pin(good));
            let early = tokio::time::timeout(std::time::Duration::from_millis(1), async {
                tokio::select! { biased; _ = &mut bad => {}, _ = &mut good => {} }
            });
            assert!(early.await.is_err(), "nobody is held");
            let hold = if round == 0 { Hold::Restrict(vec!["nlu".into()]) } else { Hold::Quarantine };
            let now = held("bad", hold);
            assert_eq!(all.cut(&now, None, Micros(1)), 1);
            assert_eq!(all.cut(&now, Some(&now), Micros(1)), 0, "that is no news");
            let Err(Failed::Refused(deny)) = bad.await else { panic!("it is not cut") };
            assert!(deny.detail.unwrap().contains("default/bad"));
            let still = tokio::time::timeout(std::time::Duration::from_millis(1), &mut good).await;
            assert!(still.is_err(), "the other one goes on");
            drop(good);
        }
        assert_eq!(all.0.borrow().all.len(), 2);
        assert_eq!(all.0.borrow().free.len(), 2);
    }
}

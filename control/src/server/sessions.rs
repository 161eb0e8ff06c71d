//! Sessions of the page: a link that works once, then a cookie and a key.
//!
//! A browser sends a cookie of 127.0.0.1 to every port of it, also to one where an agent listens. So the cookie alone
//! opens nothing: each read carries a key too, which the link's redirect leaves in the address's fragment and the page
//! keeps for its own origin. Both are kept here as hashes, in memory: a restart ends every session.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Failure;
use super::administrators::{hash, secret};

/// How long a link works.
const LINK: Duration = Duration::from_secs(60);
/// How long a session lasts: a working day.
pub(super) const SESSION: Duration = Duration::from_secs(8 * 3600);
/// Links and sessions at a time; with more the oldest ends.
const MOST: usize = 64;

#[derive(Debug)]
struct Link {
    code: String,
    made: Instant,
}

#[derive(Debug)]
struct Session {
    cookie: String,
    key: String,
    made: Instant,
}

/// Links that were not used yet, and open sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<(Vec<Link>, Vec<Session>)>);

/// What a browser gets for a link.
#[derive(Debug)]
pub(super) struct Opened {
    /// For the cookie.
    pub(super) cookie: String,
    /// For the header of each read.
    pub(super) key: String,
}

impl Sessions {
    /// The code of a new link.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn link(&self, now: Instant) -> Result<String, Failure> {
        let code = secret()?;
        let (links, _) = &mut *self.lock();
        links.retain(|link| now.saturating_duration_since(link.made) < LINK);
        if links.len() >= MOST {
            links.remove(0);
        }
        links.push(Link { code: hash(&code), made: now });
        Ok(code)
    }

    /// A session for a code, which is spent by it; `None` when it is unknown, spent or too old.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub(super) fn open(&self, code: &str, now: Instant) -> Result<Option<Opened>, Failure> {
        let hashed = hash(code);
        let (links, sessions) = &mut *self.lock();
        links.retain(|link| now.saturating_duration_since(link.made) < LINK);
        let Some(place) = links.iter().position(|link| link.code == hashed) else { return Ok(None) };
        links.remove(place);
        let opened = Opened { cookie: secret()?, key: secret()? };
        if sessions.len() >= MOST {
            sessions.remove(0);
        }
        sessions.push(Session { cookie: hash(&opened.cookie), key: hash(&opened.key), made: now });
        Ok(Some(opened))
    }

    /// Whether a cookie is a session's.
    pub(super) fn has(&self, cookie: &str, now: Instant) -> bool {
        self.find(cookie, now, |_| true)
    }

    /// Whether cookie and key are those of one session.
    pub(super) fn admits(&self, cookie: &str, key: &str, now: Instant) -> bool {
        let key = hash(key);
        self.find(cookie, now, |session| session.key == key)
    }

    fn find(&self, cookie: &str, now: Instant, fits: impl Fn(&Session) -> bool) -> bool {
        let cookie = hash(cookie);
        let (_, sessions) = &mut *self.lock();
        sessions.retain(|session| now.saturating_duration_since(session.made) < SESSION);
        sessions.iter().any(|session| session.cookie == cookie && fits(session))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Link>, Vec<Session>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_works_once_and_for_a_minute() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let code = sessions.link(now).unwrap();
        assert!(sessions.open("another", now).unwrap().is_none());
        let opened = sessions.open(&code, now + LINK / 2).unwrap().unwrap();
        assert!(sessions.open(&code, now + LINK / 2).unwrap().is_none(), "spent");
        assert!(sessions.admits(&opened.cookie, &opened.key, now));
        assert!(!sessions.admits(&opened.cookie, "", now), "the cookie alone");
        assert!(!sessions.admits(&opened.key, &opened.cookie, now));
        let late = sessions.link(now).unwrap();
        assert!(sessions.open(&late, now + LINK).unwrap().is_none());
        assert!(!sessions.has(&opened.cookie, now + LINK / 2 + SESSION));
    }

    #[test]
    fn links_and_sessions_are_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let codes: Vec<String> = (0..MOST + 1).map(|_| sessions.link(now).unwrap()).collect();
        assert!(sessions.open(&codes[0], now).unwrap().is_none(), "the oldest made room");
        let first = sessions.open(&codes[1], now).unwrap().unwrap();
        for _ in 0..MOST {
            let code = sessions.link(now).unwrap();
            sessions.open(&code, now).unwrap().unwrap();
        }
        assert!(!sessions.has(&first.cookie, now));
    }
}

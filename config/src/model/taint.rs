//! Taints of nodes and what tolerates them, as Kubernetes has them; also as one text, `key=value:Effect`.

use std::fmt;

use crate::raw::nearest;
use crate::validate::check::{is_label_key, is_label_value};
use crate::yaml::clip_text;

/// What keeps agents away from a node, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// What.
    pub key: String,
    /// Perhaps with a value.
    pub value: String,
    /// What happens to those that do not tolerate it.
    pub effect: TaintEffect,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaintEffect {
    /// Nothing new (Kubernetes' `NoSchedule`).
    NoSchedule,
    /// Rather not (`PreferNoSchedule`).
    PreferNoSchedule,
    /// Nothing new, and what is there is moved away (`NoExecute`).
    NoExecute,
}

/// A taint that an agent does not mind. An absent key tolerates all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    /// Of the taint.
    pub key: Option<String>,
    /// Of the taint; `None`: any (operator `Exists`).
    pub value: Option<String>,
    /// Of the taint; `None`: any.
    pub effect: Option<TaintEffect>,
}

impl TaintEffect {
    const ALL: [TaintEffect; 3] =
        [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];

    /// The word as Kubernetes writes it.
    pub const fn word(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        }
    }

    fn parse(text: &str) -> Result<TaintEffect, String> {
        let words = || TaintEffect::ALL.iter().map(|effect| effect.word());
        TaintEffect::ALL.into_iter().find(|effect| effect.word() == text).ok_or_else(|| {
            let hint = match nearest(text, words()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}", words().collect::<Vec<_>>().join(", ")),
            };
            format!("`{}` is not an effect; {hint}", clip_text(text))
        })
    }
}

impl Taint {
    /// Reads `key=value:Effect` or `key:Effect`, as `kubectl taint` does.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Taint, String> {
        let (what, effect) = text
            .rsplit_once(':')
            .ok_or("the effect is missing: `key=value:NoSchedule`, `PreferNoSchedule` or `NoExecute`")?;
        let (key, value) = what.split_once('=').unwrap_or((what, ""));
        let taint =
            Taint { key: key.to_owned(), value: value.to_owned(), effect: TaintEffect::parse(effect)? };
        taint.check()?;
        Ok(taint)
    }

    /// Whether key and value are labels.
    ///
    /// # Errors
    /// Which of them is not.
    pub fn check(&self) -> Result<(), String> {
        labels(&self.key, &self.value)
    }
}

impl fmt::Display for Taint {
    /// As [`Taint::parse`] reads it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(out, "{}:{}", self.key, self.effect.word()),
            value => write!(out, "{}={value}:{}", self.key, self.effect.word()),
        }
    }
}

impl Toleration {
    /// Reads `key`, `key=value`, `key:Effect` or `key=value:Effect`; without a value any is meant.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Toleration, String> {
        let (what, effect) = match text.rsplit_once(':') {
            Some((what, effect)) => (what, Some(TaintEffect::parse(effect)?)),
            None => (text, None),
        };
        let (key, value) =
            what.split_once('=').map_or((what, None), |(key, value)| (key, Some(value.to_owned())));
        let toleration = Toleration { key: Some(key.to_owned()), value, effect };
        toleration.check()?;
        Ok(toleration)
    }

    /// Whether key and value are labels.
    ///
    /// # Errors
    /// Which of them is not.
    pub fn check(&self) -> Result<(), String> {
        match &self.key {
            Some(key) => labels(key, self.value.as_deref().unwrap_or_default()),
            None if self.value.is_some() => Err("a value without a key means nothing".into()),
            None => Ok(()),
        }
    }

    /// Whether it is about this taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}

fn labels(key: &str, value: &str) -> Result<(), String> {
    if !is_label_key(key) {
        return Err(format!("`{}` is not a key: letters, digits and inner `-`, `_`, `.`", clip_text(key)));
    }
    match is_label_value(value) {
        true => Ok(()),
        false => {
            Err(format!("`{}` is not a value: letters, digits and inner `-`, `_`, `.`", clip_text(value)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_as_they_are_written() {
        for text in ["gpu:NoSchedule", "example.com/team=ml:NoExecute", "a=b:PreferNoSchedule"] {
            assert_eq!(Taint::parse(text).map(|taint| taint.to_string()).as_deref(), Ok(text));
        }
        for bad in ["gpu", "gpu:", ":NoSchedule", "a b:NoSchedule", "a=b c:NoSchedule", "a:Noschedul"] {
            assert!(Taint::parse(bad).is_err(), "{bad}");
        }
        assert!(Taint::parse("a:NoSchedul").is_err_and(|why| why.contains("did you mean `NoSchedule`?")));
    }

    #[test]
    fn a_toleration_is_about_what_it_names() {
        let taint = |text| Taint::parse(text).unwrap();
        for (text, other, tolerates) in [
            ("gpu", "gpu=a:NoSchedule", true),
            ("gpu=a", "gpu=a:NoExecute", true),
            ("gpu=a", "gpu=b:NoExecute", false),
            ("gpu=", "gpu=b:NoExecute", false),
            ("gpu:NoSchedule", "gpu:NoExecute", false),
            ("cpu", "gpu:NoExecute", false),
        ] {
            assert_eq!(
                Toleration::parse(text).unwrap().tolerates(&taint(other)),
                tolerates,
                "{text} {other}"
            );
        }
        let all = Toleration { key: None, value: None, effect: None };
        assert!(all.tolerates(&taint("x:NoSchedule")));
    }
}

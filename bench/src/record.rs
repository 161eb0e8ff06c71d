//! One measurement, and several of the same.

use serde_json::{Value, json};

use crate::peers::Peer;
use crate::work::{Values, Work};

/// What one proxy did in one round of one workload.
#[derive(Clone, Debug)]
pub struct Record {
    /// The workload.
    pub work: Work,
    /// What it was run at, when there are several (a rate).
    pub at: String,
    /// The proxy.
    pub peer: Peer,
    /// The round, from 0.
    pub round: usize,
    /// What was measured.
    pub values: Values,
}

impl Record {
    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "work": self.work.name(), "at": self.at, "peer": self.peer.name(), "round": self.round,
            "values": self.values,
        })
    }
}

/// Adds what a proxy adds over no proxy, where the round measured that too.
pub fn add_added(round: &mut [Record]) {
    let direct: Vec<Record> = round.iter().filter(|r| r.peer == Peer::Direct).cloned().collect();
    for record in round.iter_mut().filter(|r| r.peer != Peer::Direct) {
        let Some(base) = direct.iter().find(|d| d.at == record.at) else { continue };
        for q in ["p50", "p90", "p99", "p99.9"] {
            if let (Some(with), Some(without)) = (record.values.get(q), base.values.get(q)) {
                let added = with - without;
                record.values.insert(format!("added_{q}"), added);
            }
        }
    }
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median (of an even number: the mean of the middle two).
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let half = figures.len() / 2;
        let median = match figures.len() % 2 {
            0 => (figures[half - 1] + figures[half]) / 2.0,
            _ => figures[half],
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_is_between() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn added_is_over_the_direct_run_of_the_same_pace() {
        let record = |peer, at: &str, p50| Record {
            work: Work::Events,
            at: at.to_owned(),
            peer,
            round: 0,
            values: Values::from([("p50".to_owned(), p50)]),
        };
        let mut round = vec![
            record(Peer::Direct, "a", 10.0),
            record(Peer::Direct, "b", 20.0),
            record(Peer::Haproxy, "b", 50.0),
        ];
        add_added(&mut round);
        assert_eq!(round[2].values["added_p50"], 30.0);
        assert!(!round[1].values.contains_key("added_p50"));
    }
}

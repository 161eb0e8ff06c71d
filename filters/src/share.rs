//! A share of the calls, drawn at random for each.

/// A share in parts of a million, as fine as Istio's percentages (0.0001 %).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// A percentage, 0 to 100, rounded to 0.0001; what is not within counts as the nearest that is.
    pub fn percent(percent: f64) -> Share {
        // A float becomes the nearest whole number that there is, and NaN 0.
        Share(((percent * 10_000.0).round() as u32).min(Self::WHOLE))
    }

    /// As a percentage, to be shown.
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether this call is one of them. All and none need no chance.
    pub fn draw(self, rng: &mut fastrand::Rng) -> bool {
        match self.0 {
            0 => false,
            Self::WHOLE => true,
            parts => rng.u32(..Self::WHOLE) < parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(percent: f64, times: u32) -> u32 {
        let (mut rng, share) = (fastrand::Rng::with_seed(7), Share::percent(percent));
        (0..times).map(|_| u32::from(share.draw(&mut rng))).sum()
    }

    #[test]
    fn a_share_is_drawn_as_often_as_it_says() {
        assert_eq!((drawn(0.0, 1000), drawn(100.0, 1000)), (0, 1000));
        // Three standard deviations and more.
        for (percent, times, about, off) in
            [(50.0, 10_000, 5000, 200), (0.01, 1_000_000, 100, 40), (99.99, 1_000_000, 999_900, 40)]
        {
            let drawn = drawn(percent, times);
            assert!(drawn.abs_diff(about) <= off, "{percent} %: {drawn} of {times}");
        }
    }

    #[test]
    fn fractions_are_kept_and_what_is_no_share_is_not_more_than_all() {
        assert_eq!(Share::percent(0.0029).as_percent(), 0.0029);
        assert_eq!(Share::percent(0.0001).0, 1);
        assert_eq!(
            [Share::percent(1e9), Share::percent(-3.0), Share::percent(f64::NAN)].map(|s| s.0),
            [1_000_000, 0, 0]
        );
    }
}

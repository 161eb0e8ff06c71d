//! Fuzzing without libFuzzer: mutates seeds with a fixed random sequence for a fixed number of rounds.
#![cfg(test)]

/// Calls `target` with each seed, then with mutations of them. Two seconds in a debug build at most.
pub(crate) fn run(seeds: &[&[u8]], target: fn(&[u8])) {
    let mut rng = fastrand::Rng::with_seed(0x5eed);
    let started = std::time::Instant::now();
    seeds.iter().for_each(|seed| target(seed));
    while started.elapsed().as_millis() < 2000 {
        let mut input = rng.choice(seeds).copied().unwrap_or_default().to_vec();
        for _ in 0..rng.usize(1..6) {
            mutate(&mut input, seeds, &mut rng);
        }
        target(&input);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[&[u8]], rng: &mut fastrand::Rng) {
    let at = rng.usize(0..=input.len());
    match rng.u8(0..5) {
        0 => input.insert(at, rng.u8(..)),
        1 if at < input.len() => input[at] = rng.u8(..),
        2 if at < input.len() => drop(input.remove(at)),
        3 => input.truncate(at),
        _ => {
            let other = rng.choice(seeds).copied().unwrap_or_default();
            let from = rng.usize(0..=other.len());
            input.extend_from_slice(&other[from..]);
        }
    }
}

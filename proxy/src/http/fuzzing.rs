//! A small mutating fuzzer over the seed corpora of `proxy/fuzz`, for plain `cargo test`: a fixed seed, two seconds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs `target` on every seed of `corpus` as it is, then on mutations of them for two seconds.
pub(crate) fn for_a_while(corpus: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(corpus);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 5, "{} has too few seeds", folder.display());
    seeds.iter().for_each(|seed| target(seed));
    let mut random = fastrand::Rng::with_seed(0x70_69_6c_6f_74);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        for _ in 0..256 {
            let mut bytes = random.choice(&seeds).unwrap().clone();
            for _ in 0..random.usize(1..5) {
                mutate(&mut bytes, &seeds, &mut random);
            }
            target(&bytes);
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    const TOKENS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b" ",
        b"\t",
        b",",
        b"0",
        b"chunked",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"Connection: ",
        b"\r\n\r\n",
        b"\x0b",
        b"\xff",
        b";",
    ];
    let at = random.usize(0..=bytes.len());
    let to = random.usize(at..=bytes.len()).min(at + 16);
    match random.u8(0..6) {
        0 => bytes.splice(at..at, random.choice(TOKENS).unwrap().iter().copied()).for_each(drop),
        1 => drop(bytes.drain(at..to)),
        2 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.u8(0..8)),
        3 => {
            let piece = bytes.get(at..to).unwrap_or_default().to_vec();
            let into = random.usize(0..=bytes.len());
            bytes.splice(into..into, piece).for_each(drop);
        }
        4 => bytes.truncate(at),
        _ => {
            let other = random.choice(seeds).unwrap();
            bytes.truncate(at);
            bytes.extend_from_slice(other.get(random.usize(0..=other.len())..).unwrap_or_default());
        }
    }
}

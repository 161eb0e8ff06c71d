//! YAML that was made to hurt ends with an error, soon and within little memory.

use std::time::{Duration, Instant};

use pilotfish_config::{Options, Report, load_bytes, load_texts};

use crate::computed;

/// Of computing, in a debug build; each case takes far less.
const SOON: Duration = Duration::from_secs(10);

fn refused(text: &str) -> Report {
    let start = computed();
    let loaded = load_texts(&[("hostile.yaml", text)], &Options::default());
    let took = computed() - start;
    assert!(took < SOON, "{took:?}");
    assert!(loaded.model.is_none(), "{}", loaded.report);
    assert!(loaded.report.diagnostics.len() <= 2001);
    loaded.report
}

fn says(report: &Report, part: &str) {
    let text = report.to_string();
    assert!(text.contains(part), "{part:?} is not in {}", text.chars().take(2000).collect::<String>());
}

#[test]
fn an_alias_bomb_is_stopped() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let all = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{all}]\n"));
    }
    says(&refused(&bomb), "the file with its aliases has 2000001 nodes; the limit is 2000000");
}

#[test]
fn an_alias_bomb_of_large_text_is_stopped() {
    let text = "x".repeat(900_000);
    let bomb = format!("a: &a \"{text}\\n\"\nb: [{}]\n", vec!["*a"; 10_000].join(", "));
    says(&refused(&bomb), "the text that aliases copy");
}

#[test]
fn deep_nesting_is_stopped() {
    let limit = "the nesting has 65 levels; the limit is 64";
    says(&refused(&"- ".repeat(100_000)), limit);
    let too_deep = "the nesting is too deep; the limit is 64";
    says(&refused(&"[".repeat(100_000)), too_deep);
    says(&refused(&"{a: ".repeat(100_000)), too_deep);
    says(&refused(&format!("{}x{}", "[".repeat(65), "]".repeat(65))), limit);
    let deep: String = (0..5_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    says(&refused(&deep), limit);
    // Aliases do not get around it.
    let mut towers = "a0: &a0 [[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]\n".to_owned();
    for level in 1..8 {
        towers.push_str(&format!("a{level}: &a{level} [[[[[[[[[[[[[[[[*a{}]]]]]]]]]]]]]]]]\n", level - 1));
    }
    says(&refused(&towers), "the nesting");
}

#[test]
fn huge_scalars_keys_and_files_are_stopped() {
    says(
        &refused(&format!("a: {}", "x".repeat(2_000_000))),
        "a scalar has 2000000 bytes; the limit is 1048576",
    );
    says(&refused(&format!("a: \"{}\"", "\\u0041".repeat(2_000_000))), "a scalar has 2000000 bytes");
    says(&refused(&format!("a: |\n{}", "  xxxxxxx\n".repeat(200_000))), "a scalar has");
    says(&refused(&"#".repeat(33 << 20)), "bytes; the limit is 33554432");
    refused(&format!("{}: a", "k".repeat(2_000_000)));
}

#[test]
fn many_of_anything_is_bounded() {
    refused(&"- x\n".repeat(200_000));
    let keys: String = (0..50_000).map(|key| format!("k{key}: v\n")).collect();
    refused(&keys);
    refused(&"---\na: b\n".repeat(20_000));
    refused(&"a: [\n---\n".repeat(20_000));
    refused(&"a: b\n".repeat(100_000));
    let anchors: String = (0..100_000).map(|anchor| format!("- &a{anchor} x\n")).collect();
    refused(&anchors);
    let tabs = "a:\n\t- b\n".repeat(50_000);
    refused(&tabs);
}

#[test]
fn merge_keys_cannot_be_made_to_explode() {
    let keys: String = (0..20_000).map(|key| format!("  k{key}: v\n")).collect();
    let sources = vec!["*a"; 20].join(", ");
    says(&refused(&format!("a: &a\n{keys}b:\n  <<: [{sources}]\n{keys}")), "apiVersion");
}

#[test]
fn duplicate_keys_are_refused_with_both_lines() {
    says(
        &refused("a: 1\nb: 2\na: 3\n"),
        "hostile.yaml:3:1: error: the key `a` is written twice, here and in line 1",
    );
    let many: String = (0..50).map(|key| format!("k{key}: v\n")).collect();
    says(
        &refused(&format!("{many}k7: v\n")),
        "hostile.yaml:51:1: error: the key `k7` is written twice, here and in line 8",
    );
}

#[test]
fn invalid_utf8_is_refused_with_its_place() {
    let loaded = load_bytes("bytes.yaml", b"a: b\nc: \xc3\xa4 \xff\n".to_vec(), &Options::default());
    assert!(loaded.model.is_none());
    says(&loaded.report, "bytes.yaml:2:6: error: not UTF-8: the byte 0xff");
    for bytes in [&b"\xfe\xff\0a"[..], b"\xed\xa0\x80", b"a: \xf8\x88\x80\x80\x80", b"\xc0\xaf", b"a\xe2\x82"]
    {
        assert!(load_bytes("bytes.yaml", bytes.to_vec(), &Options::default()).model.is_none(), "{bytes:?}");
    }
}

#[test]
fn thousands_of_errors_are_counted_and_not_all_kept() {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n".to_owned();
    (0..5_000).for_each(|field| text.push_str(&format!("  unknown{field}: x\n")));
    let report = refused(&text);
    says(&report, "more errors and warnings are not shown");
    assert_eq!(report.diagnostics.len(), 2001);
}

#[test]
fn a_regular_expression_cannot_take_all_memory() {
    let text = r"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http:
  - match: [{uri: {regex: '((a{1000}){1000}){1000}'}}]
    directResponse: {status: 200}
";
    says(&refused(text), "not a valid regular expression");
}

/// Random changes of the seeds: no panic, no hang. The seed of the generator is fixed; `FUZZ_SEED` and
/// `FUZZ_SECONDS` change it for a longer run.
#[test]
fn two_seconds_of_mutated_documents() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/load");
    let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let seeds: Vec<Vec<u8>> = names.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(seeds.len() >= 10);
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let mut random = fastrand::Rng::with_seed(number("FUZZ_SEED", 0x70_69_6c_6f_74));
    let seconds = Duration::from_secs(number("FUZZ_SECONDS", 2));
    let start = Instant::now();
    let mut rounds = 0u32;
    while start.elapsed() < seconds {
        let mut data = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..=random.usize(..4) {
            mutate(&mut data, &seeds, &mut random);
        }
        pilotfish_config::fuzz(&data);
        rounds += 1;
    }
    assert!(rounds > 20, "only {rounds} rounds in two seconds");
}

fn mutate(data: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    if data.is_empty() {
        data.push(b'a');
    }
    let at = random.usize(..data.len());
    let end = (at + random.usize(..40)).min(data.len());
    match random.u8(..8) {
        0 => data[at] = random.u8(..),
        1 => data.insert(at, b"[]{}:,&*!|>'\"%@`-?# \n\t\0"[random.usize(..23)]),
        2 => drop(data.drain(at..end)),
        3 => {
            let part = data[at..end].to_vec();
            let to = random.usize(..=data.len());
            data.splice(to..to, part);
        }
        4 => {
            let other = &seeds[random.usize(..seeds.len())];
            let from = random.usize(..other.len());
            let to = (from + random.usize(..80)).min(other.len());
            data.splice(at..end, other[from..to].iter().copied());
        }
        5 => {
            let word = [
                "null",
                "-1",
                "1e999",
                "99999999999999999999",
                "\"\"",
                "[]",
                "{}",
                "*a",
                "&a",
                "<<: ",
                "---\n",
            ];
            data.splice(at..at, word[random.usize(..word.len())].bytes());
        }
        6 => data[at] ^= 1 << random.u8(..8),
        _ => data.truncate(at),
    }
}

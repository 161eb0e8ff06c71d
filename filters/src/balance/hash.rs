//! Hashing of endpoints for affinity: the same in every process and on every machine, so that all sidecars agree.
//! The hash of what a request is tied by comes from [`crate::affinity`].

const SEED: u64 = 0x2d35_8dcc_aa6c_78a5;
const PRIME: u64 = 0x8bb8_4b93_962e_acc9;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Spreads a value over all 64 bits (a bijection: the finalizer of SplitMix64).
pub fn mix(value: u64) -> u64 {
    let mut x = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Every position below `len` once, in an order that depends on `key` alone; without memory.
pub(super) fn order(key: u64, len: usize) -> impl Iterator<Item = usize> {
    let count = len.max(1) as u64;
    let start = mix(key ^ PRIME) % count;
    let mut stride = 1 + mix(key ^ SEED) % count;
    while gcd(stride, count) != 1 {
        stride += 1;
    }
    (0..len as u64).map(move |step| {
        ((u128::from(start) + u128::from(step) * u128::from(stride)) % u128::from(count)) as usize
    })
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The hash of an endpoint's address, from which its points on a ring or in a table are derived.
pub(crate) fn address(addr: std::net::SocketAddr) -> u64 {
    let port = u64::from(addr.port());
    match addr.ip() {
        std::net::IpAddr::V4(ip) => mix(mix(u64::from(ip.to_bits())) ^ port),
        std::net::IpAddr::V6(ip) => {
            mix(fold((ip.to_bits() >> 64) as u64 ^ SEED, ip.to_bits() as u64 ^ PRIME) ^ port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_visits_every_position_once() {
        for len in [1, 2, 3, 10, 12, 97, 100] {
            for key in 0..50 {
                let mut seen: Vec<usize> = order(key, len).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>(), "key {key}, len {len}");
            }
        }
        assert_eq!(order(1, 0).count(), 0);
    }

    #[test]
    fn orders_of_different_keys_differ() {
        let mut firsts = std::collections::BTreeSet::new();
        let mut seconds = std::collections::BTreeSet::new();
        for key in 0..200 {
            let mut order = order(key, 10);
            firsts.insert(order.next());
            seconds.insert(order.next());
        }
        assert_eq!((firsts.len(), seconds.len()), (10, 10));
    }

    #[test]
    fn hashes_of_similar_addresses_fill_all_buckets_evenly() {
        for v6 in [false, true] {
            let mut buckets = [0_u32; 64];
            for i in 0..64_000_u32 {
                let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + i / 4);
                let ip = if v6 { v4.to_ipv6_mapped().into() } else { v4.into() };
                let hash = address(std::net::SocketAddr::new(ip, 8080 + (i % 4) as u16));
                buckets[(hash >> 58) as usize] += 1;
            }
            let (low, high) = (buckets.iter().min(), buckets.iter().max());
            assert!(low > Some(&850) && high < Some(&1150), "{low:?} {high:?}");
        }
    }
}

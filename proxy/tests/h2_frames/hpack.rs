//! Header compression: RFC 7541, and section 4.3.

use pilotfish_testkit::h2::{self, code::*, hpack};

use super::{Row, Want, get, row};

/// The RFC wants COMPRESSION_ERROR; the h2 crate says PROTOCOL_ERROR, which ends the connection as well.
const BROKEN: Want = Want::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
const OK: Want = Want::Answer(1, &[200]);

pub fn rows(h: &str) -> Vec<Row> {
    let request = || h2::request("GET", h, "/", &[]);
    let headers = |stream, block: Vec<Vec<u8>>| h2::headers(stream, block.concat(), true).bytes();
    let after = |name, more: &[u8]| row(name, vec![headers(1, vec![request(), more.to_vec()])], BROKEN);
    let before = |name, first: Vec<u8>, want| row(name, vec![headers(1, vec![first, request()])], want);
    vec![
        row(
            "7541 6.1 indexed fields",
            {
                let block = vec![
                    hpack::indexed(2),
                    hpack::indexed(6),
                    hpack::indexed(4),
                    hpack::literal(":authority", h),
                ];
                vec![headers(1, block)]
            },
            OK,
        ),
        row(
            "7541 6.2.1 a field kept and used again",
            {
                let kept = vec![request(), hpack::literal_indexed("a", "b")];
                vec![headers(1, kept), headers(3, vec![request(), hpack::indexed(62)])]
            },
            Want::Answer(3, &[200]),
        )
        .origin(2)
        .check(|seen, _| {
            let both = seen.iter().all(|m| m.header("a").as_deref() == Some("b"));
            if both { Ok(()) } else { Err("a field was lost".into()) }
        }),
        row(
            "7541 6.2.3 a field never indexed",
            vec![headers(1, vec![request(), b"\x10\x01a\x01b".to_vec()])],
            OK,
        ),
        row(
            "7541 5.2 Huffman",
            {
                // `www.example.com` of RFC 7541 C.4.1, as a header's value.
                vec![headers(
                    1,
                    vec![
                        request(),
                        b"\x00\x01a\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec(),
                    ],
                )]
            },
            OK,
        )
        .check(|seen, _| {
            let right = seen[0].header("a").as_deref() == Some("www.example.com");
            if right { Ok(()) } else { Err("decoded to something else".into()) }
        }),
        after("7541 6.1 index 0", b"\x80"),
        after("7541 2.3.3 index beyond the tables", b"\xff\x00"),
        after("7541 2.3.3 name index beyond the tables", b"\x7f\x00\x01b"),
        after("7541 5.1 integer over 32 bits", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        after("7541 5.1 integer cut short", b"\xff"),
        after("7541 5.2 string cut short", b"\x00\x05ab"),
        after("7541 5.2 string without a value", b"\x00\x01a"),
        after("7541 5.2 padding over seven bits", b"\x00\x01a\x82\x1f\xff"),
        after("7541 5.2 padding of zeros", b"\x00\x01a\x81\x18"),
        after("7541 5.2 EOS in a string", b"\x00\x01a\x84\xff\xff\xff\xff"),
        before("7541 4.2 table size 0, first", hpack::table_size(0), OK),
        before(
            "7541 4.2 two changes of table size",
            [hpack::table_size(0), hpack::table_size(4096)].concat(),
            OK,
        ),
        before("7541 6.3 table size over the limit", hpack::table_size(1 << 20), BROKEN),
        after("7541 4.2 table size at the end", &hpack::table_size(100)),
        row(
            "4.3 an error in a refused block is one all the same",
            vec![headers(1, vec![hpack::literal("A", "upper"), b"\x80".to_vec()]), get(3, h, &[])],
            Want::Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]),
        ),
        row("4.3 empty block", vec![headers(1, vec![])], Want::Malformed(1)),
    ]
}

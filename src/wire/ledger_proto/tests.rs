//! Claims about single messages.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::wire::samples;

#[test]
fn every_message_survives_its_bytes() {
    for data in [None, Some(Vec::new()), Some(b"body".to_vec())] {
        let record = samples::record("shop-api", 48_000, data.clone());
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
        let by_hand = samples::by_hand(data.as_deref());
        let read = decode_override(&encode_override(&by_hand)).unwrap();
        assert!(read.holds());
        assert_eq!(read, by_hand);
    }
    let head = samples::signed_head();
    assert_eq!(decode_signed_head(&encode_signed_head(&head)), Ok(head));
    let beacon = samples::beacon();
    assert_eq!(decode_beacon(&encode_beacon(&beacon)), Ok(beacon));
    let branch = samples::branch();
    assert_eq!(decode_branch(&encode_branch(&branch)), Ok(branch));
    let link = samples::link();
    assert_eq!(decode_key_link(&encode_key_link(&link)), Ok(link));
    let certificate = samples::certificate();
    assert_eq!(decode_certificate(&encode_certificate(&certificate)), Ok(certificate));
}

/// `UPDATE_EXPECT=1 cargo test --lib ledger_proto` rewrites the file.
#[test]
fn bytes_and_signatures_are_those_of_the_golden_file() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let live = samples::record("shop-api", 48_000, Some(b"body".to_vec()));
    let lines = [
        ("record", encode_record(&live)),
        ("retired", encode_record(&samples::record("shop-api", 48_000, None))),
        ("head", encode_signed_head(&samples::signed_head())),
        ("beacon", encode_beacon(&samples::beacon())),
        ("branch", encode_branch(&samples::branch())),
        ("link", encode_key_link(&samples::link())),
        ("override", encode_override(&samples::by_hand(Some(b"body")))),
        ("certificate", encode_certificate(&samples::certificate())),
    ];
    let shown: String =
        lines.into_iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ledger/messages.hex");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(path).unwrap());
}

#[test]
fn an_empty_body_is_not_a_retired_one() {
    let live = samples::record("a", 1, Some(Vec::new()));
    let retired = samples::record("a", 1, None);
    assert_ne!(encode_record(&live), encode_record(&retired));
}

#[test]
fn wrong_fields_are_named() {
    let good = proto::Record::from(&samples::record("a", 1, None));
    let cases = [
        (proto::Record { id: "A".into(), ..good.clone() }, WireError::Invalid("id")),
        (proto::Record { version: 0, ..good.clone() }, WireError::Invalid("version")),
        (proto::Record { version: u64::MAX, ..good.clone() }, WireError::Invalid("version")),
        (proto::Record { revision: u64::MAX, ..good.clone() }, WireError::Invalid("revision")),
        (
            proto::Record { data: Some(vec![0; (1 << 20) + 1].into()), ..good.clone() },
            WireError::TooLarge("data"),
        ),
    ];
    for (message, error) in cases {
        assert_eq!(Record::try_from(&message), Err(error));
    }
    let good = proto::SignedHead::from(&samples::signed_head());
    let headless = proto::SignedHead { head: None, ..good.clone() };
    assert_eq!(SignedHead::try_from(&headless), Err(WireError::Missing("head")));
    let short = proto::SignedHead { key: vec![1; 31].into(), ..good.clone() };
    assert_eq!(SignedHead::try_from(&short), Err(WireError::Invalid("key")));
    let head = good.head.clone().unwrap();
    let below = proto::Head { floor: head.revision + 1, ..head };
    let below = proto::SignedHead { head: Some(below), ..good };
    assert_eq!(SignedHead::try_from(&below), Err(WireError::Invalid("floor")));
}

#[test]
fn damaged_bytes_are_refused_or_different() {
    let by_hand = samples::by_hand(Some(b"body"));
    let bytes = encode_override(&by_hand);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        if let Ok(read) = decode_override(&damaged) {
            assert_ne!(read, by_hand, "byte {at} does not matter");
        }
    }
}

#[test]
fn unknown_fields_are_skipped() {
    let record = samples::record("a", 1, None);
    let mut bytes = encode_record(&record);
    bytes.extend_from_slice(&[0xf8, 0x07, 0x01]);
    assert_eq!(decode_record(&bytes), Ok(record));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_record(&bytes);
        let _ = decode_signed_head(&bytes);
        let _ = decode_beacon(&bytes);
        let _ = decode_branch(&bytes);
        let _ = decode_key_link(&bytes);
        let _ = decode_override(&bytes);
        let _ = decode_certificate(&bytes);
    }

    #[test]
    fn messages_with_arbitrary_fields_never_panic(
        id in ".{0,5}",
        numbers in any::<[u64; 4]>(),
        data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
    ) {
        let message = proto::Record {
            id,
            version: numbers[0],
            revision: numbers[1],
            created_ms: numbers[2],
            changed_ms: numbers[3],
            data: data.map(Into::into),
        };
        if let Ok(record) = Record::try_from(&message) {
            prop_assert_eq!(proto::Record::from(&record).encode_to_vec(), message.encode_to_vec());
        }
    }
}

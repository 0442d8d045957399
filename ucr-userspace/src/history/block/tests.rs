//! Blocks come back as they were, and never as anything else.

use proptest::prelude::*;

use super::*;
use crate::history::{
    entry::{Gone, Past},
    samples::{gone, past},
};

fn encode<T: Kept>(entries: &[T]) -> Vec<u8> {
    let mut encoder = Encoder::new().expect("an encoder");
    for entry in entries {
        assert_eq!(encoder.push(entry).expect("encoded"), Pushed::Kept);
    }
    encoder.finish::<T>().expect("encoded").map(|block| block.bytes).unwrap_or_default()
}

fn read<T: Kept>(bytes: &[u8]) -> Vec<T> {
    decode(bytes).expect("decoded")
}

/// A block around any payload, with a checksum that is right.
fn forged(entries: u32, claimed: u32, payload: &[u8]) -> Vec<u8> {
    let compressed = zstd::bulk::compress(payload, LEVEL).expect("compressed");
    let mut bytes = vec![VERSION, Kind::Gone.number()];
    bytes.extend_from_slice(&entries.to_le_bytes());
    bytes.extend_from_slice(&claimed.to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, &compressed).to_le_bytes());
    bytes.extend_from_slice(&compressed);
    bytes
}

proptest! {
    #[test]
    fn closed_sockets_come_back_as_they_were(entries in prop::collection::vec(gone(), 1..40)) {
        prop_assert_eq!(read::<Gone>(&encode(&entries)), entries);
    }

    #[test]
    fn events_come_back_as_they_were(entries in prop::collection::vec(past(), 1..40)) {
        prop_assert_eq!(read::<Past>(&encode(&entries)), entries);
    }

    #[test]
    fn a_flipped_bit_is_an_error(
        entries in prop::collection::vec(gone(), 1..10), at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut bytes = encode(&entries);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(decode::<Gone>(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_an_addition_is_an_error(
        entries in prop::collection::vec(past(), 1..10), at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&entries);
        let cut = at.index(bytes.len());
        prop_assert!(decode::<Past>(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert!(decode::<Past>(&bytes).is_err());
    }

    #[test]
    fn a_payload_of_any_bytes_is_no_reason_to_panic(
        payload in prop::collection::vec(any::<u8>(), 0..400), entries in 0..50_u32,
    ) {
        let claimed = u32::try_from(payload.len()).expect("short");
        let _any = decode::<Gone>(&forged(entries, claimed, &payload));
    }
}

#[test]
fn every_flipped_byte_is_an_error() {
    let bytes = encode(&crate::history::samples::closed_sockets(20));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x55;
        assert!(decode::<Gone>(&changed).is_err(), "byte {at} of {}", bytes.len());
    }
}

#[test]
fn a_block_claims_no_more_than_any_has() {
    let entries = u32::try_from(MAX_ENTRIES).expect("fits") + 1;
    let payload = u32::try_from(MAX_PAYLOAD).expect("fits") + 1;
    for (entries, claimed) in [(entries, 4), (1, payload), (u32::MAX, u32::MAX)] {
        let refused = decode::<Gone>(&forged(entries, claimed, &[0; 4]));
        assert!(matches!(refused, Err(BlockError::TooLarge { .. })), "{refused:?}");
    }
}

#[test]
fn a_payload_longer_than_it_claims_is_not_decompressed() {
    let refused = decode::<Gone>(&forged(0, 4, &[0; 100_000]));
    assert!(matches!(refused, Err(BlockError::Decompress(_))), "{refused:?}");
    let refused = decode::<Gone>(&forged(0, 90, &[0; 4]));
    assert!(matches!(refused, Err(BlockError::Length { promised: 90, found: 4 })), "{refused:?}");
    let refused = decode::<Gone>(&forged(0, 5, &[0; 5]));
    assert!(matches!(refused, Err(BlockError::LeftOver(5))), "{refused:?}");
}

#[test]
fn kinds_and_versions_are_not_mistaken() {
    let mut bytes = encode(&crate::history::samples::closed_sockets(1));
    assert!(matches!(decode::<Past>(&bytes), Err(BlockError::Kind(1))));
    bytes[0] = 2;
    let sum = checksum(&bytes[..CHECKSUM_AT], &bytes[HEADER_LEN..]);
    bytes[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(decode::<Gone>(&bytes), Err(BlockError::Version(2))));
}

#[test]
fn a_block_is_full_before_it_cannot_be_read() {
    let mut entries = crate::history::samples::closed_sockets(MAX_ENTRIES);
    for (n, entry) in entries.iter_mut().enumerate() {
        let path = format!("{n:x>1000}").into_bytes();
        let directory = |path| crate::model::Directory { path, whole: true };
        let (cwd, root) = (directory(path), directory(b"/".to_vec()));
        entry.directories = Some(crate::model::Directories { cwd, root });
    }
    let mut encoder = Encoder::new().expect("an encoder");
    let pushed = entries.iter().take_while(|e| encoder.push(*e).expect("encoded") == Pushed::Kept);
    let kept = pushed.count() + 1;
    let block = encoder.finish::<Gone>().expect("encoded").expect("not empty");
    assert!((500..MAX_ENTRIES).contains(&kept), "{kept}");
    assert_eq!(read::<Gone>(&block.bytes), entries[..kept]);
}

#[test]
fn the_format_is_that_of_the_files_that_there_are() {
    // Whoever changes what an entry is written as has to raise `VERSION`, and to go on reading these.
    let sum = |payload: Vec<u8>| (payload.len(), crc32fast::hash(&payload));
    let gone =
        sum(postcard::to_allocvec(&crate::history::samples::closed_socket(7)).expect("bytes"));
    let past = sum(postcard::to_allocvec(&crate::history::samples::event(7)).expect("bytes"));
    assert_eq!((gone, past), ((123, 0x8a8e_a63f), (28, 0x5b31_0191)));
}

#[test]
fn what_is_too_long_is_said_and_left_out() {
    let mut entry = crate::history::samples::closed_sockets(1).remove(0);
    entry.name = crate::model::UnixName::Pathname(vec![b'x'; MAX_VARIABLE + 1]);
    let mut encoder = Encoder::new().expect("an encoder");
    assert_eq!(encoder.push(&entry).expect("encoded"), Pushed::TooLong);
    assert_eq!(encoder.finish::<Gone>().expect("encoded"), None);
}

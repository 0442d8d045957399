//! The image format: round trips, and what hostile bytes do.

use std::path::Path;

use proptest::prelude::*;
use ucr::image::header::{HEADER_LEN, MAGIC, MAX_FILE_LEN, Version};
use ucr::image::validate::Problem;
use ucr::image::*;
use ucr::model::*;

use crate::internet::internet;
use crate::queues::unfinished;
use crate::support::*;

fn sample() -> Vec<u8> {
    encode(&everything(Path::new("/run/ucr"))).unwrap()
}

/// The file with another header, and the checksum that goes with it.
fn with_header(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let sum = crc32fast::hash(&[&file[..24], &file[HEADER_LEN..]].concat());
    file[24..28].copy_from_slice(&sum.to_le_bytes());
    file
}

fn with_payload(payload: &[u8]) -> Vec<u8> {
    let mut file = sample()[..HEADER_LEN].to_vec();
    file.extend_from_slice(payload);
    let length = u64::try_from(payload.len()).unwrap();
    with_header(file, 16, &length.to_le_bytes())
}

#[test]
fn an_image_survives_its_file() {
    let image = everything(Path::new("/run/ucr"));
    assert_eq!(decode(&encode(&image).unwrap()).unwrap(), image);
}

/// A file of each version that there was must still be read.
#[test]
fn each_version_is_still_read() {
    let first = include_bytes!("fixtures/1.0.ucr");
    assert_eq!(decode(first).unwrap(), everything(Path::new("/run/ucr")));
    let second = include_bytes!("fixtures/1.1.ucr");
    assert_eq!(decode(second).unwrap(), datagrams(Path::new("/run/ucr")));
    let third = include_bytes!("fixtures/2.0.ucr");
    assert_eq!(decode(third).unwrap(), unfinished(Path::new("/run/ucr")));
    let fourth = include_bytes!("fixtures/3.0.ucr");
    assert_eq!(decode(fourth).unwrap(), internet());
}

#[test]
fn the_header_is_where_the_documentation_says() {
    let file = sample();
    assert_eq!(&file[..8], b"\x89UCR\r\n\x1a\n");
    assert_eq!(&file[8..16], &[3, 0, 0, 0, 0, 0, 0, 0]);
    let payload = u64::try_from(file.len() - 28).unwrap();
    assert_eq!(file[16..24], payload.to_le_bytes());
    let sum = crc32fast::hash(&[&file[..24], &file[28..]].concat());
    assert_eq!(file[24..28], sum.to_le_bytes());
}

#[test]
fn each_way_of_being_wrong_has_its_own_error() {
    let good = sample();
    assert!(matches!(decode(b""), Err(DecodeError::Empty)));
    assert!(matches!(decode(&MAGIC[..3]), Err(DecodeError::TooShort { found: 3, needed: 28 })));
    assert!(matches!(decode(&good[..27]), Err(DecodeError::TooShort { found: 27, .. })));
    assert!(matches!(decode(b"hello"), Err(DecodeError::NotAnImage)));
    assert!(matches!(decode(&[0; 100]), Err(DecodeError::NotAnImage)));

    let newer = with_header(good.clone(), 8, &4u16.to_le_bytes());
    let found = Version { major: 4, minor: 0 };
    assert!(matches!(decode(&newer), Err(DecodeError::TooNew { found: f, .. }) if f == found));
    let newer = with_header(good.clone(), 10, &2u16.to_le_bytes());
    assert!(matches!(decode(&newer), Err(DecodeError::TooNew { .. })));
    let older = with_header(good.clone(), 8, &0u16.to_le_bytes());
    assert!(matches!(decode(&older), Err(DecodeError::TooOld { .. })));
    let flags = with_header(good.clone(), 12, &4u32.to_le_bytes());
    assert!(matches!(decode(&flags), Err(DecodeError::UnknownFlags { flags: 4 })));

    let promised = u64::try_from(good.len() - HEADER_LEN).unwrap();
    match decode(&good[..good.len() - 1]).unwrap_err() {
        DecodeError::LengthMismatch { promised: p, found } => {
            assert_eq!((p, found), (promised, promised - 1));
        }
        other => panic!("{other}"),
    }
    let longer = [good.as_slice(), &[0]].concat();
    let error = decode(&longer).unwrap_err();
    assert!(error.to_string().ends_with("(trailing bytes)"), "{error}");

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(decode(&flipped), Err(DecodeError::Checksum { .. })));
    assert!(matches!(decode(&with_payload(&[0xff; 40])), Err(DecodeError::Decode(_))));
    let left_over = with_payload(&[&good[HEADER_LEN..], &[0, 0]].concat());
    assert!(matches!(decode(&left_over), Err(DecodeError::LeftOver(2))));
    let huge = vec![0; usize::try_from(MAX_FILE_LEN).unwrap() + 1];
    assert!(matches!(decode(&huge), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn a_sequence_that_claims_more_than_there_is_is_refused() {
    // Five empty strings and numbers of the origin, then a claim of 2^62 processes.
    let mut payload = vec![0; 11];
    payload.extend_from_slice(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40]);
    assert!(matches!(decode(&with_payload(&payload)), Err(DecodeError::Decode(_))));
}

type Spoil = fn(&mut Image);

#[test]
fn contradictions_are_found_when_reading_and_refused_when_writing() {
    let path = SocketIndex(0);
    let wrong: &[(&str, Spoil)] = &[
        ("no process", |i| i.processes.clear()),
        ("pid 100 is there twice", |i| {
            i.processes.push(process(100, 1));
        }),
        ("command name of pid 100 has 65 bytes", |i| i.processes[0].comm = vec![b'x'; 65]),
        ("creator's command name has 65 bytes", |i| {
            let (pid, comm) = (Pid(1), vec![b'x'; 65]);
            i.sockets[0].creator = Some(Actor { pid, tid: pid, uid: 0, comm, cgroup: 1 });
        }),
        ("65537 processes are more", |i| i.processes = vec![process(1, 1); 65_537]),
        ("4194305 descriptors are more", |i| i.descriptors = vec![i.descriptors[0]; (4 << 20) + 1]),
        ("arguments are more", |i| i.processes[0].arguments = vec![Vec::new(); (4 << 20) + 1]),
        ("bytes of arguments are more", |i| {
            i.processes[0].arguments = vec![vec![b'x'; (32 << 20) + 1]];
        }),
        ("pid 0 is not possible", |i| i.processes.push(process(0, 1))),
        ("below zero", |i| i.descriptors[0].fd = -1),
        ("descriptor 41 of pid 100 is there twice", |i| {
            i.descriptors[0].fd = 41;
        }),
        ("belongs to pid 7", |i| i.descriptors[0].pid = Pid(7)),
        ("names socket 999", |i| {
            i.descriptors[0].socket = SocketIndex(999);
        }),
        ("no descriptor leads to it", |i| {
            i.descriptors.retain(|d| d.fd != 40);
        }),
        ("dgram socket, which cannot be a listener", |i| {
            i.sockets[0].socket_type = SocketType::Dgram;
        }),
        ("dgram socket, which cannot be accepted", |i| {
            let (a, b) = i.connections[0].ends().unwrap();
            for end in [a, b] {
                i.sockets[end.get()].socket_type = SocketType::Dgram;
            }
        }),
        ("which cannot be connected in one direction", |i| {
            let (sender, receiver) = i.connections[0].ends().unwrap();
            i.connections[0] = Connection::Datagram { sender, receiver };
        }),
        ("cookie 1001", |i| i.sockets[0].cookie = 1001),
        ("a socket that listens has no name", |i| {
            i.sockets[0].name = None;
        }),
        ("bound to no name", |i| name(i).name = UnixName::Unnamed),
        ("not possible", |i| {
            name(i).name = UnixName::Pathname(b"/a\0b".to_vec());
        }),
        ("directory", |i| name(i).directory = Some(b"/run".to_vec())),
        ("directory", |i| {
            name(i).name = UnixName::Pathname(b"relative".to_vec());
        }),
        ("socket file do not fit", |i| name(i).file = None),
        ("more than permission bits", |i| {
            name(i).file = Some(present(0o10000));
        }),
        ("mask 0x4", |i| i.sockets[0].shutdown = Shutdown(4)),
        ("mirror", |i| i.sockets[3].shutdown = Shutdown::SEND),
        ("status flags", |i| {
            i.sockets[0].status_flags = libc::O_APPEND;
        }),
        ("is connected, but in no connection", |i| {
            i.connections.truncate(5);
        }),
        ("more than one connection", |i| {
            i.connections.push(i.connections[0].clone());
        }),
        ("but not connected", |i| {
            i.sockets[2].role = Role::Unconnected;
        }),
        ("peer a stream", |i| {
            i.sockets[2].socket_type = SocketType::Seqpacket;
        }),
        ("a socket that was accepted has no name", |i| {
            i.sockets[3].name = None;
        }),
        ("does not listen", |i| through(i, 14)),
        ("names socket 999", |i| through(i, 999)),
        ("and the connection is of type stream", |i| through(i, 1)),
        ("and what was accepted from it is called", |i| {
            i.sockets[3].name = Some(abstract_name(b"another"));
        }),
        ("user or group id", |i| {
            let (pid, uid, gid) = (Pid(1), u32::MAX, 0);
            i.sockets[2].peer_credentials = Some(Credentials { pid, uid, gid });
        }),
        ("option 7 has a value of 0 bytes", |i| {
            i.sockets[0].options = vec![SocketOption { name: 7, value: Vec::new() }];
        }),
        ("option 7 is there twice", |i| {
            let option = SocketOption { name: 7, value: vec![1] };
            i.sockets[0].options = vec![option.clone(), option];
        }),
    ];
    fn name(image: &mut Image) -> &mut Bound {
        image.sockets[0].name.as_mut().unwrap()
    }
    fn through(image: &mut Image, index: u32) {
        if let Connection::Accepted { listener, .. } = &mut image.connections[0] {
            *listener = Some(SocketIndex(index));
        }
    }
    for (message, spoil) in wrong {
        let mut image = everything(Path::new("/run/ucr"));
        spoil(&mut image);
        let read = decode(&with_payload(&postcard::to_allocvec(&image).unwrap())).unwrap_err();
        assert!(read.to_string().contains(message), "{message:?} expected, found: {read}");
        assert!(matches!(read, DecodeError::Invalid(_)));
        assert!(matches!(encode(&image), Err(EncodeError::Invalid(_))), "{message}");
    }
    let mut image = everything(Path::new("/run/ucr"));
    image.sockets[path.get()].shutdown = Shutdown(4);
    let problem = Problem::ShutdownMask(4);
    match encode(&image) {
        Err(EncodeError::Invalid(found)) => {
            assert_eq!(found, Invalid::Socket { index: 0, problem });
        }
        other => panic!("{other:?}"),
    }
}

/// Writes the fixture of today's version, when the format has changed before it was released.
#[test]
fn an_image_of_today_is_the_fixture() {
    let today = encode(&internet()).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/3.0.ucr");
    if std::env::var_os("UCR_WRITE_FIXTURE").is_some() {
        std::fs::write(path, &today).unwrap();
    }
    assert!(std::fs::read(path).unwrap() == today);
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(at in 0usize..10_000, bit in 0u8..8) {
        let mut file = sample();
        let at = at % file.len();
        file[at] ^= 1 << bit;
        prop_assert!(decode(&file).is_err());
    }

    #[test]
    fn any_truncation_is_found(at in 0usize..10_000) {
        let file = sample();
        prop_assert!(decode(&file[..at % file.len()]).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
    }

    /// Behind a good header and checksum, so that the decoder and the validation are reached.
    #[test]
    fn no_payload_panics(
        change in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let unfinished = encode(&unfinished(Path::new("/run/ucr"))).unwrap();
        let file = match change.len() % 3 {
            0 => sample(),
            1 => unfinished,
            _ => encode(&internet()).unwrap(),
        };
        let mut payload = file[HEADER_LEN..].to_vec();
        for (at, byte) in change {
            let at = at % payload.len();
            payload[at] = byte;
        }
        if let Ok(image) = decode(&with_payload(&payload)) {
            prop_assert_eq!(decode(&encode(&image).unwrap()).unwrap(), image);
        }
    }

    #[test]
    fn abstract_names_and_directories_survive(
        name in proptest::collection::vec(any::<u8>(), 0..=107),
        path in proptest::collection::vec(1u8..=255, 1..=108),
    ) {
        let mut builder = Builder::new();
        builder.listener(SocketType::Stream, abstract_name(&name));
        let name = UnixName::Pathname(path);
        let directory = name.is_relative_path().then(|| b"/somewhere".to_vec());
        let bound = Bound { name, directory, root: None, file: Some(SocketFile::Deleted) };
        builder.listener(SocketType::Seqpacket, bound);
        prop_assert_eq!(&decode(&encode(&builder.0).unwrap()).unwrap(), &builder.0);
    }
}

//! The options of internet sockets: `docs/OPTIONS.md` says what the table says, and whatever the running kernel takes
//! and tells is in it, or left out for a reason.

use std::os::fd::{AsFd as _, BorrowedFd};

use ucr::image::InetOption;
use ucr::model::inet::{Family, Over, Protocol};
use ucr::model::inet_options::{LEFT_OUT, TABLE, When, known};
use ucr::process::inet;
use ucr::sys::sockopt;

use crate::support::is_documented;

const LEVELS: [(i32, &str); 4] = [
    (libc::SOL_IP, "IPPROTO_IP"),
    (libc::SOL_IPV6, "IPPROTO_IPV6"),
    (libc::SOL_TCP, "IPPROTO_TCP"),
    (libc::SOL_UDP, "IPPROTO_UDP"),
];

fn section() -> String {
    let level = |level: i32| {
        LEVELS.iter().find(|(known, _)| *known == level).map_or("?", |(_, name)| *name)
    };
    let mut text = "\n| level | number | option | set again |\n|---|---|---|---|\n".to_owned();
    for option in TABLE {
        let when = match option.when {
            When::First => "before `bind`",
            When::Opened => "after `listen`",
            When::Last => "last",
        };
        let (number, name) = (option.number, option.name);
        let line = format!("| {} | {number} | {name} | {when} |\n", level(option.level));
        text += &line;
    }
    text += "\n| level | number | left out | why |\n|---|---|---|---|\n";
    for (of, number, name, why) in LEFT_OUT {
        let line = format!("| {} | {number} | {name} | {why} |\n", level(*of));
        text += &line;
    }
    text + "\n"
}

#[test]
fn the_document_says_what_the_table_has() {
    is_documented("OPTIONS.md", "internet options", &section());
}

#[test]
fn nothing_is_in_both_lists() {
    for (level, number, name, _) in LEFT_OUT {
        assert!(known(*level, *number).is_none(), "{name}");
    }
    let mut all: Vec<_> = TABLE.iter().map(|option| (option.level, option.number)).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), TABLE.len(), "an option is there twice");
}

/// Other values than the one that was read: of a flag, of a number, of a name.
fn others(old: &[u8]) -> Vec<Vec<u8>> {
    let first = |number: i32| {
        let mut new = old.to_vec();
        if let Some((head, _)) = new.split_first_chunk_mut::<4>() {
            *head = number.to_ne_bytes();
        }
        new
    };
    let mut all: Vec<_> = [0, 1, 2, 3, 7, 100, 8_000, 2_000_000].map(first).to_vec();
    all.extend([vec![1], vec![0], vec![9], b"reno".to_vec(), b"cubic".to_vec()]);
    all.extend([1, 0, 5].map(|number: i32| number.to_ne_bytes().to_vec()));
    // Keys, and headers of IPv6 with nothing but padding.
    all.extend([vec![7; 16], vec![7; 32], vec![0, 0, 1, 4, 0, 0, 0, 0]]);
    all
}

#[test]
fn whatever_this_kernel_takes_and_tells_is_listed() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let (mut missing, mut changed) = (Vec::new(), 0);
    for protocol in [Protocol::Udp, Protocol::UdpLite, Protocol::Tcp] {
        for family in [Family::V4, Family::V6] {
            let kind = Over(protocol, family);
            let Ok(_) = inet::create(family, protocol) else {
                // A kernel without UDP-Lite.
                assert_eq!(protocol, Protocol::UdpLite, "{kind}");
                continue;
            };
            for (level, level_name) in LEVELS {
                for number in 0..=255 {
                    let Some(value) = change(family, protocol, level, number) else { continue };
                    changed += 1;
                    let is_out = LEFT_OUT.iter().any(|out| (out.0, out.1) == (level, number));
                    match known(level, number) {
                        Some(_) => comes_back(family, protocol, level, number, value),
                        None if is_out => {}
                        None => missing.push(format!("{kind}: {level_name} {number}: {value:?}")),
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "not listed:\n{}", missing.join("\n"));
    // Or nothing was tried at all.
    assert!(changed > 100, "{changed}");
}

/// Sets an option of a new socket to something else than it is; what it is then. `None`: nobody can.
fn change(family: Family, protocol: Protocol, level: i32, number: i32) -> Option<Vec<u8>> {
    let new = || inet::create(family, protocol).unwrap();
    let get =
        |socket: BorrowedFd<'_>| sockopt::get_at(socket, level, number, sockopt::MAX_LEN).ok();
    let old = get(new().as_fd())?;
    others(&old).into_iter().find_map(|value| {
        let socket = new();
        sockopt::set_at(socket.as_fd(), level, number, &value).ok()?;
        get(socket.as_fd()).filter(|now| *now != old)
    })
}

/// What was read, set on another new socket, is read again.
fn comes_back(family: Family, protocol: Protocol, level: i32, number: i32, value: Vec<u8>) {
    let option = InetOption { level, number, value };
    let socket = inet::create(family, protocol).unwrap();
    let name = known(level, number).map_or("?", |known| known.name);
    let kind = Over(protocol, family);
    if known(level, number).is_some_and(|known| known.when == When::Opened) {
        return;
    }
    inet::set(socket.as_fd(), &option).unwrap_or_else(|error| panic!("{kind}: {name}: {error}"));
    let again = sockopt::get_at(socket.as_fd(), level, number, sockopt::MAX_LEN).unwrap();
    assert_eq!(again, option.value, "{kind}: {name}");
}

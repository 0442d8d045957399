//! Every way in which the two sides may differ is seen, and every way in which they only speak
//! differently is not.

use proptest::prelude::*;
use ucr_common::{name::RawName, record::FLAG_AUTOBOUND};
use zerocopy::FromZeros as _;

use super::*;

const HERE: u32 = 100;
const ELSEWHERE: u32 = 200;
const CONNECTED: u32 = 1;

fn here() -> BTreeSet<u32> {
    BTreeSet::from([HERE])
}

fn id(n: u64) -> SocketId {
    SocketId { sk: 0x1000 * n, cookie: n, inode: 500 + n }
}

fn name(bytes: &[u8]) -> RawName {
    let mut name = RawName::UNNAMED;
    name.bytes[..bytes.len()].copy_from_slice(bytes);
    name.len = u32::try_from(bytes.len()).expect("short");
    name
}

fn socket(n: u64, change: impl FnOnce(&mut Record)) -> Record {
    let mut record = Record::new_zeroed();
    record.socket = id(n);
    record.netns = HERE;
    (record.family, record.socket_type) = (1, 1);
    record.state = UNCONNECTED;
    change(&mut record);
    record
}

fn pair(a: u64, b: u64) -> [Record; 2] {
    [(a, b), (b, a)].map(|(own, other)| {
        socket(own, |record| {
            record.state = CONNECTED;
            record.peer = id(other);
        })
    })
}

/// A pair, a listener with a name and an embryo, and the embryo's client.
fn world() -> Vec<Record> {
    let mut world = pair(1, 2).to_vec();
    world.push(socket(3, |listener| {
        listener.state = LISTENING;
        listener.backlog = 8;
        listener.name = name(b"/run/x");
    }));
    world.push(socket(4, |embryo| {
        embryo.state = CONNECTED;
        embryo.socket.inode = 0;
        embryo.peer = id(5);
        embryo.listener = id(3);
        embryo.name = name(b"/run/x");
    }));
    world.push(socket(5, |client| {
        client.state = CONNECTED;
        client.peer = SocketId { inode: 0, ..id(4) };
    }));
    world
}

fn found(ledger: &[Record], kernel: &[Record]) -> Vec<Discrepancy> {
    audit(ledger, kernel, &here()).discrepancies
}

fn assert_same(ledger: &[Record], kernel: &[Record]) {
    assert_eq!(found(ledger, kernel), []);
}

/// The fields of the only discrepancy, which is about this socket.
fn fields(ledger: &[Record], kernel: &[Record], n: u64) -> Vec<Field> {
    let found = found(ledger, kernel);
    let [Discrepancy { sk, kind: Kind::Wrong(differences), .. }] = found.as_slice() else {
        panic!("one socket is wrong: {found:?}");
    };
    assert_eq!(*sk, id(n).sk);
    differences.iter().map(|difference| difference.field).collect()
}

#[test]
fn two_equal_sides_agree() {
    let audit = audit(&world(), &world(), &here());
    assert_eq!((audit.compared, audit.discrepancies.len()), (5, 0));
    assert_eq!((audit.unborn, audit.unvisited), (0, 0));
}

type Change = fn(&mut Record);

/// A change of each field, of a record of [`world`] by its place there.
const CHANGES: [(Field, usize, Change); 15] = [
    (Field::Inode, 0, |record| record.socket.inode += 1),
    (Field::Inode, 3, |embryo| embryo.socket.inode = 9),
    (Field::Type, 0, |record| record.socket_type = 5),
    (Field::State, 2, |listener| listener.state = UNCONNECTED),
    (Field::Name, 2, |listener| listener.name.bytes[1] = b'R'),
    (Field::Name, 4, |client| client.name = name(b"\0")),
    (Field::Peer, 0, |record| record.peer = SocketId::NONE),
    (Field::Peer, 1, |record| record.flags = FLAG_PEER_CLOSED),
    (Field::Peer, 2, |listener| listener.peer = id(1)),
    (Field::Listener, 3, |embryo| embryo.listener = SocketId::NONE),
    (Field::Shutdown, 4, |client| client.shutdown = 1),
    (Field::Backlog, 2, |listener| listener.backlog = 9),
    (Field::Netns, 1, |record| record.netns = ELSEWHERE),
    (Field::History, 0, |record| record.bound_at = 7),
    (Field::History, 4, |client| client.flags = FLAG_PAIRING),
];

#[test]
fn a_change_of_any_field_is_seen_and_named() {
    for (field, place, change) in CHANGES {
        let mut ledger = world();
        change(&mut ledger[place]);
        let n = u64::try_from(place).expect("small") + 1;
        let seen = fields(&ledger, &world(), n);
        assert_eq!(seen, [field]);
    }
}

#[test]
fn both_values_are_told() {
    let mut ledger = world();
    ledger[2].state = UNCONNECTED;
    ledger[2].name = name(b"\0evil\n");
    let told = found(&ledger, &world()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            "wrong sock 0x3000 cookie 3, state: ledger 7, kernel 10, name: ledger @evil\\x0a, kernel /run/x"
        ]
    );
}

#[test]
fn a_record_too_few_is_missing_and_one_too_many_is_stale() {
    let lone = socket(9, |_| {});
    assert_eq!(found(&[], &[lone]), [Discrepancy { sk: 0x9000, cookie: 9, kind: Kind::Missing }]);
    assert_eq!(found(&[lone], &[]), [Discrepancy { sk: 0x9000, cookie: 9, kind: Kind::Stale }]);
}

#[test]
fn another_cookie_at_the_same_address_is_another_socket() {
    let old = socket(9, |record| record.socket.cookie = 8);
    let new = socket(9, |_| {});
    let kinds: Vec<Kind> = found(&[old], &[new]).into_iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::Stale, Kind::Missing]);
}

#[test]
fn a_cookie_that_the_ledger_does_not_know_is_no_disagreement() {
    let mut ledger = world();
    for record in &mut ledger {
        for id in [&mut record.socket, &mut record.peer, &mut record.listener] {
            id.cookie = 0;
        }
    }
    assert_same(&ledger, &world());
}

#[test]
fn a_peer_that_has_closed_is_no_peer_however_it_is_noted() {
    let [mut survivor, _] = pair(1, 2);
    survivor.shutdown = 3;
    let kernel = [survivor];
    for note in [
        (|record| record.peer.sk = 0) as Change,
        |record| record.flags = FLAG_PEER_CLOSED,
        |record| record.flags = FLAG_PEER_CLOSED | FLAG_AUTOBOUND,
        |record| record.peer = SocketId::NONE,
        |_| {},
    ] {
        let mut ledger = survivor;
        note(&mut ledger);
        assert_same(&[ledger], &kernel);
    }
    // The address of the peer is another socket's by now, on either side.
    let stranger = socket(2, |record| {
        record.socket.cookie = 77;
        record.socket.inode = 777;
    });
    assert_same(&[survivor, stranger], &[survivor, stranger]);
}

#[test]
fn a_living_peer_of_another_identity_is_wrong() {
    let [one, two] = pair(1, 2);
    let third = socket(3, |_| {});
    let mut mistaken = one;
    mistaken.peer = id(3);
    assert_eq!(fields(&[mistaken, two, third], &[one, two, third], 1), [Field::Peer]);
}

#[test]
fn a_peer_is_known_by_what_it_has_become() {
    // Noted as an embryo; accepted since.
    let [mut client, server] = pair(1, 2);
    client.peer.inode = 0;
    client.peer.cookie = 0;
    assert_same(&[client, server], &pair(1, 2));
}

#[test]
fn a_listener_is_compared_only_while_the_kernel_knows_it() {
    let mut kernel = world();
    kernel[3].listener = SocketId::NONE;
    assert_same(&world(), &kernel);
    // It died: its embryo is about to.
    let mut kernel = world();
    kernel.remove(2);
    let mut ledger = world();
    ledger.remove(2);
    ledger[2].listener = SocketId::NONE;
    assert_same(&ledger, &kernel);
}

#[test]
fn the_unborn_are_counted_apart() {
    let unborn = socket(9, |record| record.socket.inode = 0);
    let audit = audit(&world(), &[world(), vec![unborn]].concat(), &here());
    assert_eq!((audit.unborn, audit.discrepancies.len()), (1, 0));
    // One that the ledger has is compared like any other.
    let mut ledger = unborn;
    ledger.shutdown = 1;
    assert_eq!(fields(&[ledger], &[unborn], 9), [Field::Shutdown]);
    // A socket with an inode is born; so is an embryo whose client has closed.
    for born in [
        (|record| record.socket.inode = 1) as Change,
        |record| record.peer = id(77),
        |record| record.state = CONNECTED,
    ] {
        let mut record = unborn;
        born(&mut record);
        assert_eq!(found(&[], &[record]).len(), 1);
    }
}

#[test]
fn what_was_not_visited_is_counted_apart() {
    let afar = socket(9, |record| record.netns = ELSEWHERE);
    let outcome = audit(&[afar], &[], &here());
    assert_eq!((outcome.unvisited, outcome.discrepancies.len()), (1, 0));
    // A peer in such a namespace, reached by a path, is as good as the kernel's pointer to it.
    let [own, mut other] = pair(1, 2);
    other.netns = ELSEWHERE;
    assert_same(&[own, other], &[own]);
    let [mut mistaken, third] = [own, socket(3, |record| record.netns = ELSEWHERE)];
    mistaken.peer = id(3);
    assert_eq!(fields(&[mistaken, other, third], &[own], 1), [Field::Peer]);
}

proptest! {
    /// Worlds of many pairs, in any order: alike but for one record, that one is named.
    #[test]
    fn exactly_what_was_changed_is_named(
        pairs in 1_u64..20,
        victim in any::<prop::sample::Index>(),
        turn in any::<prop::sample::Index>(),
        change in 0_usize..4,
    ) {
        let kernel: Vec<Record> = (0..pairs).flat_map(|n| pair(2 * n + 1, 2 * n + 2)).collect();
        let mut ledger = kernel.clone();
        let place = victim.index(ledger.len());
        let sk = ledger[place].socket.sk;
        let expected = match change {
            0 => { ledger.remove(place); vec!["missing"] }
            1 => { ledger[place].shutdown ^= 3; vec!["wrong"] }
            2 => { ledger[place].socket.cookie += 1000; vec!["missing", "stale"] }
            _ => vec![],
        };
        let len = ledger.len().max(1);
        ledger.rotate_left(turn.index(len));
        let found = found(&ledger, &kernel);
        let mut own: Vec<&str> =
            found.iter().filter(|found| found.sk == sk).map(|found| found.kind.name()).collect();
        own.sort_unstable();
        prop_assert_eq!(own, expected.clone());
        // Besides, at most its peer, which has lost it.
        let others: Vec<&Discrepancy> = found.iter().filter(|found| found.sk != sk).collect();
        let of_peer = usize::from(matches!(change, 0 | 2));
        prop_assert_eq!(others.len(), of_peer, "{:?}", others);
    }
}

/// An internet socket of a namespace that no pass gets into.
fn inet(change: impl FnOnce(&mut Record)) -> Record {
    use ucr_common::inet::{AF_INET, RawEnd, RawEnds};
    socket(9, |record| {
        (record.family, record.protocol, record.state) = (AF_INET, 6, CONNECTED);
        record.netns = HERE + 77;
        let end = |byte, port| RawEnd { address: [byte; 16], port, interface: 0 };
        record.name = RawEnds { local: end(1, 80), remote: end(2, 999) }.to_name();
        change(record);
    })
}

#[test]
fn internet_sockets_are_compared_by_their_ends_wherever_they_are() {
    let found = |known: &[Record], real: &[Record]| {
        let mut audit = audit(known, real, &BTreeSet::new());
        audit.discrepancies.pop().map(|found| found.kind)
    };
    let fields = |change: fn(&mut Record)| match found(&[inet(|_| {})], &[inet(change)]) {
        Some(Kind::Wrong(differences)) => differences.into_iter().map(|one| one.field).collect(),
        None => Vec::new(),
        Some(other) => panic!("{other:?}"),
    };
    assert_eq!(fields(|_| {}), []);
    assert_eq!(fields(|real| real.protocol = 17), [Field::Protocol]);
    assert_eq!(fields(|real| real.name.bytes[0] = 7), [Field::Local]);
    assert_eq!(fields(|real| real.name.bytes[24] = 7), [Field::Remote]);
    assert_eq!(fields(|real| real.state = 8), [Field::State]);
    assert_eq!(found(&[inet(|_| {})], &[]), Some(Kind::Stale));
    assert_eq!(found(&[], &[inet(|_| {})]), Some(Kind::Missing));
    let closed = |byte| inet(|record| (record.state, record.name.bytes[24]) = (UNCONNECTED, byte));
    assert_eq!(found(&[closed(3)], &[closed(4)]), None);
}

//! What is left when a connection has ended, and its socket is still there.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
};

use ucr_tests::{Need, Victim, needs, ucr::REFUSED, wait, world::hex};

use super::{anew, bound, get, set, world};
use crate::dumping::dump;

/// `TCP_CLOSE`.
const CLOSED: &str = "07";

/// A connection that was accepted; the listener, its address, the accepted socket and the other end.
fn accepted(victim: &mut Victim, kind: &str, at: &str) -> (i32, String, i32, TcpStream) {
    let (listener, name) = bound(victim, kind, at);
    victim.ask(&format!("listen {listener} 7"));
    let client = TcpStream::connect(&name).expect("connect");
    (listener, name, victim.accept(listener), client)
}

/// The other end closes, then this one.
fn ends(victim: &mut Victim, fd: i32, client: TcpStream) {
    drop(client);
    let state =
        |victim: &mut Victim| get(victim, fd, libc::SOL_TCP, libc::TCP_INFO)[..2].to_owned();
    wait::until("its FIN", || (state(victim) == "08").then_some(()));
    victim.ask(&format!("shutdown {fd} write"));
    wait::until("the end", || (state(victim) == CLOSED).then_some(()));
}

#[test]
fn its_socket_comes_back_beside_the_listener_whose_address_it_had() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    for (kind, at) in [("tcp", "127.0.0.1:0"), ("tcp6", "[::1]:0")] {
        let world = world();
        let mut victim = world.victim();
        let (listener, name, fd, client) = accepted(&mut victim, kind, at);
        ends(&mut victim, fd, client);
        let told = |victim: &mut Victim| {
            // Nothing more to be read, nothing more to be sent.
            [format!("recv {fd}"), format!("send {fd} more"), format!("ipeer {fd}")]
                .map(|order| victim.tell(&order))
        };
        let before = told(&mut victim);

        let mut victim = anew(&world, victim);
        assert_eq!(told(&mut victim), before, "{kind}");
        let mut other = TcpStream::connect(&name).expect("connect again");
        let fresh = victim.accept(listener);
        other.write_all(b"hello").expect("write");
        assert_eq!(victim.ask(&format!("recv {fresh}")), "hello");
    }
}

#[test]
fn what_it_has_left_to_be_read_is_refused_by_name() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (_, _, fd, mut client) = accepted(&mut victim, "tcp", "127.0.0.1:0");
    client.write_all(b"last words").expect("write");
    client.shutdown(Shutdown::Write).expect("end");
    ends(&mut victim, fd, client);
    let refused = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED);
    let _said = refused.complains("what a connection that has ended has left to be received");
    assert_eq!(victim.ask(&format!("recv {fd}")), "last words");
}

#[test]
fn a_datagram_that_would_be_cut_into_pieces_is_refused_while_it_is_not_finished() {
    if !needs::met(&[Need::Root]) {
        return;
    }
    let world = world();
    let mut victim = world.victim();
    let (fd, to) = bound(&mut victim, "udp", "127.0.0.1:0");
    set(&mut victim, fd, libc::SOL_UDP, libc::UDP_SEGMENT, 1200);
    victim.ask(&format!("imore {fd} {to} {}", hex(&[7; 3600])));
    let refused = dump(&world, &victim, &world.path("image"), &[]).ended(REFUSED);
    let _said = refused.complains("is to be cut into pieces (UDP_SEGMENT)");
}

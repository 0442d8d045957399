//! Who is at the other end of a connection, of TCP or of UDP: whose ends are the same, the other way round. Pure.

use core::net::IpAddr;

use foldhash::HashMap;

use super::Tracked;
use crate::model::inet::{Endpoint, Protocol};

/// Both ends as one of the two sockets has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Its own end.
    pub local: Endpoint,
    /// The other one.
    pub remote: Endpoint,
}

impl Connection {
    /// As the socket at the other end has it, if that is in the same network namespace.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self { local: self.remote, remote: self.local, ..self }
    }

    /// That of a tracked socket; `None` if it has no other end.
    fn of(socket: &Tracked) -> Option<Self> {
        let inet = socket.inet?;
        let (protocol, netns) = (inet.kind.0, socket.netns);
        Some(Self { protocol, netns, local: inet.local?, remote: inet.remote? })
    }

    /// What both sockets agree on: not the interface, nor whether IPv4 is spelled as IPv6.
    fn ends(&self) -> Ends {
        let ends = [self.local, self.remote].map(|end| (end.unmapped().address, end.port));
        (self.protocol, ends)
    }

    /// Whether it never leaves its network namespace.
    fn is_inside(&self) -> bool {
        let is_loopback = |end: Endpoint| end.unmapped().address.is_loopback();
        is_loopback(self.local) || is_loopback(self.remote)
    }
}

type Ends = (Protocol, [(IpAddr, u16); 2]);

/// Tracked internet sockets by their ends.
#[derive(Debug, Default)]
pub struct Pairs<'a>(HashMap<Ends, Vec<&'a Tracked>>);

impl<'a> FromIterator<&'a Tracked> for Pairs<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Tracked>>(sockets: I) -> Self {
        let mut pairs = Self::default();
        for socket in sockets {
            if let Some(connection) = Connection::of(socket) {
                pairs.0.entry(connection.ends()).or_default().push(socket);
            }
        }
        pairs
    }
}

impl<'a> Pairs<'a> {
    /// The socket at the other end, if it is among these: in the same network namespace, from where packets do not go
    /// elsewhere then; else in another one, unless the socket there has its other end at home. Where there are several,
    /// nobody can tell (twins of one interface each, or of one namespace each).
    #[must_use]
    pub fn other_end(&self, connection: &Connection) -> Option<&'a Tracked> {
        let at = |ends: &Ends| self.0.get(ends).map_or(&[][..], Vec::as_slice);
        let found = at(&connection.mirrored().ends());
        let is_here = |socket: &&&Tracked| socket.netns == connection.netns;
        if found.iter().any(|socket| socket.netns == connection.netns) {
            return only(found.iter().filter(is_here)).copied();
        }
        if connection.is_inside() {
            return None;
        }
        let like_this = at(&connection.ends());
        let is_free = |there: &&&Tracked| like_this.iter().all(|own| own.netns != there.netns);
        only(found.iter().filter(is_free)).copied()
    }
}

/// What there is just one of.
fn only<T>(mut among: impl Iterator<Item = T>) -> Option<T> {
    among.next().filter(|_| among.next().is_none())
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::{super::inet::tests::tcp, *};

    fn connection(netns: u32, local: &str, remote: &str) -> Connection {
        let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().expect("an address"));
        Connection { protocol: Protocol::Tcp, netns, local: end(local), remote: end(remote) }
    }

    /// Address of the sock at the other end.
    fn found(sockets: &[Tracked], connection: &Connection) -> Option<u64> {
        sockets.iter().collect::<Pairs<'_>>().other_end(connection).map(|socket| socket.sk)
    }

    #[test]
    fn the_other_end_has_the_same_ends_the_other_way_round() {
        let client = connection(1, "10.0.0.2:999", "10.0.0.1:80");
        let (own, other) =
            (tcp(1, "10.0.0.2:999", "10.0.0.1:80"), tcp(2, "10.0.0.1:80", "10.0.0.2:999"));
        assert_eq!(found(core::slice::from_ref(&own), &client), None);
        assert_eq!(found(&[own, other], &client), Some(2));
        assert_eq!(found(&[tcp(1, "10.0.0.1:80", "10.0.0.3:999")], &client), None);
        let mapped = connection(1, "[::ffff:10.0.0.2]:999", "[::ffff:10.0.0.1]:80");
        assert_eq!(found(&[tcp(1, "10.0.0.1:80", "10.0.0.2:999")], &mapped), Some(1));
    }

    #[test]
    fn its_own_namespace_comes_first_and_several_others_leave_it_open() {
        let [near, far, farther] = [1, 2, 3].map(|sk| tcp(sk, "10.0.0.1:80", "10.0.0.2:999"));
        let client = |netns| connection(netns, "10.0.0.2:999", "10.0.0.1:80");
        let all = [far, near, farther];
        assert_eq!(found(&all, &client(1)), Some(1));
        assert_eq!(found(&all, &client(3)), Some(3));
        assert_eq!(found(&all, &client(7)), None);
        assert_eq!(found(&all[..1], &client(7)), Some(2));
    }

    #[test]
    fn who_has_his_other_end_at_home_is_nobody_elses() {
        let client = |netns| connection(netns, "10.0.0.2:999", "10.0.0.1:80");
        let pair = [tcp(2, "10.0.0.1:80", "10.0.0.2:999"), {
            let mut own = tcp(3, "10.0.0.2:999", "10.0.0.1:80");
            own.netns = 2;
            own
        }];
        assert_eq!(found(&pair, &client(2)), Some(2));
        assert_eq!(found(&pair, &client(7)), None);
    }

    #[test]
    fn twins_in_one_namespace_are_not_told_apart() {
        let client = connection(1, "[fe80::2]:999", "[fe80::1]:80");
        let mut twins = [1, 2].map(|sk| tcp(sk, "[fe80::1]:80", "[fe80::2]:999"));
        twins[1].netns = 1;
        assert_eq!(found(&twins[..1], &client), Some(1));
        assert_eq!(found(&twins, &client), None);
    }

    #[test]
    fn loopback_is_each_namespaces_own() {
        let there = [tcp(2, "127.0.0.1:80", "127.0.0.1:999")];
        assert_eq!(found(&there, &connection(2, "127.0.0.1:999", "127.0.0.1:80")), Some(2));
        assert_eq!(found(&there, &connection(1, "127.0.0.1:999", "127.0.0.1:80")), None);
    }

    #[test]
    fn one_that_is_connected_to_itself_is_its_own_other_end() {
        let own = [tcp(1, "10.0.0.1:80", "10.0.0.1:80")];
        assert_eq!(found(&own, &connection(1, "10.0.0.1:80", "10.0.0.1:80")), Some(1));
    }
}

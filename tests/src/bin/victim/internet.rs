//! Orders about internet sockets. Addresses are as in `10.0.0.1:80`, data is in hexadecimal digits.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::{self, RecvFlags, SendFlags};
use ucr::{
    model::inet::{Endpoint, Family, Protocol},
    process::inet,
    sys::sockopt,
};
use ucr_tests::world::{hex, unhex};

use super::world::{Done, World, done, number};

/// Obeys one line, if it is one of these.
pub(crate) fn obey(world: &mut World, words: &[&str]) -> Option<Done> {
    Some(match words {
        ["inet", kind] => create(kind).map(|socket| world.keep(socket).to_string()),
        ["ibind", fd, at] => with(world, fd, at, |fd, at| Ok(net::bind(fd, &at)?)),
        ["iconnect", fd, to] => with(world, fd, to, |fd, to| Ok(net::connect(fd, &to)?)),
        ["isend", fd, to, data] => send(world, fd, to, data, SendFlags::empty()),
        // And more is to come.
        ["imore", fd, to, data] => send(world, fd, to, data, SendFlags::MORE),
        ["irecv", fd] => receive(world, fd),
        ["iname", fd] => world.with(fd, |fd| Ok(net::getsockname(fd)?)).and_then(shown),
        ["ipeer", fd] => match world.with(fd, |fd| Ok(net::getpeername(fd)?)) {
            Ok(Some(peer)) => shown(peer),
            Ok(None) => Err("no peer".to_owned()),
            Err(error) => Err(error),
        },
        ["iset", fd, level, option, value] => set(world, fd, level, option, value),
        ["iget", fd, level, option] => get(world, fd, level, option),
        ["ijoin", fd, group, interface] => join(world, fd, group, interface, None),
        ["ijoin", fd, group, interface, source] => {
            join(world, fd, group, interface, Some((libc::MCAST_JOIN_SOURCE_GROUP, source)))
        }
        ["iblock", fd, group, interface, source] => {
            join(world, fd, group, interface, Some((libc::MCAST_BLOCK_SOURCE, source)))
        }
        // Of those that share a port, this one gets all that comes.
        ["ichoose", fd, member] => number(member).and_then(|member| {
            let program = [(6, 0, 0, member)];
            let option = libc::SO_ATTACH_REUSEPORT_CBPF;
            world.with(fd, |fd| ucr::sys::filter::attach_at(fd, option, &program))?;
            done()
        }),
        _ => return None,
    })
}

fn create(kind: &str) -> Result<std::os::fd::OwnedFd, String> {
    let (protocol, family) = match kind {
        "udp" => (Protocol::Udp, Family::V4),
        "udp6" => (Protocol::Udp, Family::V6),
        "udplite" => (Protocol::UdpLite, Family::V4),
        "udplite6" => (Protocol::UdpLite, Family::V6),
        "tcp" => (Protocol::Tcp, Family::V4),
        "tcp6" => (Protocol::Tcp, Family::V6),
        _ => return Err(format!("`{kind}` is no kind of internet socket")),
    };
    inet::create(family, protocol).map_err(|error| super::world::text_of(&error))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address"))
}

fn with(
    world: &World,
    fd: &str,
    at: &str,
    call: impl FnOnce(std::os::fd::BorrowedFd<'_>, SocketAddr) -> io::Result<()>,
) -> Done {
    let at = address(at)?;
    world.with(fd, |fd| call(fd, at))?;
    done()
}

fn send(world: &World, fd: &str, to: &str, data: &str, flags: SendFlags) -> Done {
    let data = unhex(data)?;
    with(world, fd, to, |fd, to| Ok(net::sendto(fd, &data, flags, &to).map(drop)?))
}

/// Sender and data; waits for it.
fn receive(world: &World, fd: &str) -> Done {
    let mut buffer = vec![0; 1 << 16];
    let received = world.with(fd, |fd| Ok(net::recvfrom(fd, &mut buffer, RecvFlags::empty())?));
    let (_, length, from) = received?;
    let from = match from {
        Some(from) => shown(from)?,
        None => "nobody".to_owned(),
    };
    Ok(format!("{from} {}", hex(buffer.get(..length).unwrap_or_default())))
}

fn shown(address: net::SocketAddrAny) -> Done {
    let address = SocketAddr::try_from(address).map_err(|error| error.to_string())?;
    Ok(Endpoint::from(address).to_string())
}

fn set(world: &World, fd: &str, level: &str, option: &str, value: &str) -> Done {
    let (level, option, value) = (number(level)?, number(option)?, unhex(value)?);
    world.with(fd, |fd| sockopt::set_at(fd, level, option, &value))?;
    done()
}

fn get(world: &World, fd: &str, level: &str, option: &str) -> Done {
    let (level, option) = (number(level)?, number(option)?);
    world
        .with(fd, |fd| sockopt::get_at(fd, level, option, sockopt::MAX_LEN))
        .map(|value| hex(&value))
}

/// `struct group_req` or `struct group_source_req`.
fn join(
    world: &World,
    fd: &str,
    group: &str,
    interface: &str,
    source: Option<(i32, &&str)>,
) -> Done {
    let parse = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is no address"));
    let (group, interface) = (parse(group)?, number::<u32>(interface)?);
    let level = if group.is_ipv4() { libc::SOL_IP } else { libc::SOL_IPV6 };
    let mut request = [&interface.to_ne_bytes()[..], &[0; 4], &storage(group)].concat();
    let number = match source {
        None => libc::MCAST_JOIN_GROUP,
        Some((number, source)) => {
            request.extend(storage(parse(source)?));
            number
        }
    };
    world.with(fd, |fd| sockopt::set_at(fd, level, number, &request))?;
    done()
}

fn storage(address: IpAddr) -> Vec<u8> {
    let mut bytes = match address {
        IpAddr::V4(four) => [&[2, 0, 0, 0], &four.octets()[..]].concat(),
        IpAddr::V6(six) => [&[10, 0, 0, 0, 0, 0, 0, 0], &six.octets()[..]].concat(),
    };
    bytes.resize(128, 0);
    bytes
}

//! What traffic control has at an interface, by rtnetlink: the qdisc that filters of what comes and goes need, and
//! filters that are eBPF programs.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    Parseable as _,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
        TcOption,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The qdisc that has room for filters in both directions and does nothing itself.
const CLSACT: &str = "clsact";

/// Room for one answer of the kernel, in bytes: it fills up to 32 KiB at a time.
const ANSWER: usize = 64 << 10;

/// `tcm_ifindex`, `tcm_handle`, `tcm_parent`, `tcm_info` behind the family (`struct tcmsg`).
const HEADER: usize = 20;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;

/// `ETH_P_ALL`, which libc has as another type: filters of every protocol.
pub(super) const ALL_PROTOCOLS: u16 = 3;

/// A socket for questions about the network namespace that it was opened in.
pub(super) struct Traffic(Socket);

/// Which packets of an interface a filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Those that come.
    In,
    /// Those that go.
    Out,
}

impl Side {
    fn parent(self) -> TcHandle {
        let minor = match self {
            Self::In => TcHandle::MIN_INGRESS,
            Self::Out => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// Where a filter is among others: those of a lower number come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: u16,
    pub(super) handle: u32,
}

impl Place {
    fn info(self) -> u32 {
        (u32::from(self.priority) << 16) | u32::from(ALL_PROTOCOLS.to_be())
    }
}

/// A filter at an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) place: Place,
    /// `ETH_P_…` of the packets that it sees.
    pub(super) protocol: u16,
    /// Only the first chain, 0, is gone through unasked.
    pub(super) chain: u32,
    /// `bpf`, `u32`, `flower` …
    pub(super) kind: String,
    /// Name and number, if it is an eBPF program.
    pub(super) program: Option<(String, u32)>,
}

impl Traffic {
    pub(super) fn open() -> io::Result<Self> {
        Socket::new(NETLINK_ROUTE).map(Self)
    }

    /// Whether there is room for filters at an interface, whoever made it: also in an older qdisc, `ingress`.
    pub(super) fn has_room(&self, interface: u32) -> io::Result<bool> {
        let mut message = clsact(interface);
        message.attributes.clear();
        let question = RouteNetlinkMessage::GetQueueDiscipline(message);
        match self.ask(question, NLM_F_ACK, |_| Ok(())) {
            Ok(()) => Ok(true),
            // Such a queue was never made, or has nothing in it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes room for filters at an interface; `EEXIST` if there is already.
    pub(super) fn make_room(&self, interface: u32) -> io::Result<()> {
        let request = RouteNetlinkMessage::NewQueueDiscipline(clsact(interface));
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| Ok(()))
    }

    /// Takes it away, with all filters that are there.
    pub(super) fn remove_room(&self, interface: u32) -> io::Result<()> {
        let request = RouteNetlinkMessage::DelQueueDiscipline(clsact(interface));
        self.ask(request, NLM_F_ACK, |_| Ok(()))
    }

    /// All filters of an interface in one direction; none of one that is not there.
    pub(super) fn filters(&self, interface: u32, side: Side) -> io::Result<Vec<Filter>> {
        let question = about(interface, side.parent());
        let mut found = Vec::new();
        self.ask(RouteNetlinkMessage::GetTrafficFilter(question), NLM_F_DUMP, |answer| {
            if answer.kind == libc::RTM_NEWTFILTER {
                found.push(Filter::read(&answer.bytes)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Has a program see what comes to an interface; it says itself what becomes of it.
    pub(super) fn add(
        &self,
        interface: u32,
        place: Place,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let mut message = about(interface, Side::In.parent());
        message.header.handle = place.handle.into();
        message.header.info = place.info();
        let options = [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(name.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        message.attributes = vec![
            TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
            TcAttribute::Options(options.map(TcOption::Bpf).into()),
        ];
        let request = RouteNetlinkMessage::NewTrafficFilter(message);
        self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| Ok(()))
    }

    /// Takes a filter of that kind off.
    pub(super) fn remove(&self, interface: u32, place: Place) -> io::Result<()> {
        let mut message = about(interface, Side::In.parent());
        message.header.handle = place.handle.into();
        message.header.info = place.info();
        message.attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())];
        self.ask(RouteNetlinkMessage::DelTrafficFilter(message), NLM_F_ACK, |_| Ok(()))
    }

    fn ask(
        &self,
        question: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(Answer) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let mut buffer = Vec::with_capacity(ANSWER);
        loop {
            buffer.clear();
            self.0.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<Answer>::deserialize(rest).map_err(io::Error::other)?;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => take(answer)?,
                    NetlinkPayload::Done(_) => return Ok(()),
                    // Without a code it says that all is done.
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(code) => {
                                Err(io::Error::from_raw_os_error(code.get().wrapping_neg()))
                            }
                        };
                    }
                    _ => {}
                }
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                // Messages begin at multiples of four bytes.
                rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or(&[]);
            }
        }
    }
}

impl Filter {
    /// Reads what the kernel tells of a filter, whoever made it: the attributes of most kinds are of no interest, and
    /// the crate would refuse what it does not understand.
    fn read(message: &[u8]) -> io::Result<Self> {
        let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let header = TcHeader::parse(message).map_err(io::Error::other)?;
        let [high, low, ..] = header.info.to_be_bytes();
        let protocol = u16::try_from(header.info & 0xffff).unwrap_or_default();
        let mut filter = Self {
            place: Place {
                priority: u16::from_be_bytes([high, low]),
                handle: header.handle.into(),
            },
            protocol: u16::from_be(protocol),
            chain: 0,
            kind: String::new(),
            program: None,
        };
        for attribute in NlasIterator::new(message.get(HEADER..).ok_or_else(short)?) {
            let attribute = attribute.map_err(io::Error::other)?;
            let value = attribute.value();
            match attribute.kind() {
                TCA_KIND => {
                    let kind = value.strip_suffix(&[0]).unwrap_or(value);
                    filter.kind = String::from_utf8_lossy(kind).into_owned();
                }
                TCA_CHAIN => {
                    filter.chain = u32::from_ne_bytes(value.try_into().map_err(|_| short())?);
                }
                // Behind its kind.
                TCA_OPTIONS if filter.kind == TcFilterBpf::KIND => {
                    filter.program = program(value).map_err(io::Error::other)?;
                }
                _ => {}
            }
        }
        Ok(filter)
    }
}

fn program(options: &[u8]) -> Result<Option<(String, u32)>, DecodeError> {
    let (mut name, mut id) = (None, None);
    for option in NlasIterator::new(options) {
        match TcFilterBpfOption::parse(&option?)? {
            TcFilterBpfOption::ProgName(found) => name = Some(found),
            TcFilterBpfOption::ProgId(found) => id = Some(found),
            _ => {}
        }
    }
    Ok(name.zip(id))
}

fn clsact(interface: u32) -> TcMessage {
    let mut message = about(interface, TcHandle::CLSACT);
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.attributes = vec![TcAttribute::Kind(CLSACT.to_owned())];
    message
}

fn about(interface: u32, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(interface.cast_signed());
    message.header.parent = parent;
    message
}

/// A message of the kernel's as it came.
struct Answer {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, bytes: payload.to_owned() })
    }
}

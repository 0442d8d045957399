//! TCP connections that were brought back, held against the image. They are still locked: nothing moves.

use super::{Check, Field};
use crate::image::{Stream, Tcp, Urgent, Window};

fn urgent(tcp: &Tcp) -> String {
    let received = match tcp.urgent {
        Some(Urgent { number, progress }) => format!("{number} ({progress:?})"),
        None => "none".to_owned(),
    };
    match tcp.sent_urgent {
        Some(behind) => format!("{received}, own before {behind}"),
        None => received,
    }
}

impl Check<'_> {
    pub(super) fn tcp(&mut self, wanted: &Tcp, found: &Tcp) {
        self.stream("received", &wanted.received, &found.received);
        self.stream("sent", &wanted.sent, &found.sent);
        self.same("numbers that were never sent", &wanted.unsent, &found.unsent);
        let (agreed, made) = (wanted.agreed, found.agreed);
        self.same("largest segment", &agreed.mss, &made.mss);
        let scale = |scale: Option<(u8, u8)>| match scale {
            Some((theirs, ours)) => format!("{theirs} and {ours} bits"),
            None => "none".to_owned(),
        };
        self.same("window scaling", &scale(agreed.scale), &scale(made.scale));
        self.same("selective acknowledgements", &agreed.sack, &made.sack);
        self.same("time stamps", &agreed.timestamp.is_some(), &made.timestamp.is_some());
        if let (Some(before), Some(now)) = (agreed.timestamp, made.timestamp)
            && now.wrapping_sub(before).cast_signed() < 0
        {
            self.differs(Field::Connection("time stamp"), format!("{before} or later"), now);
        }
        let (buffers, made) = (wanted.buffers.settable(), found.buffers);
        self.same("send buffer", &buffers.send, &made.send);
        self.same("receive buffer", &buffers.receive, &made.receive);
        self.same("urgent byte", &urgent(wanted), &urgent(found));
        match (wanted.window, found.window) {
            (Some(wanted), Some(found)) => self.windows(wanted, found),
            (wanted, found) => {
                self.same("windows", &wanted.is_some(), &found.is_some());
            }
        }
    }

    fn windows(&mut self, wanted: Window, found: Window) {
        self.same("window of the other end", &wanted.send, &found.send);
        self.same("largest window of the other end", &wanted.most, &found.most);
        // Up to where the other end may send was said once, and can only grow.
        let edge = |window: Window| window.receive_update.wrapping_add(window.receive);
        let (wanted, found) = (edge(wanted), edge(found));
        if found.wrapping_sub(wanted).cast_signed() < 0 {
            self.differs(Field::Connection("own window"), format!("up to {wanted}"), found);
        }
    }

    fn stream(&mut self, what: &'static str, wanted: &Stream, found: &Stream) {
        let shown = |stream: &Stream| {
            let (length, sum) = (stream.data.len(), crc32fast::hash(&stream.data));
            format!("{length} bytes (CRC {sum:08x}) before number {}", stream.end)
        };
        self.same(what, &shown(wanted), &shown(found));
    }

    fn same<T: PartialEq + ToString>(&mut self, what: &'static str, wanted: &T, found: &T) {
        if wanted != found {
            self.differs(Field::Connection(what), wanted.to_string(), found.to_string());
        }
    }
}

//! Numbers as steps from the row before.

use super::entry::Identity;

/// Which way numbers are turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into steps.
    Pack,
    /// Back.
    Unpack,
}

/// The numbers of the row before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Last {
    /// When it closed or happened.
    pub stamp: Number,
    cookie: Number,
    inode: Number32,
    /// Its network namespace.
    pub netns: Number32,
    listener_cookie: Number,
    listener_inode: Number32,
}

/// A number that the next one is told as a step from, forwards or backwards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(u64);

/// The same, of 32 bits, so that no step leads out of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number32(u32);

impl Number {
    /// The number as a step from this one, or back; this one is the number then.
    pub fn step(&mut self, number: &mut u64, way: Way) {
        match way {
            Way::Pack => {
                // Small steps either way become small numbers, which are written in few bytes.
                let step = number.wrapping_sub(self.0).cast_signed();
                self.0 = *number;
                *number = ((step << 1) ^ (step >> 63)).cast_unsigned();
            }
            Way::Unpack => {
                let step = (*number >> 1) ^ (*number & 1).wrapping_neg();
                self.0 = self.0.wrapping_add(step);
                *number = self.0;
            }
        }
    }

    /// Each of several numbers as a step from this one.
    pub fn step_each<const N: usize>(self, numbers: [&mut Option<u64>; N], way: Way) {
        for number in numbers.into_iter().flatten() {
            Self(self.0).step(number, way);
        }
    }
}

impl Number32 {
    /// The number as a step from this one, or back; this one is the number then.
    pub fn step(&mut self, number: &mut u32, way: Way) {
        match way {
            Way::Pack => {
                let step = number.wrapping_sub(self.0).cast_signed();
                self.0 = *number;
                *number = ((step << 1) ^ (step >> 31)).cast_unsigned();
            }
            Way::Unpack => {
                let step = (*number >> 1) ^ (*number & 1).wrapping_neg();
                self.0 = self.0.wrapping_add(step);
                *number = self.0;
            }
        }
    }
}

impl Last {
    /// A socket that the row is about, or that is near to it.
    pub fn step_socket(&mut self, socket: &mut Identity, way: Way) {
        step_socket(socket, &mut self.cookie, &mut self.inode, way);
    }

    /// A listener: many connections in a row have the same one.
    pub fn step_listener(&mut self, socket: &mut Identity, way: Way) {
        step_socket(socket, &mut self.listener_cookie, &mut self.listener_inode, way);
    }
}

fn step_socket(socket: &mut Identity, cookie: &mut Number, inode: &mut Number32, way: Way) {
    if let Some(number) = &mut socket.cookie {
        cookie.step(number, way);
    }
    if let Some(number) = &mut socket.inode {
        inode.step(number, way);
    }
}


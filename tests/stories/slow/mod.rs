//! What takes seconds: thousands of sockets, leases that run out, many rounds.

mod leases;
mod many;
mod mortal;

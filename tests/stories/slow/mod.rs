//! What takes seconds: thousands of sockets, leases that run out, many rounds.

mod interrupted;
mod leases;
mod many;
mod mortal;
mod truth;
mod worlds;

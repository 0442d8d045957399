//! Takes stock of the live sockets of the machine: passes of iterators, their owners, what was tracked.

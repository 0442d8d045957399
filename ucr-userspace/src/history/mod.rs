//! What is gone: closed sockets and past events, in an embedded database.

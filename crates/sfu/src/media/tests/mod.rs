//! A room's media between real transports: clients and server in one process, in virtual time.

mod forwarding;
mod hostile;
mod recovery;
mod world;

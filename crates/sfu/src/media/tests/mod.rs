//! A room's media between real transports: clients and server in one process, in virtual time.

mod burst;
mod forwarding;
mod hostile;
mod late;
mod recovery;
mod world;

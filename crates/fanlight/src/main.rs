//! The Fanlight server and its command line.
fn main() {}

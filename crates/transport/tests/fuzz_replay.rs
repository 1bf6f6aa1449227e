//! Replays the committed fuzz corpora and seeded mutations of them on the stable toolchain.

use fanlight_corpus::replay;
use fanlight_transport::fuzzing;

/// Mutations of each input.
const MUTATIONS: usize = 300;
/// Of each of the many inputs of SCTP.
const SCTP_MUTATIONS: usize = 100;
/// Of ICE's, each of which makes a certificate and takes hundreds of checks.
const ICE_MUTATIONS: usize = 20;

#[test]
fn demultiplexing_survives_its_corpus() {
    replay("transport_demux", MUTATIONS, fuzzing::fuzz_demux);
}

#[test]
fn ice_survives_its_corpus() {
    replay("transport_ice", ICE_MUTATIONS, fuzzing::fuzz_ice);
}

#[test]
fn framing_survives_its_corpus() {
    replay("transport_framing", MUTATIONS, fuzzing::fuzz_framing);
}

#[test]
fn dcep_survives_its_corpus() {
    replay("transport_dcep", MUTATIONS, fuzzing::fuzz_dcep);
}

#[test]
fn client_hello_collection_survives_its_corpus() {
    replay("transport_client_hello", MUTATIONS, fuzzing::fuzz_client_hello);
}

#[test]
fn sctp_survives_its_corpus() {
    replay("transport_sctp", SCTP_MUTATIONS, fuzzing::fuzz_sctp);
}

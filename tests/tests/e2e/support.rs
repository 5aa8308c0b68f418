//! The support itself: a bed serves, a sniffer sees.

use interceptor_tests::{Bed, places, process, sniffer::Sniffer};

#[test]
fn a_bed_serves_and_logs() {
    let bed = Bed::start();
    assert_eq!(bed.admin("orders", "SELECT count(*) FROM users"), "100");
    let logged = bed.statements("postgres");
    assert!(logged.iter().any(|text| text == "SELECT count(*) FROM users"), "{logged:#?}");
}

#[test]
fn a_sniffer_sees_what_leaves() {
    let sniffer = Sniffer::new();
    sniffer.saw_nothing("before anything is sent");
    let send =
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))";
    let namespace = format!("--net=/run/netns/{}", sniffer.namespace());
    let words = ["nsenter", &namespace, "python3", "-c", send];
    process::run(process::command(&words)).succeeded();
    assert_eq!(sniffer.frames().len(), 1);
    assert!(places::tool("ip").exists());
}

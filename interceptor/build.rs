//! Says which kernel object is embedded: the committed one, or, to try one out, what `INTERCEPTOR_OBJECT` names.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=INTERCEPTOR_OBJECT");
    let object = env::var("INTERCEPTOR_OBJECT").unwrap_or_else(|_| {
        let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        format!("{package}/../interceptor-ebpf/prebuilt/interceptor.bpf.o")
    });
    println!("cargo::rerun-if-changed={object}");
    println!("cargo::rustc-env=INTERCEPTOR_OBJECT={object}");
}

//! The fuzz targets under libFuzzer, which is guided by what an input reaches: `cargo xtask fuzz --engine libfuzzer`
//! builds it with LLVM's instrumentation of our own code. The environment's `INTERCEPTOR_FUZZ` names the target.
#![no_main]
#![allow(clippy::expect_used, reason = "without a target there is nothing to do")]

use std::{env, sync::LazyLock};

use interceptor_tests::fuzzing::{self, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = env::var("INTERCEPTOR_FUZZ").expect("INTERCEPTOR_FUZZ names a target");
    fuzzing::target(&name).expect("there is a target of that name")
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));

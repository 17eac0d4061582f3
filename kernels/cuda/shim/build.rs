//! Compiles the shim and, inside it, `kernels.cu`. Always optimised: unoptimised fibres take minutes. Floats stay IEEE: no
//! contraction, no fast math, so the instructions allowed cannot change a bit.

fn main() {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("shim.cpp").include(".").opt_level(2);
    build.flag("-ffp-contract=off").flag_if_supported("-fno-fast-math").flag("-Wno-unknown-pragmas");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        // Without it every fma is a call; `is_available` asks the processor.
        build.flag("-mfma");
    }
    build.compile("counterfoil_cuda_shim");
    for path in ["shim.cpp", "shim.h", "../kernels.cu"] {
        println!("cargo:rerun-if-changed={path}");
    }
}

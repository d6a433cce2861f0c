//! The symbols of Python come from the process that loads the library: macOS' linker must be told.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    pyo3_build_config::add_extension_module_link_args();
}

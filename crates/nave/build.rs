//! Tells the linker to put the functions of a release build in the order of their use.
//!
//! The kernel maps a program's code in pieces of 64 KiB. The functions that run in an idle server are a fifth of the
//! code, but in the order of the crates they are spread over all of it, so that nearly all of it would stay in memory.
//! `function-order.txt` lists them side by side. `cargo xtask layout` writes the file.
//!
//! The linker ignores names that the program does not have and appends functions that are not in the file. An outdated
//! file, such as after an update of the compiler, costs memory and speed, but never correctness.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

const ORDER: &str = "function-order.txt";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ORDER}");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || env::var_os("TARGET") != env::var_os("HOST") {
        return;
    }
    let Some(package) = env::var_os("CARGO_MANIFEST_DIR") else { return };
    let order = Path::new(&package).join(ORDER);
    let order = format!("-Wl,--symbol-ordering-file={},--no-warn-symbol-ordering", order.display());
    // Relocations in a short form: 2 MB that would be read at each start.
    for argument in [order.as_str(), "-Wl,-z,pack-relative-relocs"] {
        if links(argument) {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}

/// Returns whether a program that is linked with an argument runs. Not all linkers know these arguments, and not all
/// C libraries load such programs.
fn links(argument: &str) -> bool {
    let (Some(rustc), Some(folder)) = (env::var_os("RUSTC"), env::var_os("OUT_DIR")) else { return false };
    let folder = Path::new(&folder);
    let (source, program) = (folder.join("empty.rs"), folder.join("empty"));
    if fs::write(&source, "fn main() {}\n").is_err() {
        return false;
    }
    let mut compile = Command::new(rustc);
    compile.arg(&source).arg("-o").arg(&program).arg("-C").arg(format!("link-arg={argument}"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let linker = Path::new(&linker).display().to_string();
        compile.arg("-C").arg(format!("linker={linker}"));
    }
    // The flags that Cargo passes, which may select another linker.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compile.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    let is_linked = compile.output().is_ok_and(|output| output.status.success());
    is_linked && Command::new(program).status().is_ok_and(|status| status.success())
}

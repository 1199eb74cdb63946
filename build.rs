//! What cargo must know before it compiles: which folder goes into the binary.
//!
//! `http::assets` takes in what Vite built. Where nobody built that, an empty folder stands in, and the hub's
//! pages say how to.

fn main() -> std::io::Result<()> {
    const PAGES: &str = "web/app/dist";
    std::fs::create_dir_all(PAGES)?;
    println!("cargo:rerun-if-changed={PAGES}");
    Ok(())
}

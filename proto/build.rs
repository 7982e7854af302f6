//! Compiles the three protocols without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=admin/admin.proto");
    println!("cargo:rerun-if-changed=cri/api.proto");
    println!("cargo:rerun-if-changed=shim/shim.proto");
    let out = std::env::var("OUT_DIR")?;

    let shim = protox::compile(["shim/shim.proto"], ["shim"])?;
    prost_build::Config::new().compile_fds(shim)?;

    let cri = protox::compile(["cri/api.proto"], ["cri"])?;
    std::fs::write(Path::new(&out).join("cri.fds"), prost::Message::encode_to_vec(&cri))?;
    // AuthConfig holds secrets: its Debug is written by hand.
    let mut prost = prost_build::Config::new();
    prost.btree_map(["."]).skip_debug(["runtime.v1.AuthConfig"]);
    // Asked for every second: see src/cri/list.rs.
    prost.extern_path(".runtime.v1.ListContainersResponse", "crate::cri::ListContainersResponse");
    tonic_prost_build::configure().compile_fds_with_config(cri, prost)?;

    let admin = protox::compile(["admin/admin.proto"], ["admin"])?;
    let mut prost = prost_build::Config::new();
    prost.bytes([".berth.admin.v1.ImportChunk"]).skip_debug(["berth.admin.v1.Credentials"]);
    for message in
        ["DumpResponse", "Pod", "Container", "Process", "Call", "Wait", "Pull", "Layer", "Queue", "Condition"]
    {
        let name = if message == "DumpResponse" { message.to_string() } else { format!("Dumped{message}") };
        prost.type_attribute(format!(".berth.admin.v1.{name}"), "#[derive(serde::Serialize)]");
    }
    tonic_prost_build::configure().compile_fds_with_config(admin, prost)?;
    Ok(())
}

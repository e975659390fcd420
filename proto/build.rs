//! Compiles every .proto below `lockstep/` with protox, so that no protoc is needed.

use std::path::{Path, PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protos(Path::new("lockstep"))?;
    println!("cargo:rerun-if-changed=lockstep");
    let descriptors = protox::compile(&files, ["."])?;
    let bytes = descriptors.encode_to_vec();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), &bytes)?;

    // Sorted maps on disk and in backups: the same records are the same bytes.
    tonic_prost_build::configure()
        .compile_well_known_types(true)
        // They carry passwords, and have a Debug of their own in `secrecy`.
        .skip_debug([
            ".lockstep.v1.OfferTask",
            ".lockstep.v1.CreateMirrorRequest",
            ".lockstep.v1.UpdateMirrorRequest",
            ".lockstep.v1.CreatePushTokenResponse",
            ".lockstep.v1.CreateClusterRequest",
        ])
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(".lockstep.store")
        .compile_fds(descriptors)?;
    // Proto3 JSON: the output of `-o json` and the lines of the backup format.
    pbjson_build::Builder::new()
        .register_descriptors(&bytes)?
        .preserve_proto_field_names()
        .emit_fields()
        .btree_map([".lockstep.store"])
        .build(&[".lockstep"])?;
    Ok(())
}

fn protos(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(protos(&path)?);
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

//! The program: protobuf bytes, and what they say of a weight file.

use crate::support::{Builder, WEIGHTS, conv_model, linear_model, values};
use palettizer_coreml::package::Package;
use palettizer_coreml::proto::Model;
use prost::Message as _;

/// Reads a program, and whatever of it a plan looks at.
pub(crate) fn read(data: &[u8]) -> bool {
    let weights = linear_model().weights;
    let Ok((package, model)) = Package::from_parts(data, weights.clone()) else {
        return false;
    };
    let offsets = blob_offsets(&model);
    if let Ok(file) = package.weight_file(WEIGHTS) {
        offsets.iter().for_each(|&offset| drop(file.blob(offset)));
        file.check_overlaps(&offsets).ok();
    }
    // What was read can be written, and is then read as the same.
    let bytes = model.encode_to_vec();
    let again = Model::decode(bytes.as_slice()).unwrap();
    assert_eq!(again.encode_to_vec(), bytes);
    // What passes the checks has weights that can be listed and made dense, or refused.
    if let Ok(model) = palettizer_coreml::Model::from_parts(data, weights) {
        drop(model.weights(0));
        drop(model.decompress(&()));
    }
    true
}

fn blob_offsets(model: &Model) -> Vec<u64> {
    let functions = model.ml_program.iter().flat_map(|p| p.functions.values());
    let blocks = functions.flat_map(|f| f.block_specializations.values());
    blocks
        .flat_map(|block| &block.operations)
        .flat_map(|operation| operation.attributes.values())
        .filter_map(|value| value.blob_file.as_ref().map(|blob| blob.offset))
        .collect()
}

/// Valid programs.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let nested = Builder::new("CoreML8")
        .input("x", &[1, 4])
        .weight_f32("w", &[4, 4], &values(16))
        .boolean("flag", true)
        .op(
            "matmul",
            "y",
            &[("x", "x"), ("y", "w"), ("transpose_y", "flag")],
            &[1, 4],
        )
        .output("y")
        .build();
    let parts = [linear_model(), conv_model("CoreML6", 2, 2), nested];
    parts.map(|parts| parts.model).into()
}
